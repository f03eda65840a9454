"""What the stack has Pulumi wait for where Pulumi knows no readiness of a kind: the annotation `pulumi.com/waitFor`.

Judged as Pulumi's Kubernetes provider does (pulumi/pulumi-kubernetes 9497796, provider/pkg/metadata/overrides.go and
provider/pkg/await/condition/jsonpath.go): every condition has to hold, and none does while the object's status is that of an
earlier generation, for kinds that say which they have observed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Self, cast

from rehearsal.resource import RehearsalError

WAIT_FOR = "pulumi.com/waitFor"

_CONDITION = re.compile(r"jsonpath=\{(?P<path>[^{}=]+)\}(?:=(?P<value>[^=]+))?")
_NAME = re.compile(r"\.([A-Za-z_]\w*)|\['([^']+)'\]")

Object = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    """A field that has to be there, with a value if one is given."""

    path: tuple[str, ...]
    value: str | None

    @classmethod
    def parse(cls, text: str, label: str) -> Self:
        """Read a condition; raise `RehearsalError` if it is none or of a kind that no stack here has."""
        found = _CONDITION.fullmatch(text)
        names = list(_NAME.finditer(found["path"])) if found else []
        if found is None or "".join(name[0] for name in names) != found["path"]:
            raise RehearsalError(
                f"{label}: metadata.annotations.{WAIT_FOR}: {text!r} is not rehearsed; a path of names is, such as "
                "jsonpath={.status.readyReplicas}=2"
            )
        return cls(tuple(name[1] or name[2] for name in names), found["value"])

    def holds(self, current: Object) -> bool:
        """Whether an object that is there has what is waited for."""
        observed = current.get("status", {}).get("observedGeneration")
        if observed is not None and observed < current["metadata"].get("generation", 0):
            return False
        found = self._found(current)
        return found is not None and self.value in {None, found}

    def _found(self, current: Object) -> str | None:
        """Return the field's value as text, None if it is not there."""
        value: Any = current
        for name in self.path:
            if not isinstance(value, dict) or name not in value:
                return None
            value = cast("Object", value)[name]
        return json.dumps(value) if isinstance(value, bool) else str(value)

    def __str__(self) -> str:
        """Return it in words."""
        return f"{'.'.join(self.path)}={self.value}" if self.value is not None else ".".join(self.path)


def conditions(body: Object, label: str) -> list[Condition]:
    """Return what an object is waited for by its annotation; nothing if it has none."""
    text = (body["metadata"].get("annotations") or {}).get(WAIT_FOR)
    if not text:
        return []
    try:
        texts = cast("list[str]", json.loads(text))
    except ValueError:
        texts = [text]
    return [Condition.parse(row, label) for row in texts]
