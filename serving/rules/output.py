"""Rules about output: tool calls, reasoning and draft tokens that come out right."""

from __future__ import annotations

from serving.facts import WorkloadFacts
from serving.rules.rule import Outcome, Rule, passed, refused, unknown


def _parser_old(facts: WorkloadFacts) -> Outcome:
    if facts.tool_call_parser is None or not facts.mtp:
        return passed("tool calling and MTP are not on together")
    if facts.engine is None:
        return refused(f"tool calls with MTP need vLLM 0.24.0 or later, and {unknown(facts)}")
    if facts.engine.streaming_tool_parser:
        return passed(f"vLLM {facts.engine.version} has the GLM parser")
    return refused(
        f"vLLM {facts.engine.version} loses or garbles streamed tool calls with MTP; the GLM parser came with 0.24.0"
    )


def _parser_missing(facts: WorkloadFacts) -> Outcome:
    if facts.checkpoint is None:
        return refused(unknown(facts))
    right = facts.checkpoint.architecture
    if facts.reasoning_parser not in {None, right.reasoning_parser}:
        return refused(f"--reasoning-parser is {facts.reasoning_parser}, {facts.model} needs {right.reasoning_parser}")
    if facts.tool_call_parser is None and not facts.auto_tool_choice:
        return passed("tool calling is off")
    if facts.tool_call_parser != right.tool_call_parser:
        return refused(
            f"--tool-call-parser is {facts.tool_call_parser or 'missing'}, {facts.model} needs {right.tool_call_parser}: "
            "calls stay in the content as text, or the engine does not start"
        )
    if not facts.auto_tool_choice:
        return refused("--enable-auto-tool-choice is missing: every request with tools is answered with an error")
    if facts.reasoning_parser is None:
        return refused(
            "--reasoning-parser is missing: with tools and thinking the answer is gibberish without any call"
        )
    return passed("tool and reasoning parsers are those of the model")


def _tool_fault(facts: WorkloadFacts, fault: str, what: str, *, with_mtp: bool = False) -> Outcome:
    if facts.tool_call_parser is None:
        return passed("tool calling is off")
    if with_mtp and not facts.mtp:
        return passed("MTP is off")
    if facts.engine is None:
        return refused(unknown(facts))
    if not facts.engine.has_fault(fault):
        return passed(f"vLLM {facts.engine.version} is not reported to do so")
    return refused(f"vLLM {facts.engine.version}{' with MTP' if with_mtp else ''} {what}")


def _tools_forced_024(facts: WorkloadFacts) -> Outcome:
    what = "leaves a forced tool call in the content as text"
    return _tool_fault(facts, "tools-forced-024", what, with_mtp=True)


def _tools_required_026(facts: WorkloadFacts) -> Outcome:
    what = "repeats required tool calls until the token limit, or its grammar crashes or hangs"
    return _tool_fault(facts, "tools-required-026", what)


def _mtp_fault(facts: WorkloadFacts, fault: str, what: str) -> Outcome:
    if not facts.mtp:
        return passed("MTP is off")
    if facts.engine is None:
        return refused(unknown(facts))
    if facts.engine.has_fault(fault):
        return refused(f"vLLM {facts.engine.version} with MTP {what}")
    return passed(f"vLLM {facts.engine.version} is not reported to do so")


def _mtp_accuracy(facts: WorkloadFacts) -> Outcome:
    return _mtp_fault(
        facts, "mtp-accuracy", "may answer 1 % of GSM8K right where 95 % are; it was mended by 2026-07-15"
    )


def _mtp_quality(facts: WorkloadFacts) -> Outcome:
    return _mtp_fault(
        facts, "mtp-quality", "has about 3 tokens accepted where later releases have 4, and shares no index"
    )


def _allreduce_mnnvl(facts: WorkloadFacts) -> Outcome:
    if facts.hopper or not facts.mtp:
        return passed(f"the GPU is {facts.gpu.name}, MTP is {'on' if facts.mtp else 'off'}")
    backend = facts.variable("VLLM_FLASHINFER_ALLREDUCE_BACKEND")
    given = f"VLLM_FLASHINFER_ALLREDUCE_BACKEND is {backend or 'not set'}"
    if backend == "trtllm":
        return passed(given)
    return refused(f"{given} on {facts.gpu.name}: the MNNVL backend lowers the acceptance of draft tokens")


