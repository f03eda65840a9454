"""What the model knows: the gate's own questions, and a number that stands in a text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from gate.prompts import Call as RightCall
from gate.prompts import Prompt, conversations
from rehearsal.vllm.glm import Answer, Call, Message, Tool, content_text
from rehearsal.vllm.request import ChatRequest

# A needle of any length: the gate's list has those of every run, a plan may ask for a longer one.
_NEEDLE = re.compile(r"The number of the ([\w ]+) is (\d+)\.")


def lookup(request: ChatRequest) -> Answer | None:
    """Return the answer to a request if the model knows it."""
    return answer_to(request.messages, request.tools)


def answer_to(messages: Sequence[Message], tools: Sequence[Tool]) -> Answer | None:
    """Return the answer to a conversation with these tools if the model knows it."""
    return _answers().get(_key(messages, tools)) or _needle(messages)


@cache
def _answers() -> dict[str, Answer]:
    return {_key(prompt.messages, prompt.tools): _answer(prompt) for prompt in conversations()}


def _key(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """Return what the model reads of a request, less what no answer depends on: ids of calls, an empty content."""
    turns = [
        (row["role"], content_text(row), [_function(call) for call in row.get("tool_calls") or ()]) for row in messages
    ]
    return json.dumps([turns, [tool["function"] for tool in tools]], sort_keys=True)


def _function(call: Mapping[str, Any]) -> tuple[str, Any]:
    function = call["function"]
    return function["name"], json.loads(function["arguments"])


def _answer(prompt: Prompt) -> Answer:
    topic = prompt.id.partition("/")[0]
    if isinstance(prompt.right, RightCall):
        call = Call(prompt.right.name, prompt.right.arguments)
        return Answer(f"The user wants {call.name}, and all that it needs is said.", calls=(call,), topic=topic)
    return Answer(f"The answer is {prompt.right.splitlines()[0]}.", prompt.right, topic=topic)


def _needle(messages: Sequence[Message]) -> Answer | None:
    text = content_text(messages[-1])
    needle = _NEEDLE.search(text)
    if needle is None:
        return None
    whose, number = needle.groups()
    thought = f"The notes say {number}."
    if f"What is the number of the {whose}?" in text:
        return Answer(thought, number)
    order = re.search(rf"Open the ticket of the {whose} with priority (\w+)\.", text)
    return (
        Answer(thought, calls=(Call("open_ticket", {"number": int(number), "priority": order[1]}),)) if order else None
    )
