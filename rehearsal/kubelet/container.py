"""One container: its process from start to end and start again, and its status in Kubernetes' terms."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rehearsal.kubelet.probes import Probe
from rehearsal.kubelet.programs import Host, Program
from rehearsal.kubelet.sandbox import Sandbox
from rehearsal.resource import RehearsalError
from rehearsal.scale import KUBELET_SCALE, TIME_SCALE

Object = dict[str, Any]

# A kubelet restarts at once the first time, then after 10 s, doubled up to five minutes.
_BACK_OFF_SECONDS = 10
_LONGEST_BACK_OFF_SECONDS = 300

_MESSAGE_BYTES = 4096
_LOG_BYTES = 2048
_LOG_LINES = 80


@dataclass(frozen=True)
class Ended:
    """How a process of a container ended."""

    exit_code: int
    message: str
    started: str
    finished: str

    def as_status(self) -> Object:
        """Return it as a `terminated` state."""
        return {
            "exitCode": self.exit_code,
            "reason": "Completed" if self.exit_code == 0 else "Error",
            "message": self.message,
            "startedAt": self.started,
            "finishedAt": self.finished,
        }


def timestamp() -> str:
    """Return now as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Container:
    """A container of a serving pod, looked after by one thread. `on_end` hears of every end of its process.

    `start_seconds` is what its process may take to start on this machine.
    """

    def __init__(
        self,
        spec: Object,
        sandbox: Sandbox,
        host: Host,
        program: Callable[[], Program],
        on_end: Callable[[Container, Ended], None],
        *,
        start_seconds: float,
    ) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.restarts = 0
        self.last: Ended | None = None
        self._sandbox = sandbox
        self._host = host
        self._program = program
        self._on_end = on_end
        self._start_seconds = start_seconds
        self._process: str | None = None
        self._started = ""
        self._not_before = 0.0
        self._begun = 0.0
        self._why_killed = ""
        self._probes: dict[str, Probe] = {}

    # --- looking after it --------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Start the process, the first time or again."""
        self._process = f"{self._sandbox.folder.name}/{self.name}#{self.restarts}"
        self._started, self._begun, self._why_killed = timestamp(), now, ""
        kinds = ("startupProbe", "readinessProbe", "livenessProbe")
        self._probes = {kind: self._probe(kind) for kind in kinds if self.spec.get(kind)}
        message = self._sandbox.termination_message(self.name)
        message.write_bytes(b"")
        program = self._program()
        log = self._sandbox.log(self.name, self.restarts)
        self._host.run_beside(self._process, program.argv, log=log, cwd=program.cwd, env=program.env)

    def tend(self, now: float) -> None:
        """Note an end, start again when the back-off is over, ask the probes, kill what they have given up."""
        if self._process is None:
            if now >= self._not_before:
                self.restarts += 1
                self.start(now)
            return
        if self._note_end(now):
            return
        startup = self._probes.get("startupProbe")
        if startup is not None and not startup.passing:
            startup.look(now)
            if now - self._begun > self._startup_seconds and not startup.passing:
                self._kill(f"Startup probe failed: {startup.why}")
            return
        for kind in ("readinessProbe", "livenessProbe"):
            if kind in self._probes:
                self._probes[kind].look(now)
        liveness = self._probes.get("livenessProbe")
        if liveness is not None and liveness.passing is False:
            self._kill(f"Liveness probe failed: {liveness.why}")

    def stop(self, number: signal.Signals) -> None:
        """Ask the process to end, or end it."""
        if self._process is not None:
            self._host.signal(self._process, number)

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._host.exit_status(self._process) is None

    def _probe(self, kind: str) -> Probe:
        request = self.spec[kind].get("httpGet")
        if request is None:
            raise RehearsalError(f"container {self.name}: a {kind} other than httpGet is not rehearsed")
        return Probe(self.spec[kind], self._sandbox.port(self.spec, request["port"]))

    def _kill(self, why: str) -> None:
        self._why_killed = why
        self.stop(signal.SIGKILL)

    def _note_end(self, now: float) -> bool:
        assert self._process is not None
        status = self._host.exit_status(self._process)
        if status is None:
            return False
        code = status if status >= 0 else 128 - status
        self.last = Ended(code, self._why_killed or self._last_words(code), self._started, timestamp())
        self._process = None
        self._probes = {}
        self._not_before = now + self._back_off() * KUBELET_SCALE
        self._on_end(self, self.last)
        return True

    def _back_off(self) -> int:
        """Return the seconds, as on real machines, until the next start."""
        if self.restarts == 0:
            return 0
        return min(_BACK_OFF_SECONDS * 2 ** (self.restarts - 1), _LONGEST_BACK_OFF_SECONDS)

    @property
    def _startup_seconds(self) -> float:
        """How long the startup probe is given: its budget is meant for a load, which is scaled down; a process is not."""
        spec = self.spec["startupProbe"]
        return spec.get("periodSeconds", 10) * spec.get("failureThreshold", 3) * TIME_SCALE + self._start_seconds

    def _last_words(self, code: int) -> str:
        """Return the termination message; where the container asks for it, the end of the log stands for a missing one."""
        words = _tail(self._sandbox.termination_message(self.name), _MESSAGE_BYTES)
        if not words and code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            lines = _tail(self._sandbox.log(self.name, self.restarts), _LOG_BYTES).splitlines()
            words = "\n".join(lines[-_LOG_LINES:])
        return words

    # --- telling of it -----------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether it is past its startup probe."""
        startup = self._probes.get("startupProbe")
        return self._process is not None and (startup is None or startup.passing is True)

    @property
    def ready(self) -> bool:
        """Whether its readiness probe passes; a started container without one is ready."""
        readiness = self._probes.get("readinessProbe")
        return self.started and (readiness is None or readiness.passing is True)

    def status(self) -> Object:
        """Return the container's status."""
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "containerID": f"rehearsal://{self._sandbox.folder.name}/{self.name}",
            "restartCount": self.restarts,
            "ready": self.ready,
            "started": self.started,
            "state": self._state(),
            "lastState": {"terminated": self.last.as_status()} if self.last else {},
        }

    def _state(self) -> Object:
        if self._process is not None:
            return {"running": {"startedAt": self._started}}
        pod = self._sandbox.pod["metadata"]
        place = f"{pod['name']}_{pod['namespace']}({pod['uid']})"
        message = f"back-off {self._back_off()}s restarting failed container={self.name} pod={place}"
        return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}


def _tail(path: Path, size: int) -> str:
    try:
        return path.read_bytes()[-size:].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
