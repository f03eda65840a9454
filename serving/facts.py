"""What a vLLM command, its image and its machine say about a workload: the one input of every rule.

The plan reads its own rendered command back through `from_command`, so that the program, a policy pack and a reviewer judge
the same thing: the flags that really reach vLLM.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from serving import catalogue
from serving.catalogue import Checkpoint, Engine, Gpu, InstanceType
from serving.memory import DEFAULT_GPU_MEMORY_UTILIZATION, GIB, MemoryBreakdown, ServingShape, breakdown
from serving.parallelism import covers, default_partition
from serving.spelling import InputError

# vLLM's defaults where a flag is left out (0.23 to 0.33).
DEFAULT_MAX_NUM_SEQS = 1024
DEFAULT_ENGINE_READY_SECONDS = 600
_LARGE_GPU_GIB = 160  # from this size on the API server batches 16,384 tokens instead of 8,192

IMAGE_DIGEST = re.compile(r"^[^@\s]+@sha256:[a-f0-9]{64}$")
MODEL_REVISION = re.compile(r"^[a-f0-9]{40}$")

# Short forms and numbers as vLLM's own parser reads them (`engine/arg_utils.py`): 128k is 128,000 and 128K is 131,072.
_SHORT_FLAGS = {"-tp": "tensor-parallel-size", "-sc": "speculative-config"}
_HUMAN_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kKmMgG]?)")
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def short_digest(image: str) -> str | None:
    """Return the first twelve digits of an image's digest, or None if the image is not pinned by one."""
    return image.rpartition(":")[2][:12] if IMAGE_DIGEST.fullmatch(image) else None


class UnknownFactError(Exception):
    """A fact was asked for that nobody can know; the text is one clause that says why."""


@dataclass(frozen=True)
class HostPath:
    """A volume on the host: its path, and its type ("" if none is given)."""

    path: str
    type: str


@dataclass(frozen=True, eq=False)
class WorkloadFacts:  # noqa: PLW1641 (it holds mappings and has no hash)
    """One serving workload as vLLM will see it. None means that the command leaves it to vLLM.

    `unknown` says, by the name of a field, why nobody can know it: "--max-model-len takes its value from variable LEN, which
    comes from a ConfigMap". Such a field raises `UnknownFactError` when it is read, whatever it holds, so that a check fails
    closed exactly where its verdict depends on it. One variable is named `env.NAME`; `env` stands for all that `env` does not
    list.
    """

    workload: str
    image: str
    engine: Engine | None
    model: str
    revision: str | None
    checkpoint: Checkpoint | None
    instance: InstanceType
    nodes_per_replica: int
    tensor_parallel_size: int
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    kv_cache_dtype: str
    speculative_tokens: int
    load_format: str
    tool_call_parser: str | None
    reasoning_parser: str | None = None
    auto_tool_choice: bool = False
    pipeline_parallel_size: int = 1
    decode_context_parallel_size: int = 1
    kv_connector: str | None = None
    offload_gib: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    shared_memory_gib: float | None = None
    memory_limited: bool = False
    host_paths: tuple[HostPath, ...] = ()
    gated: bool = False
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])

    if not TYPE_CHECKING:  # a checker would take it as a type for misspelt names, too

        def __getattribute__(self, name: str) -> object:
            unknown = object.__getattribute__(self, "__dict__").get("unknown", {})
            if name in unknown:
                raise UnknownFactError(unknown[name])
            return object.__getattribute__(self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkloadFacts) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"WorkloadFacts({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def variable(self, name: str) -> str | None:
        """Return the value of an environment variable, None if it is not set; raise `UnknownFactError` if nobody can know."""
        if f"env.{name}" in self.unknown:
            raise UnknownFactError(self.unknown[f"env.{name}"])
        set_here: Mapping[str, str] = vars(self)["env"]
        return set_here[name] if name in set_here else self.env.get(name)

    @property
    def gpu(self) -> Gpu:
        """The GPU of the machine it runs on."""
        return self.instance.gpu

    @property
    def hopper(self) -> bool:
        """Whether it runs on Hopper (H200)."""
        return self.gpu.architecture == "hopper"

    @property
    def mtp(self) -> bool:
        """Whether multi-token prediction is on."""
        return self.speculative_tokens > 0

    @property
    def context_tokens(self) -> int | None:
        """What vLLM will use as maximum length: the flag, or the checkpoint's own limit."""
        if self.max_model_len is not None:
            return self.max_model_len
        return self.checkpoint.architecture.max_position_embeddings if self.checkpoint else None

    @property
    def sequences(self) -> int:
        """What vLLM will use as maximum number of running requests."""
        return DEFAULT_MAX_NUM_SEQS if self.max_num_seqs is None else self.max_num_seqs

    @property
    def layer_partition(self) -> tuple[int, ...]:
        """How many layers each pipeline stage has: the variable, or vLLM's own division. Needs a checkpoint."""
        given = self.variable("VLLM_PP_LAYER_PARTITION") if self.pipeline_parallel_size > 1 else None
        if given is not None:
            return tuple(int(part) if part.strip().isdecimal() else 0 for part in given.split(","))
        layers = self.checkpoint.architecture.hidden_layers if self.checkpoint else 0
        return default_partition(layers, self.pipeline_parallel_size)

    @property
    def engine_ready_seconds(self) -> int:
        """How long vLLM waits for its engine to start; 0 for what is no number."""
        given = self.variable("VLLM_ENGINE_READY_TIMEOUT_S")
        if given is None:
            return DEFAULT_ENGINE_READY_SECONDS
        return int(given) if given.isdecimal() else 0

    @property
    def shape(self) -> ServingShape | None:
        """The input of the memory model; None while engine or checkpoint is unknown."""
        if self.engine is None or self.checkpoint is None or self.context_tokens is None:
            return None
        partition = self.layer_partition
        return ServingShape(
            checkpoint=self.checkpoint,
            engine=self.engine,
            gpu=self.gpu,
            tensor_parallel_size=self.tensor_parallel_size,
            max_model_len=self.context_tokens,
            max_num_seqs=self.sequences,
            max_num_batched_tokens=self.max_num_batched_tokens,
            kv_cache_dtype=self.kv_cache_dtype,
            speculative_tokens=self.speculative_tokens,
            gpu_memory_utilization=self.gpu_memory_utilization,
            pipeline_parallel_size=self.pipeline_parallel_size,
            # What vLLM would not take is rule pp-split's to refuse.
            layer_partition=partition if covers(self.checkpoint.architecture, partition) else None,
            decode_context_parallel_size=self.decode_context_parallel_size,
        )

    @property
    def memory(self) -> MemoryBreakdown | None:
        """One GPU's memory, term by term; None while engine or checkpoint is unknown."""
        return breakdown(self.shape) if self.shape else None


