"""The resource monitor of the in-process engine: for each resource a program registers, what has to be done, and doing it."""

from __future__ import annotations

import threading
from typing import Any, cast

from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime import rpc

from rehearsal.resource import (
    Created,
    NotReadyError,
    Operation,
    RehearsalError,
    Resource,
    StackState,
    Step,
    Updated,
    World,
)


def _plain_inputs(properties: Any) -> dict[str, Any]:
    """Return a resource's inputs, secrets unwrapped: AWS and the API server get them in the clear too."""
    inputs, _ = rpc.deserialize_properties_unwrap_secrets(properties, keep_unknowns=True)
    return cast("dict[str, Any]", inputs)


def _secret_inputs(properties: Any) -> frozenset[str]:
    inputs = rpc.deserialize_properties(properties, keep_unknowns=True)
    return frozenset(name for name, value in inputs.items() if rpc.is_rpc_secret(value))


class NoMocks(pulumi_mocks.Mocks):
    """The monitor below answers everything itself."""

    def call(self, args: pulumi_mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        """Refuse an invoke."""
        raise RehearsalError(f"the program calls {args.token}: it must not, a preview would depend on the account")

    def new_resource(self, args: pulumi_mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        """Refuse to read what exists."""
        raise RehearsalError(f"{args.typ} {args.name}: reads an existing resource, which a rehearsal does not have")


class Monitor(pulumi_mocks.MockMonitor):
    """A resource monitor that does what is registered. Called from Pulumi's worker threads, one resource a call.

    `steps` says what was done, or in a preview would be; `failure` is the first refusal, after which nothing begins.
    """

    def __init__(self, world: World, state: StackState, *, preview: bool) -> None:
        super().__init__(NoMocks())
        self.failure: RehearsalError | None = None
        self.steps: list[Step] = []
        self.stack_outputs: dict[str, Any] = {}
        self._world = world
        self._state = state
        self._preview = preview
        self._lock = threading.Lock()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 (the monitor's protocol)
        """Do what a registration asks for and answer with the resource's state."""
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == "pulumi:pulumi:Stack":
            return pulumi_mocks.resource_pb2.RegisterResourceResponse(urn=urn)
        pulumi_mocks._ensure_event_loop()  # pyright: ignore[reportPrivateUsage]
        resource = Resource(
            urn=urn,
            type=request.type,
            name=request.name,
            inputs=_plain_inputs(request.object),
            secret_inputs=_secret_inputs(request.object),
            parent=request.parent,
            needs=frozenset((*request.dependencies, request.provider.rpartition("::")[0], request.parent)) - {""},
            component=not request.custom,
            sent=request.object,
        )
        resource_id, outputs = self._settle(resource)
        self.resources[urn] = pulumi_mocks.MockMonitor.ResourceRegistration(urn, resource_id or "", outputs)
        state = pulumi_mocks._sync_await(rpc.serialize_properties(outputs, {}))  # pyright: ignore[reportPrivateUsage]
        return pulumi_mocks.resource_pb2.RegisterResourceResponse(urn=urn, id=resource_id or "", object=state)

    def _settle(self, resource: Resource) -> tuple[str | None, dict[str, Any]]:
        """Create, update or keep a resource; return its id and outputs, both unknown for what a preview would create."""
        old = self._state.existing.get(resource.urn)
        operation = _operation(old, resource)
        with self._lock:
            if self.failure is not None:
                raise self.failure
            self.steps.append(Step(operation, resource))
        try:
            done = self._done(operation, old, resource)
        except RehearsalError as error:
            with self._lock:
                self.failure = self.failure or error
            if isinstance(error, NotReadyError):
                self._record(Created(resource, error.resource_id, error.outputs, ready=False))
            raise
        if not self._preview:
            self._record(Created(resource, done.id or "", done.outputs), done.replaced)
        return done.id, done.outputs

    def _done(self, operation: Operation, old: Created | None, resource: Resource) -> Updated:
        if resource.component:  # a name for its children, nothing in the world
            return Updated("", {})
        if old is None:
            return Updated(*self._world.create(resource, preview=self._preview))
        if operation == "same":
            return Updated(old.id, dict(old.outputs))
        return self._world.update(old, resource, preview=self._preview)

    def _record(self, created: Created, replaced: Created | None = None) -> None:
        with self._lock:
            self._state.existing[created.resource.urn] = created
            if replaced is not None:
                self._state.replaced.append(replaced)


def _operation(old: Created | None, resource: Resource) -> Operation:
    if old is None:
        return "create"
    return "same" if resource.component or (old.ready and old.resource.inputs == resource.inputs) else "update"
