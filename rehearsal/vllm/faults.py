"""What can be wrong with a server that still starts, or still says it is healthy: each fault with where it was seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from serving.spelling import InputError, allowed, did_you_mean


class Fault(StrEnum):
    """The faults by name."""

    GIBBERISH = "gibberish"
    LOW_ACCURACY = "low-accuracy"
    WRONG_BEYOND_2048 = "wrong-beyond-2048"
    WRONG_BEYOND_4096 = "wrong-beyond-4096"
    WRONG_AT_5400_WITH_TOOLS = "wrong-at-5400-with-tools"
    FORCED_CALL_IN_CONTENT = "forced-call-in-content"
    REQUIRED_REPEATS = "required-repeats"
    GRAMMAR_HANG = "grammar-hang"
    CALL_IN_THINKING = "call-in-thinking"
    CALL_NEVER_ISSUED = "call-never-issued"
    STREAMED_CALL_LOST = "streamed-call-lost"
    ZERO_ARGUMENT_CALL_LOST = "zero-argument-call-lost"
    CALL_LOST_NEAR_MAX_CONTEXT = "call-lost-near-max-context"
    TURN_THREE_REASONING = "turn-three-reasoning"
    DEAD_MTP = "dead-mtp"
    STREAMS_FOREVER = "streams-forever"
    STALLS_MID_LINE = "stalls-mid-line"
    EVERY_THIRD_500 = "every-third-500"
    DIES_MID_CHECK = "dies-mid-check"
    NEVER_HEALTHY = "never-healthy"


@dataclass(frozen=True)
class FaultRow:
    """What a client sees of a fault, the thread or measurement where it was seen, and the gate's checks that may name it first.

    `caught_by` is empty if the engine itself ends or never begins: then its pod says so.
    """

    effect: str
    seen: str
    caught_by: tuple[str, ...] = ()


_BROKEN = "a broken server"

FAULTS: dict[Fault, FaultRow] = {
    Fault.GIBBERISH: FaultRow(
        "gibberish without tags; forced calls are well formed and carry nonsense",
        "vllm#46367, #43163, #46078, #54300",
        ("accuracy",),
    ),
    Fault.LOW_ACCURACY: FaultRow("well-formed answers, one in a hundred right", "vllm#46834", ("accuracy",)),
    Fault.WRONG_BEYOND_2048: FaultRow("right up to 2,048 tokens of prompt, wrong beyond", "vllm#47827", ("needle-3k",)),
    Fault.WRONG_BEYOND_4096: FaultRow("right up to 4,096 tokens of prompt, wrong beyond", "vllm#47827", ("needle-5k",)),
    Fault.WRONG_AT_5400_WITH_TOOLS: FaultRow(
        "wrong beyond 5,400 tokens of prompt, only with tools defined", "TensorRT-LLM#15295", ("needle-8k-tools",)
    ),
    Fault.FORCED_CALL_IN_CONTENT: FaultRow(
        "a required or named call stays in content, HTTP 200", "vllm#48095", ("tools-required",)
    ),
    Fault.REQUIRED_REPEATS: FaultRow(
        "tool_choice required repeats its call to the token limit", "vllm#50399", ("tools-required",)
    ),
    Fault.GRAMMAR_HANG: FaultRow(
        "a required or named call is never answered", "vllm#49981", ("tools-required", "tools-required-stream")
    ),
    Fault.CALL_IN_THINKING: FaultRow(
        "<tool_call> inside <think>: no call, markup in reasoning", "vllm#46040", ("tools-auto",)
    ),
    Fault.CALL_NEVER_ISSUED: FaultRow(
        "with tool_choice auto the call is announced and not made", "comments on vllm#45915", ("tools-auto",)
    ),
    Fault.STREAMED_CALL_LOST: FaultRow(
        "streamed calls lose their arguments", "vllm#45915, releases before 0.24", ("tools-auto-stream",)
    ),
    Fault.ZERO_ARGUMENT_CALL_LOST: FaultRow(
        "a call without arguments stays in content", "vllm#34449, #48103", ("tools-no-arguments",)
    ),
    Fault.CALL_LOST_NEAR_MAX_CONTEXT: FaultRow(
        "calls stay in content in the last tenth of the context", "vllm#42400", ("needle-long",)
    ),
    Fault.TURN_THREE_REASONING: FaultRow(
        "thinking tags in content from the third turn on", "vllm#27703", ("tool-conversation",)
    ),
    Fault.DEAD_MTP: FaultRow("right answers, one draft token in a hundred accepted", "vllm#46367", ("speculation",)),
    Fault.STREAMS_FOREVER: FaultRow("no answer ends, whatever max_tokens says", _BROKEN, ("thinking-off",)),
    Fault.STALLS_MID_LINE: FaultRow("half a line of an answer, then silence", _BROKEN, ("thinking-off",)),
    Fault.EVERY_THIRD_500: FaultRow("every third request is answered 500", _BROKEN, ("thinking-off", "accuracy")),
    Fault.DIES_MID_CHECK: FaultRow("the process dies in its tenth answer", _BROKEN),
    Fault.NEVER_HEALTHY: FaultRow("the port is never opened", _BROKEN),
}


def fault_named(name: str) -> Fault:
    """Return a fault by its name; raise `InputError` with the nearest spelling if there is none."""
    names = _names(FAULTS)
    if name not in names:
        raise InputError(f"unknown fault {name!r}; {allowed(names)}{did_you_mean(name, names)}")
    return Fault(name)


def _names(faults: Iterable[Fault]) -> list[str]:
    return [fault.value for fault in faults]