def flags(command: Sequence[str]) -> dict[str, str]:
    """Return the flags of a vLLM command by name without dashes; a switch has the value `true`."""
    found: dict[str, str] = {}
    words = list(command)
    while words:
        word, equals, value = words.pop(0).partition("=")
        name = _flag(word)
        if name is None:
            continue
        if not equals:
            value = words.pop(0) if words and _flag(words[0].partition("=")[0]) is None else "true"
        found[name] = value
    return found


def _flag(word: str) -> str | None:
    """Return the name of a flag, or None for a value: -1 is a number."""
    if word in _SHORT_FLAGS:
        return _SHORT_FLAGS[word]
    return word[2:].replace("_", "-") if word.startswith("--") else None


def from_command(
    workload: str,
    command: Sequence[str],
    env: Mapping[str, str],
    image: str,
    instance: InstanceType,
    *,
    engine: Engine | None = None,
    nodes_per_replica: int = 1,
    shared_memory_gib: float | None = None,
    memory_limited: bool = False,
    host_paths: tuple[HostPath, ...] = (),
    gated: bool = False,
) -> WorkloadFacts:
    """Read a workload's facts from its command, environment and image.

    `engine` is the release if somebody states it; otherwise the image's digest tells, and an unknown digest leaves it None. What
    no command says (volumes, limits, the gate) comes beside it.
    Raises `InputError` for a value that vLLM would not read either.
    """
    given = flags(command)
    model = _model(command, given)
    offload = _offload(given)
    default_batch = 16_384 if instance.gpu.usable_gib >= _LARGE_GPU_GIB else 8_192
    return WorkloadFacts(
        workload=workload,
        image=image,
        engine=engine or catalogue.engine_of_image(image),
        model=model,
        revision=given.get("revision"),
        checkpoint=catalogue.checkpoints().get(model),
        instance=instance,
        nodes_per_replica=nodes_per_replica,
        tensor_parallel_size=_count(given, "tensor-parallel-size") or 1,
        max_model_len=_count(given, "max-model-len"),
        max_num_seqs=_count(given, "max-num-seqs"),
        max_num_batched_tokens=_count(given, "max-num-batched-tokens") or default_batch,
        gpu_memory_utilization=_fraction(given, "gpu-memory-utilization", DEFAULT_GPU_MEMORY_UTILIZATION),
        kv_cache_dtype=given.get("kv-cache-dtype", "auto"),
        speculative_tokens=_speculative_tokens(given),
        load_format=given.get("load-format", "auto"),
        tool_call_parser=given.get("tool-call-parser"),
        reasoning_parser=given.get("reasoning-parser"),
        auto_tool_choice=given.get("enable-auto-tool-choice") == "true",
        pipeline_parallel_size=_count(given, "pipeline-parallel-size") or 1,
        decode_context_parallel_size=_count(given, "decode-context-parallel-size") or 1,
        kv_connector=offload.connector,
        offload_gib=offload.gib,
        env=dict(env),
        shared_memory_gib=shared_memory_gib,
        memory_limited=memory_limited,
        host_paths=host_paths,
        gated=gated,
        unknown=offload.unknown,
    )


