"""A resource on its way to AWS: the program's inputs in plain values, and how to ask for them.

Pulumi hands inputs over with three things that an API request must not contain: numbers as floats, secrets in
a wrapper, and, in a preview, values that are not known yet. All three are dealt with here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from rehearsal.aws.refusal import AwsRefusal

_LONGEST_VALUE_SHOWN = 100


class UnknownValue:
    """A value that only an update will know: an id or ARN of a resource that does not exist yet."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN: Final = UnknownValue()


@dataclass(frozen=True)
class Draft:
    """One resource as the program registers it, with plain inputs under the provider's property names."""

    token: str
    name: str
    inputs: Mapping[str, object]
    secrets: frozenset[str]
    preview: bool

    @property
    def resource(self) -> str:
        """Type and name, as refusals cite it."""
        return f"{self.token}::{self.name}"

    def at(self, path: str) -> object:
        """Return the value at a path such as `networkInterfaces[0].deviceIndex`: None if absent, or UNKNOWN."""
        return value_at(self.inputs, path)

    def given(self, path: str) -> bool:
        """Whether the program says anything there, be it unknown. Inside of something unknown nobody can say: no."""
        parent = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.at(path) is not None and not (parent and isinstance(self.at(parent), UnknownValue))

    def absent(self, path: str) -> bool:
        """Whether the program certainly says nothing there."""
        return self.at(path) is None

    def not_one_of(self, paths: Sequence[str]) -> str | None:
        """Return the property to blame unless exactly one of them is given: the second, or, without any, the first."""
        given = [path for path in paths if self.given(path)]
        if len(given) > 1:
            return given[1]
        return paths[0] if all(self.absent(path) for path in paths) else None

    def unknown(self, path: str) -> bool:
        """Whether the value, or any part of it, is known only to an update."""
        return contains_unknown(self.at(path))

    def text(self, path: str) -> str | None:
        """Return a known string, else None."""
        value = self.at(path)
        return value if isinstance(value, str) else None

    def number(self, path: str) -> int | None:
        """Return a known whole number, also one written as a string, else None."""
        value = self.at(path)
        if isinstance(value, bool):
            return None
        if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            return int(value)
        return value if isinstance(value, int) else None

    def flag(self, path: str, default: bool = False) -> bool:
        """Return a known boolean, also one written as a string; the API's default where it is absent."""
        value = self.at(path)
        if isinstance(value, str):
            return value.lower() == "true"
        return value if isinstance(value, bool) else default

    def items(self, path: str) -> list[object]:
        """Return the members of a known list, else an empty one."""
        return as_list(self.at(path))

    def texts(self, path: str) -> list[str]:
        """Return the known strings of a list."""
        return [item for item in self.items(path) if isinstance(item, str)]

    def table(self, path: str) -> Mapping[str, object]:
        """Return a known mapping, else an empty one."""
        return as_table(self.at(path))

    def refusal(self, field: str, reason: str, source: str) -> AwsRefusal:
        """Return the refusal of the value at a path, to be raised; a secret value stays out of it."""
        return self.refusal_of(field, self.at(field), reason, source)

    def refusal_of(self, field: str, value: object, reason: str, source: str) -> AwsRefusal:
        """Return the refusal of a value that is inside a property or was made from it."""
        secret = any(field == path or field.startswith((f"{path}.", f"{path}[")) for path in self.secrets)
        given = "[secret]" if secret else "not given" if value is None else shown(value)
        return AwsRefusal(self.resource, field, given, reason, source)


def plain(value: object) -> tuple[object, frozenset[str]]:
    """Return a value without Pulumi's wrappers, and the paths of what was secret in it."""
    secrets: set[str] = set()
    return _plain(value, "", secrets), frozenset(secrets)


def _plain(value: object, path: str, secrets: set[str]) -> object:
    from pulumi.output import Unknown  # noqa: PLC0415 (Pulumi costs 0.3 s, and values are rarely looked at without it)
    from pulumi.runtime import rpc  # noqa: PLC0415

    if isinstance(value, Unknown) or value is UNKNOWN or value == rpc.UNKNOWN:
        return UNKNOWN
    if rpc.is_rpc_secret(value):
        secrets.add(path)
        return _plain(rpc.unwrap_rpc_secret(value), path, secrets)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        table = cast("Mapping[str, object]", value)
        # Double underscores mark what the engine keeps for itself (`__internal`, `__defaults`).
        kept = {key: item for key, item in table.items() if not key.startswith("__")}
        return {key: _plain(item, joined(path, key), secrets) for key, item in kept.items() if item is not None}
    if isinstance(value, list | tuple):
        members = cast("list[object]", value)
        return [_plain(item, f"{path}[{index}]", secrets) for index, item in enumerate(members)]
    return value


def joined(path: str, key: str) -> str:
    """Return the path of a member."""
    return f"{path}.{key}" if path else key


def value_at(tree: object, path: str) -> object:
    """Return what is at a path such as `a.b[0].c` of plain values: None if absent, UNKNOWN if a part of the way is."""
    value = tree
    for step in re.findall(r"[^.\[\]]+|\[\d+\]", path):
        if isinstance(value, UnknownValue):
            return UNKNOWN
        if step.startswith("["):
            members = as_list(value)
            index = int(step[1:-1])
            value = members[index] if index < len(members) else None
        else:
            value = as_table(value).get(step)
    return value


def contains_unknown(value: object) -> bool:
    """Whether a plain value is unknown or has an unknown part."""
    if isinstance(value, UnknownValue):
        return True
    if isinstance(value, Mapping):
        return any(contains_unknown(item) for item in cast("Mapping[str, object]", value).values())
    return isinstance(value, list) and any(contains_unknown(item) for item in cast("list[object]", value))


def as_list(value: object) -> list[object]:
    """Return a list as it is, and anything else as an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def as_table(value: object) -> Mapping[str, object]:
    """Return a mapping as it is, and anything else as an empty one."""
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def shown(value: object) -> str:
    """Return a value as refusals quote it, on one line: strings in quotes, the rest as JSON, long ones cut."""
    if isinstance(value, UnknownValue):
        return "unknown"
    text = f"'{' '.join(value.split())}'" if isinstance(value, str) else json.dumps(value, default=repr, sort_keys=True)
    if len(text) <= _LONGEST_VALUE_SHOWN:
        return text
    return f"{text[:_LONGEST_VALUE_SHOWN]}… ({len(text)} characters)"
