"""Where containers' processes run, and which program stands for a container."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rehearsal.groups.names import GROUP_KEY
from rehearsal.kubelet.sandbox import Sandbox
from rehearsal.resource import RehearsalError
from rehearsal.scale import KUBELET_SCALE, TIME_SCALE
from rehearsal.vllm.faults import Fault

Object = dict[str, Any]

ROOT = Path(__file__).parents[2]

# An answer's seconds are scaled less than a load's: a stream has to last long enough to be cut by a bad drain.
_ANSWER_SCALE = 1 / 40

_SHORT = 8  # the path of a socket has a limit


@dataclass(frozen=True)
class Program:
    """A process to start: its argv, its whole environment, its working folder."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path


class Host(Protocol):
    """Starts processes that cannot outlive the rehearsal. Names are unique."""

    def run_beside(self, name: str, argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        """Start a process that writes to a log."""
        ...

    def exit_status(self, name: str) -> int | None:
        """Return how a process ended, negative for a signal, or None while it runs."""
        ...

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process if it still runs."""
        ...


@dataclass(frozen=True)
class EngineContainer:
    """What a pod's engine container says, and where it runs. Seconds are those of real machines.

    The port is 0 for one that answers nobody; `rendezvous` is where the pods of a group find each other here.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    image: str
    engine_version: str
    instance_type: str
    port: int
    load_seconds: float
    grace_seconds: float
    rendezvous: Path


class Servers(Protocol):
    """What stands for the engine of a serving pod. `start_seconds` is what one may take to start here, beside the scaled load."""

    start_seconds: float

    def program(self, engine: EngineContainer, folder: Path) -> Program:
        """Return the process that serves as the container's command and environment say, on loopback at its port."""
        ...


@dataclass
class StandIns:
    """The fast stand-in of vLLM for every pod. `faults` says what is wrong with an image."""

    faults: dict[str, Fault] = field(default_factory=dict[str, Fault])
    start_seconds: float = 60.0  # half a second on an idle machine

    def program(self, engine: EngineContainer, folder: Path) -> Program:
        """Return the stand-in, started from the container's own argv."""
        fault = self.faults.get(engine.image)
        options = {
            "--listen": str(engine.port),
            "--instance-type": engine.instance_type,
            "--engine-version": engine.engine_version,
            "--load-seconds": str(engine.load_seconds * TIME_SCALE),
            "--time-scale": str(_ANSWER_SCALE),
            "--drain-seconds": str(engine.grace_seconds * KUBELET_SCALE),
            "--rendezvous": str(engine.rendezvous),
        } | ({"--fault": fault.value} if fault else {})
        words = [word for option in options.items() for word in option]
        # -P: the pod's environment and folder decide nothing about what Python imports.
        argv = [sys.executable, "-P", "-m", "rehearsal.vllm", *words, "--", *engine.command]
        return Program(argv, {**engine.env, "PYTHONPATH": str(ROOT)}, folder)


def engine_of(
    spec: Object, sandbox: Sandbox, *, instance_type: str, load_seconds: float, grace_seconds: float
) -> EngineContainer:
    """Read the engine's container of a pod."""
    return EngineContainer(
        command=sandbox.argv(spec),
        env=sandbox.env(spec),
        image=spec["image"],
        engine_version=sandbox.pod["metadata"]["labels"]["app.kubernetes.io/version"],
        instance_type=instance_type,
        port=sandbox.port(spec, "http") if spec.get("ports") else 0,
        load_seconds=load_seconds,
        grace_seconds=grace_seconds,
        rendezvous=sandbox.folder.parent / sandbox.pod["metadata"]["labels"].get(GROUP_KEY, "")[:_SHORT],
    )


def beside_engine(spec: Object, sandbox: Sandbox) -> Program:
    """Return the program of a container beside the engine: one of our own, run by this Python instead of the image's."""
    command = sandbox.argv(spec)
    if command[:1] != ["python3"]:
        raise RehearsalError(f"container {spec['name']}: {command[:1]} is no program that a rehearsal can run")
    env = {"HOME": str(sandbox.folder), **sandbox.env(spec)}
    return Program([sys.executable, *command[1:]], env, sandbox.working_folder(spec))