def _model(command: Sequence[str], given: Mapping[str, str]) -> str:
    words = list(command)
    if "serve" in words[:-1] and not words[words.index("serve") + 1].startswith("--"):
        return words[words.index("serve") + 1]
    return given.get("model", "")


def _count(given: Mapping[str, str], flag: str) -> int | None:
    """Read a number of tokens, requests or GPUs; vLLM's `auto` and -1 leave the choice to vLLM."""
    value = given.get(flag)
    if value is None or value in {"auto", "-1"}:
        return None
    match = _HUMAN_NUMBER.fullmatch(value)
    if match is None:
        raise InputError(f"--{flag} {value}: expected a whole number such as 131072 or 128K")
    return int(float(match[1]) * _SUFFIXES[match[2]])


def _fraction(given: Mapping[str, str], flag: str, default: float) -> float:
    value = given.get(flag)
    if value is None:
        return default
    try:
        return float(value)
    except ValueError:
        raise InputError(f"--{flag} {value}: expected a fraction such as {default:g}") from None


def _speculative_tokens(given: Mapping[str, str]) -> int:
    """Read the number of draft tokens from the dotted flags or from the JSON; 0 without speculation."""
    flag = "speculative-config"
    # Settings keep their underscores in JSON; among flags both spellings are read alike.
    if f"{flag}.num-speculative-tokens" in given:
        return _count(given, f"{flag}.num-speculative-tokens") or 0
    text = given.get(flag)
    if text is None:
        return 0
    try:
        config: object = json.loads(text)
    except ValueError:
        config = None
    tokens = cast("dict[str, object]", config).get("num_speculative_tokens", 0) if isinstance(config, dict) else None
    if not isinstance(tokens, int):
        raise InputError(f'--{flag} {text}: expected JSON such as {{"method":"mtp","num_speculative_tokens":3}}')
    return tokens


@dataclass(frozen=True)
class _Offload:
    """Which connector moves KV cache elsewhere, how many GiB of it the host's memory holds, and what of that nobody can know."""

    connector: str | None = None
    gib: float = 0.0
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])


def _offload(given: Mapping[str, str]) -> _Offload:
    size = given.get("kv-offloading-size")
    if size is not None:  # the short form: GiB over all ranks
        backend = given.get("kv-offloading-backend", "native")
        return _Offload("LMCacheConnectorV1" if backend == "lmcache" else "OffloadingConnector", _gib(size))
    text = given.get("kv-transfer-config")
    if text is None:
        return _Offload()
    try:
        config: object = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    settings = cast("dict[str, object]", config) if isinstance(config, dict) else {}
    connector = settings.get("kv_connector")
    if not isinstance(connector, str):
        raise InputError(
            '--kv-transfer-config: expected JSON such as {"kv_connector":"OffloadingConnector","kv_role":"kv_both"}'
        )
    if connector == "MultiConnector":
        return _Offload(connector, unknown={"kv_connector": "--kv-transfer-config names several connectors"})
    extra = settings.get("kv_connector_extra_config")
    given_bytes = cast("dict[str, object]", extra).get("cpu_bytes_to_use") if isinstance(extra, dict) else None
    if isinstance(given_bytes, int | float):
        return _Offload(connector, given_bytes / GIB)
    return _Offload(
        connector, unknown={"offload_gib": "--kv-transfer-config does not say cpu_bytes_to_use as a number"}
    )


def _gib(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise InputError(f"--kv-offloading-size {text}: expected a number of GiB such as 512")
    return size
