"""What an engine and a world talk about: resources, what exists of them, and where they come to exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Operation = Literal["create", "update", "same", "delete"]


class RehearsalError(Exception):
    """The rehearsal failed. The text says which resource, which field, why."""


class NotReadyError(RehearsalError):
    """A resource exists, and did not become ready."""

    def __init__(self, text: str, resource_id: str, outputs: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.resource_id = resource_id
        self.outputs = outputs


@dataclass(frozen=True)
class Resource:
    """A resource that the program registered, with the inputs the engine resolved. In a preview some are unknown.

    `needs` are the URNs of what must exist before it and outlive it: dependencies, through outputs too, its provider and its
    parent, through which it needs what the parent depends on. `secret_inputs` name the inputs that hold a secret. `sent` is the
    message of the inputs, with the marks that the engine's protocol has for what is secret or unknown.
    """

    urn: str
    type: str
    name: str
    inputs: Mapping[str, Any]
    secret_inputs: frozenset[str]
    parent: str
    needs: frozenset[str]
    component: bool
    sent: Any = field(default=None, compare=False, repr=False)

    @property
    def label(self) -> str:
        """`eks/nodeGroup:NodeGroup b200-node-group`, as messages name it."""
        return f"{self.type} {self.name}"


@dataclass(frozen=True)
class Created:
    """A resource that exists, with what the world needs to delete it. `ready` is false if it never became ready."""

    resource: Resource
    id: str
    outputs: Mapping[str, Any]
    ready: bool = True


@dataclass
class StackState:
    """What exists of a stack: by URN in the order of creation, and old objects whose replacements exist already."""

    existing: dict[str, Created] = field(default_factory=dict[str, Created])
    replaced: list[Created] = field(default_factory=list[Created])

    @property
    def everything(self) -> list[Created]:
        """All that would have to be deleted."""
        return [*self.existing.values(), *self.replaced]

    def forget(self, created: Created) -> None:
        """Take out what has been deleted."""
        if created in self.replaced:
            self.replaced.remove(created)
        else:
            del self.existing[created.resource.urn]


@dataclass(frozen=True)
class Step:
    """What one run does with one resource."""

    operation: Operation
    resource: Resource


class World(Protocol):
    """Where resources come to exist. Called from many threads."""

    def create(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        """Return a resource's id and outputs; in a preview both unknown. Raise `RehearsalError` if it is refused."""
        ...

    def update(self, created: Created, resource: Resource, *, preview: bool) -> Updated:
        """Bring what exists to new inputs; in a preview only judge that. Raise `RehearsalError` if it is refused.

        A world in which nothing is ever updated inherits this.
        """
        raise RehearsalError(f"{resource.label}: nothing is updated here ({created.id}, preview: {preview})")

    def delete(self, created: Created) -> None:
        """Delete a resource and wait until it is gone."""
        ...


@dataclass(frozen=True)
class Updated:
    """A resource after its update. `replaced` is the old object if a new one took its place: the engine deletes it last."""

    id: str | None
    outputs: dict[str, Any]
    replaced: Created | None = None
