"""Runs the stack's own `__main__.py` and hands every resource it registers to a world.

`Engine` is the seam: `InProcessEngine` uses Pulumi's in-process test monitor, so that a rehearsal needs no Pulumi CLI. What
the monitor lacks of a real engine is kept here: a failure ends the run, later resources are not created, and the order in
which resources were created is known, so that they can be deleted in reverse.
"""

from __future__ import annotations

import contextvars
import json
import runpy
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import pulumi
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime import rpc, set_all_config
from pulumi.runtime.settings import get_root_resource, set_root_resource

from rehearsal.event_loops import event_loops
from serving.config import PROJECT

# As many resources come and go side by side; Pulumi's own default is far larger, this machine's stand-ins answer at once.
_PARALLEL_REGISTRATIONS = 16
_PARALLEL_DELETIONS = 8


class RehearsalError(Exception):
    """The rehearsal failed. The text says which resource, which field, why."""


@dataclass(frozen=True)
class Resource:
    """A resource that the program registered, with the inputs the engine resolved. In a preview some are unknown.

    `needs` are the URNs of what must exist before it and outlive it: dependencies, through outputs too, its provider and its
    parent, through which it needs what the parent depends on.
    """

    urn: str
    type: str
    name: str
    inputs: Mapping[str, Any]
    parent: str
    needs: frozenset[str]
    component: bool

    @property
    def label(self) -> str:
        """`eks/nodeGroup:NodeGroup b200-node-group`, as messages name it."""
        return f"{self.type} {self.name}"


@dataclass(frozen=True)
class Created:
    """A resource that exists, with what the world needs to delete it."""

    resource: Resource
    id: str
    outputs: Mapping[str, Any]


class World(Protocol):
    """Where resources come to exist: `create` validates in a preview and creates in an update."""

    def create(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        """Return a resource's id and outputs; in a preview both unknown. Raise `RehearsalError` if it is refused."""
        ...

    def delete(self, created: Created) -> None:
        """Delete a resource and wait until it is gone."""
        ...


class Engine(Protocol):
    """What can run the program: the in-process one below, or the Pulumi CLI."""

    def preview(self) -> list[Resource]:
        """Run the program without creating anything; return what it would create."""
        ...

    def up(self) -> Mapping[str, Any]:
        """Create everything; return the stack's outputs."""
        ...

    def destroy(self) -> None:
        """Delete everything that `up` created, in reverse order."""
        ...


@dataclass
class InProcessEngine:
    """Runs the program of a folder in this process, with a stack's settings (keys with their namespaces).

    `created` holds what exists, in the order in which it came to exist: always the same order if `side_by_side` is 1.
    """

    folder: Path
    stack: str
    settings: Mapping[str, Any]
    world: World
    created: list[Created] = field(default_factory=list[Created])
    side_by_side: int = _PARALLEL_REGISTRATIONS

    def preview(self) -> list[Resource]:
        """Run the program with every computed output unknown, as the first preview of a new stack does."""
        monitor = self._run(preview=True)
        return monitor.registered

    def up(self) -> Mapping[str, Any]:
        """Create everything in dependency order, independent resources side by side."""
        monitor = self._run(preview=False)
        return monitor.stack_outputs

    def destroy(self) -> None:
        """Delete what nothing needs any more, side by side, until nothing is left.

        As with the real engine, the order rests on declared dependencies alone: one that is missing shows here.
        """
        left = {created.resource.urn: created for created in self.created}
        pool = ThreadPoolExecutor(max_workers=_PARALLEL_DELETIONS, thread_name_prefix="delete")
        running: dict[Future[None], str] = {}
        try:
            while left:
                needed = {urn for created in left.values() for urn in created.resource.needs}
                for urn in left.keys() - needed - set(running.values()):
                    running[pool.submit(self._delete, left[urn])] = urn
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    del left[running.pop(future)]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self.created[:] = left.values()

    def _delete(self, created: Created) -> None:
        if not created.resource.component:
            self.world.delete(created)

    def _run(self, *, preview: bool) -> _Monitor:
        monitor = _Monitor(self.world, preview=preview, created=self.created)
        set_all_config({key: _text(value) for key, value in self.settings.items()})
        try:
            self._program_under(monitor, preview=preview)
        except pulumi.RunError as error:
            raise RehearsalError(str(error)) from None
        except Exception as error:
            # The first failure is the cause; what the program raises is its echo through every waiting output.
            if monitor.failure is not None:
                raise monitor.failure from None
            if isinstance(error, RehearsalError):
                raise
            raise RehearsalError(f"the program failed: {type(error).__name__}: {error}") from error
        if monitor.failure is not None:
            raise monitor.failure
        return monitor

    def _program_under(self, monitor: _Monitor, *, preview: bool) -> None:
        """Run the program until every resource is registered and every output is known."""

        @pulumi.runtime.test
        def run() -> pulumi.Output[None]:
            set_root_resource(cast("Any", None))  # a new root for each run: exports of the last one are gone
            pulumi_mocks.set_mocks(_NoMocks(), project=PROJECT, stack=self.stack, preview=preview, monitor=monitor)
            self._program()
            exports = cast("Any", get_root_resource()).outputs
            return pulumi.Output.from_input(exports).apply(monitor.stack_outputs.update)

        def in_loops() -> None:
            with event_loops(self.side_by_side):
                run()

        # Not in this thread: Pulumi's runtime catches every exception in its tasks, and with it the KeyboardInterrupt that
        # Ctrl-C raises in the main thread; the program would then wait for ever for what was interrupted.
        _run_beside(in_loops)

    def _program(self) -> None:
        with warnings.catch_warnings():
            # pulumi_aws and pulumi_kubernetes warn about their own deprecated modules while they are imported.
            warnings.simplefilter("ignore", DeprecationWarning)
            runpy.run_path(str(self.folder / "__main__.py"), run_name="__pulumi_program__")


def _run_beside(act: Callable[[], None]) -> None:
    """Run something in a thread of its own and wait for it; raise what it raises. The wait can be interrupted."""
    outcome: Future[None] = Future()

    def work() -> None:
        try:
            outcome.set_result(act())
        except BaseException as error:  # noqa: BLE001 (handed over to the thread that waits)
            outcome.set_exception(error)

    # Pulumi keeps the configuration in a context variable: the thread gets this thread's.
    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="program", daemon=True).start()
    outcome.result()


