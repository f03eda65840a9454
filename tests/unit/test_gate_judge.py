"""What counts as right: every way in which an answer can be wrong, with its words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate import judge
from gate.client import Answer, MadeCall
from gate.prompts import ToolChoice, simple, tool_call

RIGHT_ARGUMENTS = '{"city": "Oslo", "days": 1, "metric": true}'
SUM = Answer(simple("off"), "sent", "42", "", (), "stop", None, 0.1)


def called(choice: ToolChoice = "auto", finish: str | None = None, **changes: Any) -> Answer:
    call = MadeCall("get_weather", RIGHT_ARGUMENTS)
    finish = finish or ("stop" if choice == "named" else "tool_calls")
    return replace(Answer(tool_call(choice, "off"), "sent", "", "", (call,), finish, None, 0.1), **changes)


def made(name: str = "get_weather", arguments: str = RIGHT_ARGUMENTS) -> Answer:
    return called(calls=(MadeCall(name, arguments),))


@pytest.mark.parametrize("content", ["42", "42.", "The answer is 42", "17 + 25 = 42.0", "**42**", "42\n", "$42"])
def test_a_number_is_right_however_it_is_dressed(content: str) -> None:
    assert judge.right(replace(SUM, content=content)) is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (replace(SUM, content="43"), "the answer is wrong, expected 42"),
        (replace(SUM, content="42 or 43"), "the answer is wrong, expected 42"),
        (replace(SUM, content="forty-two"), "the answer is wrong, expected 42"),
        (replace(SUM, content="-42"), "the answer is wrong, expected 42"),
        (replace(SUM, content="442"), "the answer is wrong, expected 42"),
        (replace(SUM, content=" \n"), "content is empty"),
        (replace(SUM, content="I add.</think>42"), "content holds </think>"),
        (replace(SUM, content="<think>I add."), "content holds <think>"),
        (replace(SUM, content="42<|user|>"), "content holds <|user|>"),
        (replace(SUM, finish_reason="length"), "finish_reason is length, expected stop"),
        (replace(SUM, finish_reason=None), "finish_reason is None, expected stop"),
        (replace(SUM, calls=(MadeCall("get_weather", "{}"),)), "get_weather was called where an answer is asked for"),
    ],
    ids=lambda row: row if isinstance(row, str) else "",
)
def test_a_wrong_text(answer: Answer, problem: str) -> None:
    assert judge.right(answer) == problem


@pytest.mark.parametrize(
    "answer",
    [
        called(),
        called("required"),
        called("named"),
        called("named", finish="tool_calls"),
        called(content="I will look that up."),
        made(arguments='{"metric":true,"city":" oslo ","days":1}'),
    ],
)
def test_a_right_call(answer: Answer) -> None:
    assert judge.right(answer) is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        # The call is left in content (vllm#48095), beside itself or instead of itself.
        (
            called(calls=(), content="<tool_call>get_weather<arg_key>city</arg_key>", finish="stop"),
            "content holds <tool_call>",
        ),
        (called(calls=(), content="<arg_value>Oslo"), "content holds <arg_value>"),
        (called(calls=(), content="get_weather(Oslo)"), "0 calls, expected one of get_weather"),
        (called(content='get_weather {"city": "Oslo"}'), "content beside the call"),
        (called("required", content="Here you are."), "content beside the call"),
        (called("named", content="Here you are."), "content beside the call"),
        # It repeats until the token limit (vllm#50399), or a few times.
        (
            called("required", calls=(MadeCall("get_weather", RIGHT_ARGUMENTS),) * 9, finish="length"),
            "no end within 96 tokens, with 9 calls",
        ),
        (called(calls=(MadeCall("get_weather", RIGHT_ARGUMENTS),) * 2), "2 calls, expected one of get_weather"),
        (called(calls=(), finish="stop"), "0 calls, expected one of get_weather"),
        (called(finish="stop"), "finish_reason is stop, expected tool_calls"),
        (called("required", finish="stop"), "finish_reason is stop, expected tool_calls"),
        (called("named", finish="abort"), "finish_reason is abort, expected stop or tool_calls"),
        # Broken weights make well-formed forced calls.
        (made("get_wether"), "'get_wether' was called, which no tool declares"),
        (made("search_docs"), "search_docs was called, expected get_weather"),
        (made(arguments="{"), "the arguments are not JSON"),
        (made(arguments=""), "the arguments are not JSON"),
        (made(arguments="true"), "the arguments are not an object"),
        (made(arguments="{}"), "argument city is missing"),
        (made(arguments='{"city": "Oslo", "days": 1}'), "argument metric is missing"),
        (
            made(arguments='{"city": "Oslo", "days": 1, "metric": true, "hour": 3}'),
            "argument hour is not in the schema",
        ),
        (
            made(arguments='{"city": "Oslo", "days": "1", "metric": true}'),
            'argument days is "1", not of type integer',
        ),
        (
            made(arguments='{"city": "Oslo", "days": true, "metric": true}'),
            "argument days is true, not of type integer",
        ),
        (
            made(arguments='{"city": "Oslo", "days": 1, "metric": "true"}'),
            'argument metric is "true", not of type boolean',
        ),
        (made(arguments='{"city": 5, "days": 1, "metric": true}'), "argument city is 5, not of type string"),
        (
            made(arguments='{"city": "Rome", "days": 1, "metric": true}'),
            'argument city is "Rome", expected "Oslo"',
        ),
        (made(arguments='{"city": "Oslo", "days": 2, "metric": true}'), "argument days is 2, expected 1"),
        (made("open_ticket", '{"number": 1, "priority": "low"}'), "open_ticket was called, expected get_weather"),
    ],
    ids=lambda row: row if isinstance(row, str) else "",
)
def test_a_wrong_call(answer: Answer, problem: str) -> None:
    assert judge.right(answer) == problem


@given(st.text(), st.lists(st.tuples(st.text(), st.text()), max_size=2), st.none() | st.text(), st.booleans())
def test_any_answer_has_a_verdict(
    content: str, calls: list[tuple[str, str]], finish: str | None, of_call: bool
) -> None:
    """What a server may send has no bounds: judging it must never fail."""
    prompt = tool_call("required", "off") if of_call else simple("off")
    answer = Answer(prompt, "sent", content, "", tuple(MadeCall(*call) for call in calls), finish, None, 0.1)
    assert judge.right(answer) is None or isinstance(judge.right(answer), str)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_arguments_have_a_verdict(arguments: object) -> None:
    problem = judge.right(made(arguments=json.dumps(arguments)))
    assert problem is not None
