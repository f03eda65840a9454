"""GLM's text format: what a prompt looks like as text, what the model writes, and how text falls into tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

THINK, END_OF_THINKING = "<think>", "</think>"
_CALL = re.compile(r"<tool_call>(?P<name>[^<]*)(?P<arguments>.*?)</tool_call>", re.DOTALL)
_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)

# Marks, words, numbers of up to three digits, punctuation: near enough to a BPE vocabulary for counting English.
_TOKEN = re.compile(r"<\|?/?\w+\|?>|\[gMASK\]| ?[A-Za-z]+| ?\d{1,3}| ?[^\w\s]|\s+|.", re.DOTALL)

Message = Mapping[str, Any]
Tool = Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """One tool call of an answer."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the model means to say in one turn: its thinking, then text, calls or both; `topic` is what it was asked about."""

    reasoning: str = ""
    content: str = ""
    calls: tuple[Call, ...] = ()
    topic: str = ""

    def calling(self, *calls: Call) -> Answer:
        """Return the same thinking with calls instead of text."""
        return replace(self, content="", calls=calls)

    def text(self, *, thinking: bool) -> str:
        """Return what the model writes. The opening `<think>` is part of the prompt."""
        start = f"{self.reasoning}{END_OF_THINKING}" if thinking else ""
        return f"{start}{self.content}{''.join(map(call_text, self.calls))}"


def call_text(call: Call) -> str:
    """Return a call as GLM-4.7 and later write it: no line breaks between its parts."""
    arguments = (
        f"<arg_key>{key}</arg_key><arg_value>{value if isinstance(value, str) else json.dumps(value)}</arg_value>"
        for key, value in call.arguments.items()
    )
    return f"<tool_call>{call.name}{''.join(arguments)}</tool_call>"


def calls_in(text: str, tools: Sequence[Tool]) -> tuple[str, list[Call]]:
    """Split text into what is no call and the complete calls, values typed by the schema of the tool that is called.

    A call that the text does not finish is dropped, as vLLM's parser engine drops it.
    """
    calls = [_call(match, tools) for match in _CALL.finditer(text)]
    return _CALL.sub("", text).partition("<tool_call>")[0], calls


def _call(match: re.Match[str], tools: Sequence[Tool]) -> Call:
    name = match["name"].strip()
    properties = parameters_of(name, tools).get("properties", {})
    pairs = _ARGUMENT.findall(match["arguments"])
    return Call(name, {key: _typed(value, properties.get(key, {}).get("type")) for key, value in pairs})


def parameters_of(name: str, tools: Sequence[Tool]) -> Mapping[str, Any]:
    """Return the JSON schema of a tool's parameters; empty for a tool that is not declared."""
    functions = [tool["function"] for tool in tools]
    return next((row.get("parameters") or {} for row in functions if row["name"] == name), {})


def _typed(value: str, kind: object) -> Any:
    if kind in {None, "string"}:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def prompt(messages: Sequence[Message], tools: Sequence[Tool], *, thinking: bool) -> str:
    """Return a conversation as the model reads it, up to where it goes on."""
    parts = ["[gMASK]<sop>"]
    if tools:
        declared = "\n".join(json.dumps(tool["function"]) for tool in tools)
        parts.append(f"<|system|>\n# Tools\n\n<tools>\n{declared}\n</tools>\n")
    parts += [_turn(message) for message in messages]
    return "".join([*parts, "<|assistant|>", THINK if thinking else END_OF_THINKING])


def _turn(message: Message) -> str:
    role, content = message["role"], content_text(message)
    if role == "tool":
        return f"<|observation|><tool_response>{content}</tool_response>"
    if role != "assistant":
        return f"<|{role}|>\n{content}"
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = [Call(row["name"], json.loads(row["arguments"] or "{}")) for row in functions]
    return f"<|assistant|>{END_OF_THINKING}{content}{''.join(map(call_text, calls))}"


def content_text(message: Message) -> str:
    """Return a message's content as text, from a string or from text parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def tokens(text: str) -> Iterator[str]:
    """Yield the pieces of a text; joined they are the text."""
    return (match[0] for match in _TOKEN.finditer(text))


def count_tokens(text: str) -> int:
    """Return how many tokens a text has."""
    return sum(1 for _ in tokens(text))
