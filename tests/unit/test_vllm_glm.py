"""GLM's text format in the stand-in: what is written is what is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.vllm.glm import Answer, Call, call_text, calls_in, content_text, count_tokens, prompt, tokens

NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(exclude_characters="<>"), max_size=20),
    "integer": st.integers(-(10**6), 10**6),
    "boolean": st.booleans(),
    "array": st.lists(st.integers(0, 9), max_size=3),
}
KINDS = st.dictionaries(NAMES, st.sampled_from(sorted(VALUES)), max_size=4)


def tool(name: str, kinds: dict[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


@given(st.text())
def test_tokens_are_the_whole_text(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert count_tokens(text) == len(list(tokens(text)))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("The old man walked.", 5),
        ("<tool_call>now</tool_call>", 3),
        ("48213", 2),
        ("[gMASK]<sop><|user|>\nHi", 5),
    ],
)
def test_tokens_of_a_text(text: str, count: int) -> None:
    assert count_tokens(text) == count


@given(st.data(), st.lists(st.tuples(NAMES, KINDS), min_size=1, max_size=3, unique_by=lambda row: row[0]))
def test_calls_are_read_back_with_the_types_of_their_schema(
    data: st.DataObject, declared: list[tuple[str, Any]]
) -> None:
    tools = [tool(name, kinds) for name, kinds in declared]
    calls = [
        Call(name, {key: data.draw(VALUES[kind], label=key) for key, kind in kinds.items()}) for name, kinds in declared
    ]
    before = data.draw(st.text(st.characters(exclude_characters="<>")))
    text = before + "".join(map(call_text, calls))
    assert calls_in(text, tools) == (before, calls)
    assert calls_in(text[: -len("</tool_call>")], tools) == (before, calls[:-1])  # one that was cut off is dropped


def test_what_a_model_writes() -> None:
    answer = Answer("Hm.", "Hello ", (Call("now", {}),))
    assert answer.text(thinking=True) == "Hm.</think>Hello <tool_call>now</tool_call>"
    assert answer.text(thinking=False) == "Hello <tool_call>now</tool_call>"
    assert answer.calling(Call("f", {"a": [1]})).text(thinking=False) == (
        "<tool_call>f<arg_key>a</arg_key><arg_value>[1]</arg_value></tool_call>"
    )


def test_values_that_are_not_what_the_schema_says_stay_text() -> None:
    text = "<tool_call>f<arg_key>a</arg_key><arg_value>one</arg_value></tool_call>"
    assert calls_in(text, [tool("f", {"a": "integer"})]) == ("", [Call("f", {"a": "one"})])
    assert calls_in(text, []) == ("", [Call("f", {"a": "one"})])


def test_a_conversation_as_the_model_reads_it() -> None:
    declared = tool("now", {})
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "time?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "noon"},
    ]
    assert prompt(messages, [declared], thinking=True) == (
        f"[gMASK]<sop><|system|>\n# Tools\n\n<tools>\n{json.dumps(declared['function'])}\n</tools>\n"
        "<|system|>\nBe brief.<|user|>\nWhat time?<|assistant|></think><tool_call>now</tool_call>"
        "<|observation|><tool_response>noon</tool_response><|assistant|><think>"
    )
    assert prompt(messages[:1], [], thinking=False) == "[gMASK]<sop><|system|>\nBe brief.<|assistant|></think>"
    assert content_text({"role": "user"}) == ""
