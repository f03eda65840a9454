"""One serving pod from its binding to a node until it is gone: a thread that does for it what a kubelet does."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rehearsal.cluster import Cluster
from rehearsal.kubelet.container import Container, Ended, timestamp
from rehearsal.kubelet.probes import get
from rehearsal.kubelet.programs import Host, Program, Servers, beside_engine, engine_of
from rehearsal.kubelet.sandbox import Object, Sandbox, sandbox
from rehearsal.kubelet.status import pod_status
from rehearsal.resource import RehearsalError
from rehearsal.scale import KUBELET_SCALE, TIME_SCALE

_TICK_SECONDS = 0.1
_GRACE_SECONDS = 30  # Kubernetes' default
_REPORT_SECONDS = 5.0
_WORDS = 160  # of a failure, on the timeline; the pod's status has them all

ENGINE = "vllm"
GATE = "gate"


@dataclass(frozen=True)
class Machine:
    """Where a pod's programs run: what starts processes, what stands for engines, the machine's type, a folder, an address."""

    host: Host
    servers: Servers
    instance_type: str
    folder: Path
    address: str


class PodWorker:
    """Runs one pod. Seconds are those of real machines."""

    def __init__(
        self,
        pod: Object,
        cluster: Cluster,
        machine: Machine,
        *,
        fetch_seconds: float,
        load_seconds: float,
        tell: Callable[[str, str], None],
    ) -> None:
        self.name: str = pod["metadata"]["name"]
        self.sandbox: Sandbox | None = None
        self._pod = pod
        self._cluster = cluster
        self._machine = machine
        self._fetch_seconds = fetch_seconds
        self.load_seconds = load_seconds
        self._tell = tell
        self._containers: dict[str, Container] = {}
        self._started = timestamp()
        self._initialized: str | None = None
        self._published: Object = {}
        self._was_ready = False
        self._leaving = threading.Event()
        self._abandoned = threading.Event()
        self._kept = False
        self._thread = threading.Thread(target=self._run, name=f"pod-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin to look after the pod."""
        self._thread.start()

    def leave(self) -> None:
        """Let the pod go as its deletion asks: preStop, SIGTERM, the grace period."""
        self._leaving.set()

    def abandon(self, *, keep: bool) -> None:
        """Leave the pod as it is, for the rehearsal is over; its processes end at once unless they are kept."""
        self._kept = keep
        self._abandoned.set()
        self._leaving.set()

    def join(self) -> None:
        """Wait until nothing of the pod runs."""
        if self._thread.ident is not None:
            self._thread.join()

    # --- its life ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with self._cluster.unless_stopped():
            try:
                self._live()
            except RehearsalError as error:
                self._publish(str(error))
                self._leaving.wait()
            finally:
                self._end()

    def _live(self) -> None:
        for spec in self._pod["spec"].get("initContainers") or []:
            if spec.get("restartPolicy") == "Always":
                raise RehearsalError(f"init container {spec['name']}: a native sidecar is not rehearsed")
        self.sandbox = sandbox(self._pod, self._machine.folder, self._read, self._machine.address)
        self._publish()
        if self._leaving.wait(self._fetch_seconds * TIME_SCALE):
            return
        self._initialized = timestamp()
        for spec in self._pod["spec"]["containers"]:
            self._start(spec)
        while not self._leaving.wait(_TICK_SECONDS):
            self._tend()

    def _start(self, spec: Object) -> None:
        assert self.sandbox is not None
        container = Container(
            spec,
            self.sandbox,
            self._machine.host,
            lambda: self._program(spec),
            self._tell_of_end,
            start_seconds=self._machine.servers.start_seconds,
        )
        self._containers[container.name] = container
        container.start(time.monotonic())

    def _tend(self) -> None:
        now = time.monotonic()
        for container in self._containers.values():
            container.tend(now)
        ready = all(container.ready for container in self._containers.values())
        if ready and not self._was_ready:
            self._tell_of_verdict()
        self._was_ready = ready
        self._publish()

    def _end(self) -> None:
        """End the containers as a kubelet does, then let the API server forget the pod."""
        if not self._abandoned.is_set():
            self._end_in_order()
        if self._abandoned.is_set():
            for container in self._containers.values() if not self._kept else ():
                container.stop(signal.SIGKILL)
            return
        metadata = self._pod["metadata"]
        self._cluster.remove("v1", "Pod", metadata["name"], metadata["namespace"], metadata["uid"])

    def _end_in_order(self) -> None:
        """Ask each container to end once its preStop hook is done; end it after the grace period, which begins with the hooks."""
        began, grace = time.monotonic(), self._grace * KUBELET_SCALE
        asked: set[str] = set()
        while any(container.running for container in self._containers.values()):
            for name, container in self._containers.items():
                if name not in asked and time.monotonic() - began >= _pre_stop_seconds(container.spec) * KUBELET_SCALE:
                    container.stop(signal.SIGTERM)
                    asked.add(name)
            if time.monotonic() - began > grace:
                for container in self._containers.values():
                    container.stop(signal.SIGKILL)
            if self._abandoned.wait(_TICK_SECONDS):
                return

    def _program(self, spec: Object) -> Program:
        assert self.sandbox is not None
        machine = self._machine
        if spec["name"] != ENGINE:
            return beside_engine(spec, self.sandbox)
        engine = engine_of(
            spec,
            self.sandbox,
            instance_type=machine.instance_type,
            load_seconds=self.load_seconds,
            grace_seconds=self._grace,
        )
        return machine.servers.program(engine, self.sandbox.folder)

    @property
    def _grace(self) -> float:
        return self._pod["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS)

    def _read(self, kind: str, name: str, namespace: str) -> Object | None:
        return self._cluster.get("v1", kind, name, namespace)

    # --- what is told of it ------------------------------------------------------------------------------------------

    def _publish(self, problem: str | None = None) -> None:
        status = pod_status(
            self._pod,
            self._containers,
            address=self._machine.address,
            started=self._started,
            initialized=self._initialized,
            now=timestamp(),
            problem=problem,
        )
        if status != self._published:
            metadata = {key: self._pod["metadata"][key] for key in ("name", "namespace")}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}
            self._cluster.patch(body, status=True)
            self._published = status
            self._pod = {**self._pod, "status": status}

    def _tell_of_end(self, container: Container, ended: Ended) -> None:
        lines = ended.message.splitlines() or [f"exit code {ended.exit_code}"]
        # The gate says at once what is wrong, an engine's log at its end.
        is_gate = container.name == GATE
        words = lines[0 if is_gate else -1][:_WORDS]
        self._tell("gate" if is_gate else "pods", f"{self.name} {container.name} ended: {words}")

    def _tell_of_verdict(self) -> None:
        gate = self._containers.get(GATE)
        if gate is None or self.sandbox is None:
            self._tell("pods", f"{self.name} runs")
            return
        readiness = gate.spec["readinessProbe"]["httpGet"]
        found = get(self.sandbox.port(gate.spec, readiness["port"]), "/report", _REPORT_SECONDS)
        if not isinstance(found, str) and found[0] == 200:
            self._tell("gate", f"{self.name} {_verdict(json.loads(found[1]))}")


def _verdict(report: Object) -> str:
    passed = sum(row["verdict"] == "passed" for row in report["checks"])
    tokens = report["promptTokens"] + report["completionTokens"]
    return f"passed {passed} checks with {tokens:,} tokens in {report['seconds']:.1f} s and takes traffic"


def _pre_stop_seconds(spec: Object) -> float:
    hook = (spec.get("lifecycle") or {}).get("preStop") or {}
    return float((hook.get("sleep") or {}).get("seconds", 0))
