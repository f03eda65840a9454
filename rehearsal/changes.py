"""What differs between two versions of a resource's inputs, and which differences make an object anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

# Fields whose change replaces an object of the kind (pulumi-kubernetes 4.32, `provider/pkg/provider/diff.go`), of the kinds that
# this stack makes. A ConfigMap's data is among them unless the provider is told that ConfigMaps are mutable.
_REPLACING: Mapping[str, tuple[str, ...]] = {
    "ConfigMap": ("data", "binaryData"),
    "Secret": ("data", "stringData", "type"),
    "Deployment": ("spec.selector",),
    "DaemonSet": ("spec.selector",),
    "Service": ("spec.clusterIP",),
}
_IDENTITY = ("metadata.name", "metadata.namespace")


def changed(old: object, new: object, path: str = "") -> Iterator[str]:
    """Yield the path of every field that differs, lists counted as one field unless they are equally long."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", new)
        for key in {**before, **after}:
            yield from changed(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(cast("list[Any]", old)) == len(cast("list[Any]", new)):
        for index, (was, now) in enumerate(zip(cast("list[Any]", old), cast("list[Any]", new), strict=True)):
            yield from changed(was, now, f"{path}[{index}]")
    else:
        yield path


def moves(old: object, new: object) -> bool:
    """Whether an object gets another identity: the new one is made before the old one is deleted."""
    return any(path in _IDENTITY for path in changed(old, new))


def replaces(kind: str, old: object, new: object) -> bool:
    """Whether an object of the same name has to be deleted before the new one can be made."""
    fields = _REPLACING.get(kind, ())
    return any(
        path == field or path.startswith((f"{field}.", f"{field}[")) for path in changed(old, new) for field in fields
    )
