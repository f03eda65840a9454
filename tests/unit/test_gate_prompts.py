"""What the gate asks: a finite list that never changes by itself, with answers that are right by their own schemas."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from jsonschema import Draft202012Validator

from gate.budget import budget
from gate.prompts import CHOICES, TOOLS, Call, Prompt, Thinking, conversations, long_needle, modes, needles
from tests.fixtures.fake_engine import EXPECT

EVERY = conversations(("off", "on"))


def test_ids_are_unique() -> None:
    assert len({prompt.id for prompt in EVERY}) == len(EVERY) == 25


@pytest.mark.parametrize("prompt", EVERY, ids=lambda prompt: prompt.id)
def test_what_counts_as_right_is_right_by_the_tools_own_schema(prompt: Prompt) -> None:
    if isinstance(prompt.right, Call):
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in prompt.tools}
        Draft202012Validator(schemas[prompt.right.name]).validate(dict(prompt.right.arguments))
    elif not prompt.id.startswith("coding"):
        float(prompt.right)


def test_the_tools_schemas_are_schemas() -> None:
    tools = [tool for prompt in EVERY for tool in prompt.tools]
    for tool in tools:
        Draft202012Validator.check_schema(tool["function"]["parameters"])
    assert {tool["function"]["name"] for tool in tools} == {"get_weather", "search_docs", "open_ticket", "list_tickets"}


def test_later_turns_hold_whole_earlier_turns() -> None:
    [last] = [prompt for prompt in EVERY if prompt.id == "turn-3/answer/on"]
    roles = [message["role"] for message in last.messages]
    assert roles == [*("user", "assistant", "tool", "assistant") * 2, "user", "assistant", "tool"]
    calls = [call for message in last.messages for call in message.get("tool_calls", [])]
    results = [message["tool_call_id"] for message in last.messages if message["role"] == "tool"]
    assert [call["id"] for call in calls] == results == ["call_1", "call_2", "call_3"]
    assert all(json.loads(call["function"]["arguments"]) for call in calls)


def test_the_same_first_turn_is_asked_in_every_choice() -> None:
    asked = [prompt for prompt in EVERY if prompt.id.startswith("tools/") and prompt.tools == TOOLS]
    assert len({json.dumps(prompt.messages) for prompt in asked}) == 1
    assert [prompt.id.split("/")[1] for prompt in asked] == [*CHOICES, *CHOICES]


@pytest.mark.parametrize("prompt", needles("off"), ids=lambda prompt: prompt.id)
def test_a_needle_lies_farther_back_than_sparse_attention_keeps(prompt: Prompt) -> None:
    """Beyond index_topk = 2,048 tokens keys are selected; the number stands in the text once."""
    text = prompt.messages[0]["content"]
    number = prompt.right.arguments["number"] if isinstance(prompt.right, Call) else prompt.right
    before, after = text.split(str(number))
    assert len(after.split()) > 2_048
    assert before.count("The number of the") == 1
    assert prompt.more_than < prompt.about


def test_needles_are_as_long_as_three_vocabularies_say() -> None:
    """Qwen's vocabulary makes 3,041, 5,034 and 7,644 tokens of the texts, DeepSeek's and cl100k differ by at most five."""
    texts = [prompt.messages[0]["content"] for prompt in needles("off")]
    words = [len(text.split()) + text.count(".") for text in texts]
    assert words == pytest.approx([3_041, 5_034, 7_644], rel=0.01)


def test_a_long_needle_has_the_length_that_is_asked_for() -> None:
    assert long_needle(100_000, "off", tools=False).about == pytest.approx(
        100_000, rel=0.001
    )  # 100,038 by Qwen's vocabulary


@pytest.mark.parametrize(
    ("thinking", "reasoning", "ways"),
    [
        ("switchable", True, ("off", "on")),
        ("switchable", False, ("off",)),
        ("always", True, ("always",)),
        ("none", False, ("none",)),
    ],
)
def test_ways_of_asking(thinking: str, reasoning: bool, ways: tuple[Thinking, ...]) -> None:
    assert modes(thinking, reasoning=reasoning) == ways  # pyright: ignore[reportArgumentType]
    assert {prompt.thinking for prompt in conversations(ways)} == set(ways)


def test_thoughts_have_room_of_their_own() -> None:
    bounds = {prompt.id: prompt.max_tokens for prompt in EVERY}
    assert bounds["simple/on"] - bounds["simple/off"] == 512
    assert bounds["tools/auto/on"] - bounds["tools/auto/off"] == 512


# --- what a run can cost ---------------------------------------------------------------------------------------------

# serving.md section 16: 337 tokens/s for four requests at a time (p5en, FP8, MTP); h200.md section 8: prefill.
SECONDS_A_STEP = 4 / 337
PREFILL_TOKENS_PER_SECOND = 8_000


@pytest.mark.parametrize("thinking", ["switchable", "always"])
def test_a_run_is_bounded_to_a_minute_of_engine_time(thinking: str) -> None:
    most = budget(replace(EXPECT, thinking=thinking))
    seconds = most.prompt_tokens / PREFILL_TOKENS_PER_SECOND + most.steps * SECONDS_A_STEP
    assert seconds < 60


def test_the_bounds_add_up() -> None:
    most = budget(EXPECT)
    plain = budget(replace(EXPECT, tool_calling=False, reasoning=False))
    assert (most.prompt_tokens, most.completion_tokens, most.steps) == (24_361, 8_256, 2_752)
    # Two simple questions, eight sums, two needles, the coding prompt: nothing thinks, no tools.
    assert plain.completion_tokens == 2 * 32 + 8 * 64 + 2 * 32 + 128
    # Four at a time: the questions end after 32, six sums after 64, 96 and 128, the last two after 160; needles; coding.
    assert plain.steps == 160 + 32 + 128
