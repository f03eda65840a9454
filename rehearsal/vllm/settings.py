"""What an argv makes of an engine: its limits, its parsers, its KV cache; or why vLLM would not start with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rehearsal.vllm.parsers import REASONING_PARSERS, TOOL_CALL_PARSERS
from serving import argv
from serving.argv import Arguments
from serving.catalogue import Engine, InstanceType
from serving.facts import WorkloadFacts
from serving.memory import GIB, KV_BLOCK_TOKENS, breakdown, largest_max_model_len
from serving.reading import from_command

# vLLM's own words, quoted from 0.32.0: people search for them.
_ENGINE_FAILED = "RuntimeError: Engine core initialization failed. See root cause above."
_LEFT_TO_VLLM = frozenset({"auto", "-1"})


class StartError(Exception):
    """VLLM does not start; the text is what it prints. `after_load` says whether the weights are loaded before it finds out."""

    def __init__(self, text: str, *, after_load: bool = False) -> None:
        super().__init__(text)
        self.after_load = after_load


@dataclass(frozen=True)
class KvCache:
    """The pool that is left for the KV cache on one GPU, and the tokens of all `ranks` that share a cache out.

    `block_size` is in tokens.
    """

    tokens: int
    memory_bytes: int
    dtype: str
    ranks: int = 1
    block_size: int = KV_BLOCK_TOKENS

    @property
    def blocks(self) -> int:
        """Blocks on one GPU."""
        return self.tokens // self.ranks // self.block_size


@dataclass(frozen=True)
class EngineSettings:
    """One started engine. `version` is the vLLM release, also as numbers; `model` is what the argv calls the checkpoint."""

    version: str
    release: tuple[int, ...]
    model: str
    served_names: tuple[str, ...]
    max_model_len: int
    max_num_seqs: int
    tool_call_parser: str | None
    reasoning_parser: str | None
    speculative_tokens: int
    shutdown_timeout_seconds: int
    api_key: str | None
    kv_cache: KvCache

    def full_length_requests(self) -> float:
        """How many requests of `max_model_len` tokens fit at once."""
        return self.kv_cache.tokens / self.max_model_len


def settings_of(
    command: Sequence[str], env: Mapping[str, str], instance: InstanceType, engine: Engine
) -> EngineSettings:
    """Read an engine's settings from its argv and environment.

    Raises `StartError` with vLLM's own text where vLLM would not start, and `InputError` for what the stand-in cannot judge.
    """
    given = argv.read(command)
    facts = from_command("pod", command, env, "", instance, engine=engine)
    _check_parsers(facts)
    facts = _with_length(facts, given)
    memory = facts.memory
    if memory is None:
        raise StartError(f"OSError: {facts.model} is no checkpoint that the catalogue knows")
    _check_length(facts)
    return EngineSettings(
        version=engine.version,
        release=engine.number,
        model=facts.model,
        served_names=tuple(given.get("served-model-name", facts.model).split()),
        max_model_len=facts.context_tokens or 0,
        max_num_seqs=facts.sequences,
        # Without --enable-auto-tool-choice the parser is not made at all (`ParserManager.get_parser`).
        tool_call_parser=facts.tool_call_parser if facts.auto_tool_choice else None,
        reasoning_parser=facts.reasoning_parser,
        speculative_tokens=facts.speculative_tokens,
        shutdown_timeout_seconds=int(given.get("shutdown-timeout", "0")),
        api_key=given.get("api-key") or env.get("VLLM_API_KEY"),
        kv_cache=KvCache(
            memory.kv_pool_tokens,
            int(memory.kv_pool_gib * GIB),
            facts.kv_cache_dtype,
            facts.decode_context_parallel_size,
        ),
    )


def _check_parsers(facts: WorkloadFacts) -> None:
    """Refuse what vLLM's argument check refuses (`validate_parsed_serve_args`, `validate_api_server_args`)."""
    parser, reasoning = facts.tool_call_parser, facts.reasoning_parser
    if facts.auto_tool_choice and parser is None:
        raise StartError("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser")
    if facts.auto_tool_choice and parser not in TOOL_CALL_PARSERS:
        names = ",".join(TOOL_CALL_PARSERS)
        raise StartError(f"KeyError: 'invalid tool call parser: {parser} (chose from {{ {names} }})'")
    if reasoning is not None and reasoning not in REASONING_PARSERS:
        names = ",".join(REASONING_PARSERS)
        raise StartError(f"KeyError: 'invalid reasoning parser: {reasoning} (chose from {{ {names} }})'")


def _with_length(facts: WorkloadFacts, given: Arguments) -> WorkloadFacts:
    """Let vLLM choose the length where the flag says so."""
    if given.get("max-model-len") not in _LEFT_TO_VLLM or facts.shape is None:
        return facts
    return replace(facts, max_model_len=largest_max_model_len(facts.shape))


def _check_length(facts: WorkloadFacts) -> None:
    if facts.shape is None or facts.checkpoint is None:
        return
    limit = facts.checkpoint.architecture.max_position_embeddings
    length = facts.shape.max_model_len
    if length > limit:
        raise StartError(
            f"Value error, User-specified max_model_len ({length}) is greater than the derived max_model_len"
            f" (max_position_embeddings={float(limit)} or model_max_length=None in model's config.json)."
        )
    memory = breakdown(facts.shape)
    if memory.needed_gib > memory.kv_pool_gib:
        raise StartError(
            f"ValueError: To serve at least one request with the model's max seq len ({length}),"
            f" ({memory.needed_gib:.2f} GiB KV cache is needed, which is larger than the available KV cache memory"
            f" ({memory.kv_pool_gib:.2f} GiB). Based on the available memory, the estimated maximum model length is"
            f" {memory.kv_pool_tokens}. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU"
            f" backend) or decreasing `max_model_len` when initializing the engine.\n{_ENGINE_FAILED}",
            after_load=True,
        )