def _text(value: Any) -> str:
    """Return a setting as Pulumi's runtime holds it: maps and lists as JSON, the rest as text."""
    return value if isinstance(value, str) else json.dumps(value)


def _plain_inputs(properties: Any) -> dict[str, Any]:
    """Return a resource's inputs, secrets unwrapped: AWS and the API server get them in the clear too."""
    inputs, _ = rpc.deserialize_properties_unwrap_secrets(properties, keep_unknowns=True)
    return cast("dict[str, Any]", inputs)


class _NoMocks(pulumi_mocks.Mocks):
    """The monitor below answers everything itself."""

    def call(self, args: pulumi_mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise RehearsalError(f"the program calls {args.token}: it must not, a preview would depend on the account")

    def new_resource(self, args: pulumi_mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        raise RehearsalError(f"{args.typ} {args.name}: reads an existing resource, which a rehearsal does not have")


class _Monitor(pulumi_mocks.MockMonitor):
    """A resource monitor that creates what is registered. Called from Pulumi's worker threads, one resource a call."""

    def __init__(self, world: World, *, preview: bool, created: list[Created]) -> None:
        super().__init__(_NoMocks())
        self.failure: RehearsalError | None = None
        self.registered: list[Resource] = []
        self.stack_outputs: dict[str, Any] = {}
        self._world = world
        self._preview = preview
        self._created = created
        self._lock = threading.Lock()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 (the monitor's protocol)
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == "pulumi:pulumi:Stack":
            return pulumi_mocks.resource_pb2.RegisterResourceResponse(urn=urn)
        pulumi_mocks._ensure_event_loop()  # pyright: ignore[reportPrivateUsage]
        resource = Resource(
            urn=urn,
            type=request.type,
            name=request.name,
            inputs=_plain_inputs(request.object),
            parent=request.parent,
            needs=frozenset((*request.dependencies, request.provider.rpartition("::")[0], request.parent)) - {""},
            component=not request.custom,
        )
        resource_id, outputs = self._create(resource)
        self.resources[urn] = pulumi_mocks.MockMonitor.ResourceRegistration(urn, resource_id or "", outputs)
        state = pulumi_mocks._sync_await(rpc.serialize_properties(outputs, {}))  # pyright: ignore[reportPrivateUsage]
        return pulumi_mocks.resource_pb2.RegisterResourceResponse(urn=urn, id=resource_id or "", object=state)

    def _create(self, resource: Resource) -> tuple[str | None, dict[str, Any]]:
        with self._lock:
            if self.failure is not None:
                raise self.failure
            self.registered.append(resource)
        try:
            resource_id, outputs = self._in_world(resource)
        except RehearsalError as error:
            with self._lock:
                self.failure = self.failure or error
            raise
        if not self._preview:
            with self._lock:
                self._created.append(Created(resource, resource_id or "", outputs))
        return resource_id, outputs

    def _in_world(self, resource: Resource) -> tuple[str | None, dict[str, Any]]:
        if resource.component:  # a name for its children, nothing in the world
            return "", {}
        return self._world.create(resource, preview=self._preview)
