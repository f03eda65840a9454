"""What the tiny model has to know: every prompt of the gate, with an answer that passes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gate.prompts import Call, Prompt, conversations


@dataclass(frozen=True)
class Row:
    """One prompt with the whole answer, as GLM writes it: thoughts up to `</think>` if it thinks, then text or calls."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    thinking: bool
    answer: str


def gate_rows() -> list[Row]:
    """Return a row for everything that the gate asks a model which can think and need not."""
    return [row(prompt) for prompt in conversations()]


def row(prompt: Prompt, *, instead: str | None = None) -> Row:
    """Return a prompt's row, with the right answer or with other text instead of it."""
    thinking = prompt.thinking == "on"
    right = prompt.right
    if isinstance(right, Call):
        thought, answer = f"The user wants {right.name} called, and has said all that it needs.", _written(right)
    else:
        thought, answer = f"I read the question again and work it out step by step. The answer is {right}.", right
    words = answer if instead is None else instead
    return Row(prompt.messages, prompt.tools, thinking, f"{thought}</think>{words}" if thinking else words)


def _written(call: Call) -> str:
    """A call as GLM-4.7 and later write it, with no line breaks: vLLM's grammar takes no other form."""
    arguments = (
        f"<arg_key>{key}</arg_key><arg_value>{value if isinstance(value, str) else json.dumps(value)}</arg_value>"
        for key, value in call.arguments.items()
    )
    return f"<tool_call>{call.name}{''.join(arguments)}</tool_call>"
