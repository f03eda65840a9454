"""What is wrong with an answer, in words, or None. Pure: no requests, no clock."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from gate.client import Answer
from gate.prompts import Call

# GLM's markup: none of it belongs in content. A missing or wrong parser leaves it there.
_MARKUP = re.compile(
    r"</?(?:think|tool_call|tool_response|arg_key|arg_value)>|<\|(?:system|user|assistant|observation|endoftext)\|>"
    r"|\[gMASK\]|<sop>|/nothink"
)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")

_TYPES: Mapping[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}


def right(answer: Answer) -> str | None:
    """Say what is wrong with an answer to its prompt."""
    wanted = answer.prompt.right
    return markup(answer) or (_call(answer, wanted) if isinstance(wanted, Call) else number(answer))


def markup(answer: Answer) -> str | None:
    """Say that markup has been left in content."""
    found = _MARKUP.search(answer.content)
    return f"content holds {found[0]}" if found else None


def number(answer: Answer) -> str | None:
    """Say what is wrong with an answer that should give a number as its last one, and call nothing."""
    if answer.calls:
        return f"{answer.calls[0].name} was called where an answer is asked for"
    if answer.finish_reason != "stop":
        return f"finish_reason is {answer.finish_reason}, expected stop"
    if not answer.content.strip():
        return "content is empty"
    numbers = [float(text.replace(",", "")) for text in _NUMBER.findall(answer.content)]
    if numbers[-1:] != [float(cast("str", answer.prompt.right))]:
        return f"the answer is wrong, expected {answer.prompt.right}"
    return None


def _call(answer: Answer, wanted: Call) -> str | None:
    """Say what is wrong with an answer that should be exactly one call."""
    choice = answer.prompt.tool_choice
    if answer.finish_reason == "length":
        return f"no end within {answer.prompt.max_tokens} tokens, with {len(answer.calls)} calls"
    if len(answer.calls) != 1:
        return f"{len(answer.calls)} calls, expected one of {wanted.name}"
    # Words beside a call are the model's to say where the choice is its own; nothing may stand beside a forced one.
    if answer.content.strip() and (choice != "auto" or wanted.name in answer.content):
        return "content beside the call"
    # A named call ends with stop, as in OpenAI's API.
    allowed = ("stop", "tool_calls") if isinstance(choice, Mapping) else ("tool_calls",)
    if answer.finish_reason not in allowed:
        return f"finish_reason is {answer.finish_reason}, expected {' or '.join(allowed)}"
    return _made(answer, wanted)


def _made(answer: Answer, wanted: Call) -> str | None:
    [made] = answer.calls
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in answer.prompt.tools}
    if made.name not in schemas:
        return f"{made.name!r} was called, which no tool declares"
    if made.name != wanted.name:
        return f"{made.name} was called, expected {wanted.name}"
    try:
        given: object = json.loads(made.arguments)
    except ValueError:
        return "the arguments are not JSON"
    if not isinstance(given, dict):
        return "the arguments are not an object"
    values = cast("dict[str, object]", given)
    return _against_schema(values, schemas[made.name]) or _against_values(values, wanted)


def _against_schema(given: Mapping[str, object], schema: Mapping[str, Any]) -> str | None:
    """Check arguments against the part of JSON Schema that the gate's own tools use."""
    properties = schema["properties"]
    for name in schema["required"]:
        if name not in given:
            return f"argument {name} is missing"
    for name, value in given.items():
        if name not in properties:
            return f"argument {name} is not in the schema"
        if not _TYPES[properties[name]["type"]](value):
            return f"argument {name} is {json.dumps(value)}, not of type {properties[name]['type']}"
        if value not in properties[name].get("enum", [value]):
            return f"argument {name} is {json.dumps(value)}, not one of {', '.join(properties[name]['enum'])}"
    return None


def _against_values(given: Mapping[str, object], wanted: Call) -> str | None:
    """Check values: broken weights, too, make forced calls that fit the schema."""
    for name, value in wanted.arguments.items():
        if _folded(given[name]) != _folded(value):
            return f"argument {name} is {json.dumps(given[name])}, expected {json.dumps(value)}"
    return None


def _folded(value: object) -> object:
    return value.strip().casefold() if isinstance(value, str) else value
