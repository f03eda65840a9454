"""What the Pulumi AWS provider calls its properties, read from the installed `pulumi_aws` package.

The one place that looks into the SDK's type metadata (`pulumi._types`), which carries no promise of stability; a
test holds it against the package.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from rehearsal.aws.draft import Draft, as_list, as_table, joined
from serving.spelling import did_you_mean, listed

_PROVIDER = "pulumi_aws"


@dataclass(frozen=True)
class PropertyType:
    """What an object type accepts: its property names, which of them it needs, and the types of nested objects."""

    name: str
    nested: Mapping[str, type | None]
    required: frozenset[str]


@cache
def inputs_of(token: str) -> PropertyType:
    """Return the inputs of a resource type such as `aws:ec2/vpc:Vpc`."""
    return described(_class_of(token, "{}Args"))


def check_spelling(draft: Draft) -> None:
    """Refuse a property that the provider does not have, or lacks and needs, at any depth."""
    _check(draft, draft.inputs, "", inputs_of(draft.token))


def _check(draft: Draft, table: Mapping[str, object], path: str, allowed: PropertyType) -> None:
    source = f"{allowed.name}, {version()}"
    for key in table:
        if key not in allowed.nested:
            reason = (
                f"no such property{did_you_mean(key, allowed.nested)}; allowed are {listed(sorted(allowed.nested))}"
            )
            raise draft.refusal(joined(path, key), reason, source)
    for key in sorted(allowed.required - set(table)):
        raise draft.refusal(joined(path, key), "the provider requires it", source)
    for key, value in table.items():
        nested = allowed.nested[key]
        if nested is not None:
            _check_nested(draft, value, joined(path, key), nested)


def _check_nested(draft: Draft, value: object, path: str, nested: type) -> None:
    if isinstance(value, Mapping):
        _check(draft, as_table(value), path, described(nested))
    for index, item in enumerate(as_list(value)):
        _check_nested(draft, item, f"{path}[{index}]", nested)


@cache
def version() -> str:
    """Return name and version of the provider's package, as refusals cite it."""
    from importlib.metadata import version as installed  # noqa: PLC0415

    return f"{_PROVIDER} {installed(_PROVIDER)}"


def _class_of(token: str, pattern: str) -> type:
    """Return the class that the SDK keeps beside a resource's class: `VpcArgs`, `_VpcState`."""
    _, path, name = token.split(":")
    module, _, _ = path.partition("/")
    import_module(_PROVIDER)
    # The SDK's modules become importable on first use of the package's attribute.
    package = getattr(import_module(_PROVIDER), module)
    resource = getattr(package, name)
    return getattr(inspect.getmodule(resource), pattern.format(name))


@cache
def described(cls: type) -> PropertyType:
    """Return what an object type of the SDK accepts."""
    types: Any = import_module("pulumi._types")
    names: dict[str, str] = types.input_type_py_to_pulumi_names(cls)
    hints: dict[str, Any] = types.input_type_types(cls)
    # The class's own `__init__` is the only place where the SDK says what is optional.
    parameters = inspect.signature(cls.__init__).parameters
    required = {
        names[key] for key, value in parameters.items() if key in names and value.default is inspect.Parameter.empty
    }
    nested = {name: _object_in(hints.get(name), types) for name in names.values()}
    return PropertyType(cls.__name__, nested, frozenset(required))


def _object_in(hint: Any, types: Any) -> type | None:
    """Return the object type inside a hint such as `Input[Optional[Sequence[Input[TaintArgs]]]]`, if there is one.

    A union of several (an IAM principal) gives none: what is allowed in it depends on which of them is meant.
    """
    found = set(_objects_in(hint, types))
    return found.pop() if len(found) == 1 else None


def _objects_in(hint: Any, types: Any) -> Iterator[type]:
    if isinstance(hint, type) and types.is_input_type(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _objects_in(argument, types)
