"""What differs between two plain values: the changed places by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Change:
    """One thing that differs; None where it is not there."""

    name: str
    before: Any
    after: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the keys whose values differ: first those of `after` in its order, then those that it lacks."""
    names = [*after, *(name for name in before if name not in after)]
    rows = (Change(name, before.get(name), after.get(name)) for name in names)
    return tuple(row for row in rows if row.before != row.after)


def flat(value: Any) -> dict[str, Any]:
    """Return a value's leaves by path: `spec.containers[vllm].image`.

    Items of a list are named by their `name` where each has one of its own, so that an insertion moves no other item; a list
    of plain values is one leaf.
    """
    return dict(_leaves(value, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in cast("dict[str, Any]", value).items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in cast("list[Any]", value)):
        for name, item in _named(cast("list[Any]", value)):
            yield from _leaves(item, f"{path}[{name}]")
    elif path:
        yield path, value


def _named(items: list[Any]) -> Iterator[tuple[str, Any]]:
    names = [str(cast("dict[str, Any]", item).get("name", "")) if isinstance(item, dict) else "" for item in items]
    by_name = all(names) and len(set(names)) == len(names)
    for number, (name, item) in enumerate(zip(names, items, strict=True)):
        yield (name if by_name else str(number)), item
