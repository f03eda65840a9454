"""Values that nobody can know from a manifest, carried through the words of a command.

A variable from a Secret or the output of a program is one private-use character (Unicode's plane 15) in a word, so that shells,
Kubernetes' `$(VAR)` and argparse can be followed around it: `--port=X` is still a port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIRST = 0xF0000
_LIMIT = 0xFFF0
_MARK = re.compile(f"[{chr(_FIRST)}-{chr(_FIRST + _LIMIT)}]")
_FOREIGN = "it holds a private-use character"


class Unknowns:
    """The unknown values of one manifest, each with the reason why it is unknown."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, bool], str] = {}

    def mark(self, why: str, *, splits: bool = False) -> str:
        """Return the character that stands for a value; `splits` if a shell may make several words or none of it."""
        number = min(len(self._marks), _LIMIT)
        return self._marks.setdefault((why, splits), chr(_FIRST + number))

    def why(self, text: str) -> str | None:
        """Return why a text is not wholly known, or None if it is."""
        found = _MARK.search(text)
        return self._reasons().get(found[0], _FOREIGN) if found else None

    def why_split(self, words: Iterable[str]) -> str | None:
        """Return why nobody can know how many words a command has, or None if that is known."""
        splitting = {mark: why for (why, splits), mark in self._marks.items() if splits}
        found = (mark for word in words for mark in _MARK.findall(word))
        return next((splitting[mark] for mark in found if mark in splitting), None)

    def _reasons(self) -> dict[str, str]:
        return {mark: why for (why, _), mark in self._marks.items()}


def starts_unknown(word: str) -> bool:
    """Whether nobody can know how a word begins: it could be a flag."""
    return _MARK.match(word) is not None