def _tools_behind_the_gate(facts: WorkloadFacts) -> Outcome:
    return _behind_the_gate(facts) if facts.tool_call_parser else passed("tool calling is off")


def _reasoning_behind_the_gate(facts: WorkloadFacts) -> Outcome:
    if facts.reasoning_parser is None:
        return passed("reasoning is left in the content")
    return _tools_behind_the_gate(facts)


def _behind_the_gate(facts: WorkloadFacts) -> Outcome:
    if facts.headless:
        return passed("it answers no requests; the pod that answers for it has the gate")
    if facts.gated:
        return passed("the gate tries it in every pod before the pod takes traffic")
    return refused("no gate in the pod tries it before the pod takes traffic")


RULES: tuple[Rule, ...] = (
    Rule(
        "parser-old",
        "Tool calls with MTP have the GLM parser",
        "malformed or lost tool calls",
        "use vLLM 0.24.0 or later",
        "vllm#45915",
        _parser_old,
    ),
    Rule(
        "parser-missing",
        "Tool calls and reasoning have the model's own parsers",
        "tool calls and thoughts in the content, or no answer to any request with tools",
        "set toolCalling and reasoning (--tool-call-parser glm47 --enable-auto-tool-choice --reasoning-parser glm45)",
        "cookbook; observed on vLLM 0.32.0",
        _parser_missing,
    ),
    Rule(
        "tools-forced-024",
        "vLLM 0.24 does not force tool calls with MTP",
        "forced tool calls stay in the content, behind HTTP 200",
        "use a later vLLM release, with the gate",
        "vllm#48095",
        _tools_forced_024,
    ),
    Rule(
        "tools-required-026",
        "vLLM 0.26 does not serve required tool calls",
        "tool calls that never end",
        "use a later vLLM release, with the gate",
        "vllm#50399, vllm#49981 (open)",
        _tools_required_026,
    ),
    Rule(
        "mtp-accuracy",
        "MTP has a release whose answers are right",
        "wrong answers behind a green health check",
        "use vLLM 0.26.0 or later",
        "vllm#46834",
        _mtp_accuracy,
        level="advisory",
    ),
    Rule(
        "mtp-quality",
        "MTP has a release that accepts what it should",
        "slower than need be",
        "use a later vLLM release",
        "vLLM pull requests 45895 and 44420",
        _mtp_quality,
        level="advisory",
    ),
    Rule(
        "allreduce-mnnvl",
        "On Blackwell the all-reduce keeps draft tokens acceptable",
        "fewer draft tokens are accepted",
        "set VLLM_FLASHINFER_ALLREDUCE_BACKEND to trtllm",
        "llm-d's GLM guide",
        _allreduce_mnnvl,
        level="advisory",
    ),
    Rule(
        "sparse-path-corruption",
        "Output beyond 2,048 tokens is tried before traffic",
        "right on short prompts, corrupt on long ones",
        "put the gate beside the engine",
        "vllm#47827, mlx-lm#1453, ROCm/ATOM#1435, TensorRT-LLM#15295",
        _behind_the_gate,
        level="advisory",
    ),
    Rule(
        "turn3-reasoning",
        "A conversation with tool results is tried before traffic",
        "thoughts in the content from the third turn on",
        "put the gate beside the engine",
        "vllm#27703 (open)",
        _reasoning_behind_the_gate,
        level="advisory",
    ),
    Rule(
        "tools-residual",
        "Every way to ask for a tool call is tried before traffic",
        "tool calls that are lost or malformed",
        "put the gate beside the engine",
        "vllm#46118, vllm#34449, vllm#48103, vllm#48131, vllm#42400, vllm#39574, vllm#44843, vllm#32436",
        _tools_behind_the_gate,
        level="advisory",
    ),
)
