"""Checks of what the model says: thoughts, tool calls, sums, and needles in texts long enough for sparse attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gate import judge, prompts
from gate.check import Check, Judge, Question, Run
from gate.client import Answer, CheckFailedError
from gate.expect import Expectations
from gate.prompts import Prompt, ToolChoice

# How far the engine's count may lie above the estimate. Three vocabularies meet the texts' within 0.3 %; turn tokens and the
# template's words about tools come on top.
_ESTIMATE_MARGIN = 1.03


def _require(problem: str | None, answer: Answer) -> None:
    if problem is not None:
        raise answer.failed(problem)


def _whole_and_streamed(prompt: Prompt) -> list[Question]:
    return [Question(prompt), Question(prompt, stream=True)]


# --- what the plan must promise ----------------------------------------------------------------------------------------


def _if_quiet(expect: Expectations) -> str | None:
    return "the model always thinks" if expect.thinking == "always" else None


def _if_reasoning(expect: Expectations) -> str | None:
    if not expect.reasoning:
        return "the plan promises no reasoning"
    return "the model does not think" if expect.thinking == "none" else None


def _if_tools(expect: Expectations) -> str | None:
    return None if expect.tool_calling else "the plan promises no tool calls"


def _if_fits(prompt: Prompt, expect: Expectations) -> str | None:
    needed = math.ceil(prompt.about * _ESTIMATE_MARGIN) + prompt.max_tokens
    if needed <= expect.max_model_len:
        return None
    return f"it needs up to {needed:,} tokens of context, the plan has {expect.max_model_len:,}"


# --- thinking: where text stands; whether it is right is for the accuracy set -----------------------------------------


def _quietly(expect: Expectations) -> list[Question]:
    return _whole_and_streamed(prompts.simple(expect.ways[0]))


async def _thinking_off(_: Run, answers: Sequence[Answer]) -> str:
    for answer in answers:
        _require(judge.markup(answer), answer)
        _require("reasoning holds text where the model should not think" if answer.reasoning else None, answer)
        _require(None if answer.content.strip() else "content is empty", answer)
    return "an answer without thoughts, whole and streamed"


def _thinking(expect: Expectations) -> list[Question]:
    return _whole_and_streamed(prompts.simple(expect.ways[-1]))


async def _thinking_on(_: Run, answers: Sequence[Answer]) -> str:
    for answer in answers:
        _require(judge.markup(answer), answer)
        _require(None if answer.reasoning else "reasoning is empty where the model should think", answer)
        # Thoughts that run into the token bound are no fault of the server, as long as they stay in reasoning.
        answered = answer.content.strip() or answer.finish_reason == "length"
        _require(None if answered else "content is empty", answer)
    return "thoughts in reasoning, the answer in content, whole and streamed"


_REASONING_CAUSE = (
    "--reasoning-parser is missing or is not the model's, or the release's parser or chat template has changed "
    "(vllm#45915, #27703)"
)

# --- accuracy --------------------------------------------------------------------------------------------------------


def _sums(expect: Expectations) -> list[Question]:
    return [Question(prompt) for prompt in prompts.accuracy(expect.ways[0])]


async def _accuracy(run: Run, answers: Sequence[Answer]) -> str:
    # Values alone: where thoughts and markup end up is another check's matter.
    wrong = [answer for answer in answers if judge.number(answer) is not None]
    right = len(answers) - len(wrong)
    found = f"{right} of {len(answers)} sums right"
    least = math.ceil(run.expect.accuracy_threshold * len(answers))
    if right < least:
        raise wrong[0].failed(f"{found}, expected at least {least}; the first wrong one: {judge.number(wrong[0])}")
    return found


# In this order: wrong weights spoil thoughts too, and the first failure should name the cause.
ANSWERS = (
    Check(
        "thinking-off",
        "answers",
        "without thinking an answer is in content, and reasoning is empty",
        _REASONING_CAUSE,
        _thinking_off,
        _quietly,
        _if_quiet,
    ),
    Check(
        "accuracy",
        "answers",
        "easy sums come out right at temperature 0",
        "wrong weights: a damaged or mixed-up checkpoint, a loader that corrupts it (vllm#43163, #46078), a broken kernel "
        "(vllm#46367), a compile cache of another image",
        _accuracy,
        _sums,
    ),
    Check(
        "thinking-on",
        "answers",
        "with thinking the thoughts are in reasoning, and only there",
        _REASONING_CAUSE,
        _thinking_on,
        _thinking,
        _if_reasoning,
    ),
)


# --- tools -----------------------------------------------------------------------------------------------------------


def _all_right(found: str) -> Judge:
    """Return a judge that wants every answer right."""

    async def judged(_: Run, answers: Sequence[Answer]) -> str:
        for answer in answers:
            _require(judge.right(answer), answer)
        return found

    return judged


_TOOL_CAUSES: dict[ToolChoice, str] = {
    "auto": "--tool-call-parser is missing or is not the model's, or its parser has regressed (vllm#45915, #46040)",
    "required": "--enable-auto-tool-choice or --tool-call-parser is missing, or the release repeats or loses forced calls "
    "(vllm#50399, #49981, #48095)",
    "named": "--enable-auto-tool-choice or --tool-call-parser is missing, or the release leaves forced calls in content "
    "(vllm#48095)",
}


def _tool_check(choice: ToolChoice, *, stream: bool) -> Check:
    def questions(expect: Expectations) -> list[Question]:
        return [Question(prompts.tool_call(choice, way), stream) for way in expect.ways]

    return Check(
        f"tools-{choice}{'-stream' if stream else ''}",
        "tools",
        f"tool_choice {choice} gives one right call{', streamed' if stream else ''}",
        _TOOL_CAUSES[choice],
        _all_right("one right call in every way of thinking"),
        questions,
        _if_tools,
    )


def _without_arguments(expect: Expectations) -> list[Question]:
    return _whole_and_streamed(prompts.no_arguments(expect.ways[0]))


def _after_result(expect: Expectations) -> list[Question]:
    return [Question(prompts.tool_result(expect.ways[0]))]


def _three_turns(expect: Expectations) -> list[Question]:
    return [Question(prompt, stream=True) for prompt in prompts.later_turns(expect.ways[-1])]


TOOLS = (
    *(_tool_check(choice, stream=stream) for choice in prompts.CHOICES for stream in (False, True)),
    Check(
        "tools-no-arguments",
        "tools",
        "a call without arguments is one, whole and streamed",
        "the tool-call parser wants an argument (vllm#34449, #48103)",
        _all_right("one call without arguments, whole and streamed"),
        _without_arguments,
        _if_tools,
    ),
    Check(
        "tool-result",
        "tools",
        "a tool's result is used in the answer",
        "the chat template does not render tool results as the model knows them",
        _all_right("the result is in the answer"),
        _after_result,
        _if_tools,
    ),
    Check(
        "tool-conversation",
        "tools",
        "the second and third turn of a conversation with tool results are right, and thoughts stay out of content",
        "the chat template or the reasoning parser loses track of earlier turns (vllm#27703)",
        _all_right("three turns, thoughts kept apart"),
        _three_turns,
        _if_tools,
    ),
)


# --- long context ------------------------------------------------------------------------------------------------------

_SPARSE_CAUSE = (
    "sparse attention selects the wrong keys: right below 2,048 tokens, wrong above (vllm#47827, TensorRT-LLM#15295), or a "
    "KV cache dtype without a right kernel on this GPU (vllm#44550)"
)


def _needle_check(number: int, name: str, proves: str) -> Check:
    def questions(expect: Expectations) -> list[Question]:
        return [Question(prompts.needles(expect.ways[0])[number])]

    def needs(expect: Expectations) -> str | None:
        prompt = questions(expect)[0].prompt
        return (_if_tools(expect) if prompt.tools else None) or _if_fits(prompt, expect)

    return Check(name, "long context", proves, _SPARSE_CAUSE, _found, questions, needs)


async def _found(_: Run, answers: Sequence[Answer]) -> str:
    """Want the needle, in a prompt that is as long as it should be."""
    [answer] = answers
    _require(judge.right(answer), answer)
    length, least = answer.usage.prompt if answer.usage else 0, answer.prompt.more_than
    if length <= least:
        problem = f"the prompt has {length:,} tokens by the engine's count and must have more than {least:,}"
        raise CheckFailedError(problem, answer.sent, f"usage.prompt_tokens {length}")
    return f"found in {length:,} tokens"


def _far(expect: Expectations) -> list[Question]:
    tokens = expect.long_needle_tokens or 1
    return [Question(prompts.long_needle(tokens, expect.ways[0], tools=expect.tool_calling), patient=True)]


def _if_far(expect: Expectations) -> str | None:
    if expect.long_needle_tokens is None:
        return "the plan asks for no longer needle"
    return _if_fits(_far(expect)[0].prompt, expect)


LONG_CONTEXT = (
    _needle_check(0, "needle-3k", "a number is found in about 3,000 tokens"),
    _needle_check(1, "needle-5k", "a number is found in about 5,000 tokens"),
    _needle_check(
        2, "needle-8k-tools", "a number is found in about 8,000 tokens with three tools, and goes into a call"
    ),
    Check(
        "needle-long",
        "long context",
        "a number is found in the planned share of the context, and goes into a call where tools are promised",
        f"{_SPARSE_CAUSE}; or calls get lost near the end of the context (vllm#42400)",
        _found,
        _far,
        _if_far,
    ),
)
