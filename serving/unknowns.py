"""Values that nobody can know from a manifest, carried through the words of a command.

A variable from a Secret or the output of a program is one private-use character (Unicode's plane 15) in a word, so that shells,
Kubernetes' `$(VAR)` and argparse can be followed around it: `--port=X` is still a port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

_FIRST = 0xF0000
_LIMIT = 0xFFF0
_MARK = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + _LIMIT)}]")
_FOREIGN = "it holds a private-use character"


class Shape(Enum):
    """What an unknown value may look like."""

    WORD = "a name or a number, without a character that is special to a shell"
    TEXT = "any text, in one word"
    WORDS = "any number of words"


class Unknowns:
    """The unknown values of one manifest, each with the reason why it is unknown."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, Shape], str] = {}

    def mark(self, why: str, shape: Shape = Shape.TEXT) -> str:
        """Return the character that stands for a value."""
        number = min(len(self._marks), _LIMIT)
        return self._marks.setdefault((why, shape), chr(_FIRST + number))

    def why(self, text: str, *shapes: Shape) -> str | None:
        """Return why a text is not wholly known, or None if it is. With shapes only values of these count."""
        marks = _MARK.findall(text)
        if not marks:  # nearly always
            return None
        rows = {mark: (why, shape) for (why, shape), mark in self._marks.items()}
        found = (rows.get(mark, (_FOREIGN, Shape.WORDS)) for mark in marks)
        return next((why for why, shape in found if not shapes or shape in shapes), None)

    def why_any(self, words: Iterable[str], *shapes: Shape) -> str | None:
        """Return why the first word that is not wholly known is not, or None."""
        return next((why for word in words if (why := self.why(word, *shapes))), None)


def starts_unknown(word: str) -> bool:
    """Whether nobody can know how a word begins: it could be a flag."""
    return _MARK.match(word) is not None
