"""Errors a person can act on: which names are allowed, and which one was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input. Its text is one sentence: where, what was given, what is allowed, what to do."""


class UnknownKeyError(InputError):
    """A name that the catalogue or the stack file does not have."""


def nearest(given: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name closest in spelling to the given one, or None if none is close."""
    folded = {name.casefold(): name for name in allowed}
    matches = get_close_matches(given.casefold(), folded, n=3, cutoff=0.6)
    # Two letters in the wrong order: us-esat-1 is us-east-1, though us-west-1 is as close by its blocks.
    swapped = [match for match in matches if sorted(match) == sorted(given.casefold())]
    return next((folded[match] for match in (*swapped, *matches)), None)


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean X?` or nothing, to be put behind a sentence about an unknown name."""
    match = nearest(given, allowed)
    return f"; did you mean {match}?" if match else ""


def allowed(names: Iterable[str]) -> str:
    """Return `allowed is X` or `allowed are X, Y or Z`."""
    items = list(names)
    return f"allowed {'is' if len(items) == 1 else 'are'} {listed(items)}"


def listed(names: Iterable[str], word: str = "or") -> str:
    """Return names as `a, b or c`, or with another last word."""
    items = list(names)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {word} {items[-1]}"
