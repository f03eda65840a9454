"""Pieces of CEL, the language in which the API server is told what to refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """A named CEL expression; later ones refer to it as `variables.NAME`."""

    name: str
    expression: str


def quoted(text: str) -> str:
    """Return a CEL string literal of a text."""
    return json.dumps(text, ensure_ascii=False)


def pattern(regex: str) -> str:
    """Return a CEL string literal of a regular expression (RE2), in which a backslash stays one."""
    if '"' in regex or "\n" in regex:
        raise ValueError(f"{regex!r}: write a quote as \\x22 and a line break as \\n")
    return f'r"{regex}"'


def literal(table: object) -> str:
    """Return a CEL literal of a list or a map, a line for each entry."""
    return json.dumps(table, indent=2, ensure_ascii=False)


def refusals(whys: str) -> Variable:
    """Return the variable `refusals` from a list of maps {container, why}, in which an empty `why` is a pass."""
    return Variable(
        "refusals",
        f"""{whys}
  .filter(m, m.why != "")
  .map(m, "container " + m.container.name + ": " + m.why)""",
    )
