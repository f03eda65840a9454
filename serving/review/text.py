"""Markdown in which a value stays a value: whatever text a stack file holds, it opens no link, tag or table cell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

_LONGEST_VALUE = 100
_MARKUP = re.compile(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))")  # an underscore inside a word is one


def code(text: str) -> str:
    """Return text as a code span, on one line and inside a table's cell."""
    # Between a backslash and a bar a space: a cell would end there, whatever is escaped.
    line = " ".join(text.split()).replace("\\|", "\\ |") or " "
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    # A bar ends a cell even inside a code span; GitHub takes the backslash away again.
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def value(given: object) -> str:
    """Return a setting's value as a code span, cut to a readable length; nothing for one that is not there."""
    if given is None:
        return "–"
    text = plain(given)
    return code(text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…")


def plain(given: object) -> str:
    """Return a value as a stack file spells it: text as it is, the rest as JSON, a whole number without a fraction."""
    if isinstance(given, str):
        return given
    if isinstance(given, float) and given.is_integer():
        return str(int(given))
    return json.dumps(given, ensure_ascii=False, default=str)


def prose(text: str) -> str:
    """Return a sentence with everything escaped that Markdown or HTML would read."""
    line = " ".join(text.split())
    return _MARKUP.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def fenced(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines as a block of code that none of them can end."""
    rows = list(lines)
    fence = "`" * max(3, _longest_run("\n".join(rows)) + 1)
    yield from (f"{fence}text", *rows, fence)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> Iterator[str]:
    """Yield a table; its last `numbers` columns are aligned to the right."""
    left = len(headings) - numbers
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * left}{'---:|' * numbers}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
