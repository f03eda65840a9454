"""Which resources change, from what other programs wrote: two renderings, or the event log of a real preview.

Nothing here runs Pulumi. A rendering is the JSON of `python -m rehearsal resources`: every resource of a new stack with its
inputs. The event log is what `pulumi preview --event-log FILE` writes (one `EngineEvent` a line, `apitype/events.go`); unlike
`--json` it holds what policies said. Values in it are not read: they come from a real account.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from serving.review.changes import Change, changes, flat
from serving.spelling import InputError

Operation = Literal["create", "update", "replace", "delete", "import"]


@dataclass(frozen=True)
class ResourceChange:
    """A resource that is created, changed or deleted, and where; a field without `before` and `after` has unread values."""

    operation: Operation
    type: str
    name: str
    namespace: str | None
    fields: tuple[Change, ...]


@dataclass(frozen=True)
class PolicyMessage:
    """What a policy said about a resource."""

    policy: str
    level: str
    resource: str
    message: str


@dataclass(frozen=True)
class ResourceChanges:
    """Which resources change. `source` says who found out; a rendering cannot tell an update from a replacement."""

    source: Literal["rendering", "preview"]
    changes: tuple[ResourceChange, ...]
    policies: tuple[PolicyMessage, ...] = ()
    errors: tuple[str, ...] = ()
    failed: bool = False


# --- renderings ----------------------------------------------------------------------------------------------------------


class _Rendered(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str
    name: str
    inputs: dict[str, Any]

    @property
    def namespace(self) -> str | None:
        metadata = self.inputs.get("metadata")
        return metadata.get("namespace") if isinstance(metadata, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


Rendering = Mapping[str, _Rendered]
_RENDERING = TypeAdapter(dict[str, _Rendered])


def rendering(text: str, where: str) -> Rendering:
    """Read the JSON of `python -m rehearsal resources`, by URN; raise `InputError` if it is something else."""
    try:
        return _RENDERING.validate_json(text)
    except ValidationError:
        raise InputError(
            f"{where}: not a rendering; write it with python -m rehearsal resources --stack NAME"
        ) from None


def of_renderings(before: Rendering, after: Rendering) -> ResourceChanges:
    """Compare two renderings of a stack. Neither resources nor their fields come in an order: changes are sorted."""
    found = (_compared(before.get(urn), after.get(urn)) for urn in sorted({*before, *after}))
    return ResourceChanges("rendering", tuple(change for change in found if change is not None))


def _compared(before: _Rendered | None, after: _Rendered | None) -> ResourceChange | None:
    row = after or before
    if row is None or before == after:
        return None
    if before is None or after is None:
        return ResourceChange("create" if before is None else "delete", row.type, row.name, row.namespace, ())
    fields = tuple(sorted(changes(flat(before.inputs), flat(after.inputs)), key=lambda field: field.name))
    return ResourceChange("update", row.type, row.name, row.namespace, fields)


# --- a preview's event log -----------------------------------------------------------------------------------------------


class _Event(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_alias=True, validate_by_name=False
    )


class _State(_Event):
    custom: bool = False


class _Step(_Event):
    op: str
    urn: str
    type: str
    old: _State | None = None
    new: _State | None = None
    diffs: tuple[str, ...] | None = None
    detailed_diff: dict[str, Any] | None = None


class _ResourcePre(_Event):
    metadata: _Step


class _Policy(_Event):
    resource_urn: str = ""
    message: str
    policy_name: str
    enforcement_level: str


class _Diagnostic(_Event):
    urn: str = ""
    message: str
    severity: str


class _Summary(_Event):
    result: str = ""


class _Line(_Event):
    resource_pre_event: _ResourcePre | None = None
    policy_event: _Policy | None = None
    diagnostic_event: _Diagnostic | None = None
    summary_event: _Summary | None = None


_COLOUR = re.compile(r"<\{%.*?%\}>")  # Pulumi's own mark-up, where --color never was not given


def of_preview(text: str, where: str) -> ResourceChanges:
    """Read the event log of a preview; raise `InputError` if it is something else."""
    try:
        lines = [_Line.model_validate_json(line) for line in text.splitlines() if line.strip()]
    except ValidationError:
        raise InputError(f"{where}: not an event log; write it with pulumi preview --event-log FILE") from None
    results = [line.summary_event.result for line in lines if line.summary_event]
    diagnostics = [line.diagnostic_event for line in lines if line.diagnostic_event]
    return ResourceChanges(
        "preview",
        tuple(_steps(lines)),
        policies=tuple(_policy_message(line.policy_event) for line in lines if line.policy_event),
        errors=tuple(_plain(row.message) for row in diagnostics if row.severity == "error"),
        # A preview that died before its summary has not succeeded either.
        failed=results[-1:] != ["succeeded"],
    )


def _steps(lines: Iterable[_Line]) -> Iterator[ResourceChange]:
    for line in lines:
        step = line.resource_pre_event.metadata if line.resource_pre_event else None
        # Of a replacement's three steps the one called replace stands for all. Components, as the stack, only hold others.
        state = (step.new or step.old) if step else None
        if step and state and state.custom and step.op in get_args(Operation):
            operation = cast("Operation", step.op)
            fields = step.detailed_diff or dict.fromkeys(step.diffs or ())
            places = tuple(Change(path, None, None) for path in fields) if operation in {"update", "replace"} else ()
            yield ResourceChange(operation, step.type, _name(step.urn), None, places)


def _policy_message(event: _Policy) -> PolicyMessage:
    return PolicyMessage(event.policy_name, event.enforcement_level, _name(event.resource_urn), _plain(event.message))


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


def _plain(message: str) -> str:
    return _COLOUR.sub("", message).strip()
