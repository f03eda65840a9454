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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import pulumi
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime import set_all_config
from pulumi.runtime.settings import get_root_resource, set_root_resource

from rehearsal.event_loops import event_loops
from rehearsal.monitor import Monitor, NoMocks
from rehearsal.resource import Created, RehearsalError, StackState, Step, World
from serving.config import PROJECT

# As many resources come and go side by side; Pulumi's own default is far larger, this machine's stand-ins answer at once.
_PARALLEL_REGISTRATIONS = 16
_PARALLEL_DELETIONS = 8


class Engine(Protocol):
    """What can run the program: the in-process one below, or the Pulumi CLI."""

    def preview(self) -> list[Step]:
        """Run the program without doing anything; return what it would do."""
        ...

    def up(self) -> Mapping[str, Any]:
        """Create everything, or update what exists; return the stack's outputs."""
        ...

    def destroy(self) -> None:
        """Delete everything that `up` created, in reverse order."""
        ...


@dataclass
class InProcessEngine:
    """Runs the program of a folder in this process, with a stack's settings (keys with their namespaces).

    `created` holds what exists, in the order in which it came to exist: always the same order if `side_by_side` is 1. A second
    `up` updates what the first one created.
    """

    folder: Path
    stack: str
    settings: Mapping[str, Any]
    world: World
    side_by_side: int = _PARALLEL_REGISTRATIONS
    _state: StackState = field(default_factory=StackState, init=False)

    @property
    def created(self) -> list[Created]:
        """Everything that exists."""
        return self._state.everything

    def preview(self) -> list[Step]:
        """Run the program without doing anything; outputs of what does not exist yet are unknown, as in a real preview."""
        monitor = self._run(preview=True)
        return [*monitor.steps, *(Step("delete", created.resource) for created in self._unwanted(monitor))]

    def up(self) -> Mapping[str, Any]:
        """Create and update in dependency order, independent resources side by side; then delete what is not wanted any more.

        As with the real engine nothing is deleted if anything fails, so that the way back finds the old objects in place.
        """
        monitor = self._run(preview=False)
        self._delete_all(self._unwanted(monitor))
        return monitor.stack_outputs

    def destroy(self) -> None:
        """Delete everything that exists, what others need last."""
        self._delete_all(self.created)

    def _unwanted(self, monitor: Monitor) -> list[Created]:
        """Return what the program no longer registers, and what has been replaced."""
        wanted = {step.resource.urn for step in monitor.steps}
        gone = [created for urn, created in self._state.existing.items() if urn not in wanted]
        return [*gone, *self._state.replaced]

    def _delete_all(self, unwanted: Sequence[Created]) -> None:
        """Delete what nothing else of it needs any more, side by side, until nothing is left.

        As with the real engine, the order rests on declared dependencies alone: one that is missing shows here.
        """
        left = list(unwanted)
        pool = ThreadPoolExecutor(max_workers=_PARALLEL_DELETIONS, thread_name_prefix="delete")
        running: dict[Future[None], Created] = {}
        try:
            while left:
                needed = {urn for created in left for urn in created.resource.needs}
                for created in left:
                    if created.resource.urn not in needed and created not in running.values():
                        running[pool.submit(self._delete, created)] = created
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    left.remove(deleted := running.pop(future))
                    self._state.forget(deleted)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _delete(self, created: Created) -> None:
        if not created.resource.component:
            self.world.delete(created)

    def _run(self, *, preview: bool) -> Monitor:
        monitor = Monitor(self.world, self._state, preview=preview)
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

    def _program_under(self, monitor: Monitor, *, preview: bool) -> None:
        """Run the program until every resource is registered and every output is known."""

        @pulumi.runtime.test
        def run() -> pulumi.Output[None]:
            set_root_resource(cast("Any", None))  # a new root for each run: exports of the last one are gone
            pulumi_mocks.set_mocks(NoMocks(), project=PROJECT, stack=self.stack, preview=preview, monitor=monitor)
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
