"""The kubelet of serving pods, piece by piece: sandbox, containers with their probes and restarts, the pod's status."""

from __future__ import annotations

import base64
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rehearsal.kubelet import container as container_module
from rehearsal.kubelet import probes
from rehearsal.kubelet.container import Container, Ended
from rehearsal.kubelet.programs import EngineContainer, Program, StandIns, beside_engine, engine_of
from rehearsal.kubelet.sandbox import Sandbox, sandbox
from rehearsal.kubelet.status import pod_status
from rehearsal.resource import RehearsalError
from rehearsal.vllm.faults import Fault

Object = dict[str, Any]
NOW = "2026-01-02T03:04:05Z"
IMAGE = f"vllm/vllm-openai@sha256:{'a' * 64}"
ADDRESS = "10.245.0.2"


def pod(*containers: Object, **spec: Any) -> Object:
    metadata = {
        "name": "glm-1",
        "namespace": "glm",
        "uid": "1-2-3",
        "labels": {"app.kubernetes.io/version": "0.31.0"},
    }
    return {"metadata": metadata, "spec": {"containers": list(containers), **spec}}


def boxed(tmp_path: Path, *containers: Object, ports: Mapping[int, int] | None = None) -> Sandbox:
    return Sandbox(tmp_path, pod(*containers), ports or {8000: 20_001, 8090: 20_002}, ADDRESS)


# --- files and ports ----------------------------------------------------------------------------------------------------


def nothing(*_: str) -> None:
    """There is no object of any name."""


def test_volumes_hold_what_their_config_maps_hold(tmp_path: Path) -> None:
    maps = {
        "programs": {"data": {"gate.run.py": "run", "left-out": "no"}},
        "expectations": {"data": {"expect.json": "{}"}, "binaryData": {"raw": base64.b64encode(b"\0").decode()}},
    }
    items = [{"key": "gate.run.py", "path": "gate/run.py"}]
    volumes = [
        {"name": "programs", "configMap": {"name": "programs", "items": items}},
        {"name": "expectations", "configMap": {"name": "expectations"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    asked: list[tuple[str, str, str]] = []

    def read(kind: str, name: str, namespace: str) -> Object | None:
        asked.append((kind, name, namespace))
        return maps[name]

    sandbox(pod(volumes=volumes), tmp_path, read, ADDRESS)
    assert asked == [("ConfigMap", "programs", "glm"), ("ConfigMap", "expectations", "glm")]
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "volumes/programs/gate/run.py": b"run",
        "volumes/expectations/expect.json": b"{}",
        "volumes/expectations/raw": b"\0",
    }
    assert (tmp_path / "volumes" / "tmp").is_dir()


def test_a_config_map_that_is_not_there(tmp_path: Path) -> None:
    volumes = [{"name": "programs", "configMap": {"name": "glm-programs-1"}}]
    with pytest.raises(RehearsalError) as failed:
        sandbox(pod(volumes=volumes), tmp_path, nothing, ADDRESS)
    assert str(failed.value) == 'MountVolume.SetUp failed for volume "programs": configmap "glm-programs-1" not found'


def test_every_port_is_another_free_one(tmp_path: Path) -> None:
    containers = [
        {"name": "vllm", "ports": [{"containerPort": 8000}]},
        {"name": "gate", "ports": [{"containerPort": 8090}]},
    ]
    boxes = [sandbox(pod(*containers), tmp_path, nothing, ADDRESS) for _ in range(20)]
    ports = [port for box in boxes for port in box.ports.values()]
    assert {tuple(box.ports) for box in boxes} == {(8000, 8090)}
    assert all(20_000 <= port < 30_000 for port in ports)
    assert len(set(ports)) > 30


MOUNTED: Object = {
    "name": "gate",
    "volumeMounts": [
        {"name": "programs", "mountPath": "/opt/glm"},
        {"name": "expectations", "mountPath": "/opt/glm/expect", "subPath": "one.json"},
        {"name": "tmp", "mountPath": "/tmp"},
    ],
}


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("python3", "python3"),
        ("/opt/glm/gate.py", "{box}/volumes/programs/gate.py"),
        ("/opt/glm", "{box}/volumes/programs"),
        ("--path=/opt/glm:/tmp/x", "--path={box}/volumes/programs:{box}/volumes/tmp/x"),
        ("/opt/glm/expect", "{box}/volumes/expectations/one.json"),
        ("/opt/glmx /srv/opt/glm", "/opt/glmx /srv/opt/glm"),
        ("/dev/termination-log", "{box}/gate.last-words"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:20001/v1"),
        ("http://localhost:8000", "http://127.0.0.1:20001"),
        ("0.0.0.0:8090", "127.0.0.1:20002"),
        ("0.0.0.0:80900 8000", "0.0.0.0:80900 8000"),
    ],
)
def test_words_of_a_command_mean_the_same_here(word: str, here: str, tmp_path: Path) -> None:
    expected = here.format(box=tmp_path)
    spec = {**MOUNTED, "command": [word], "args": [word], "env": [{"name": "WORD", "value": word}, {"name": "EMPTY"}]}
    box = boxed(tmp_path, spec)
    assert box.argv(spec) == [expected, expected]
    assert box.env(spec) == {"WORD": expected, "EMPTY": ""}


def test_variables_refer_to_those_before_them(tmp_path: Path) -> None:
    spec = {
        "name": "vllm",
        "command": ["--node-rank", "$(RANK)", "--host=$(HOST)", "$(UNKNOWN)"],
        "env": [
            {"name": "EARLY", "value": "$(RANK)"},
            {"name": "RANK", "value": "1"},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOST", "value": "$(POD_IP)"},
        ],
    }
    box = boxed(tmp_path, spec)
    assert box.env(spec) == {"EARLY": "$(RANK)", "RANK": "1", "POD_IP": ADDRESS, "HOST": ADDRESS}
    assert box.argv(spec) == ["--node-rank", "1", f"--host={ADDRESS}", "$(UNKNOWN)"]
    elsewhere = {**spec, "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}
    with pytest.raises(RehearsalError, match=r"a variable from .*spec\.nodeName.* is not rehearsed"):
        box.env(elsewhere)


def test_an_engine_that_answers_nobody_has_no_port(tmp_path: Path) -> None:
    worker = {key: value for key, value in VLLM.items() if key != "ports"}
    engine = engine_of(worker, boxed(tmp_path, worker), instance_type="p5en.48xlarge", load_seconds=1, grace_seconds=1)
    assert engine.port == 0


def test_a_termination_message_elsewhere(tmp_path: Path) -> None:
    spec = {**MOUNTED, "terminationMessagePath": "/tmp/words", "command": ["/tmp/words", "/tmp/else"]}
    assert boxed(tmp_path, spec).argv(spec) == [f"{tmp_path}/gate.last-words", f"{tmp_path}/volumes/tmp/else"]


def test_working_folder(tmp_path: Path) -> None:
    box = boxed(tmp_path, MOUNTED)
    assert box.working_folder({**MOUNTED, "workingDir": "/opt/glm"}) == tmp_path / "volumes" / "programs"
    assert box.working_folder(MOUNTED) == tmp_path


# --- programs -----------------------------------------------------------------------------------------------------------


VLLM: Object = {
    "name": "vllm",
    "image": IMAGE,
    "command": ["vllm", "serve", "zai-org/GLM-5.2-FP8", "--port", "8000"],
    "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
    "ports": [{"name": "http", "containerPort": 8000}],
}


def test_the_engine_is_the_stand_in_with_the_pods_own_argv(tmp_path: Path) -> None:
    engine = engine_of(VLLM, boxed(tmp_path, VLLM), instance_type="p5en.48xlarge", load_seconds=1200, grace_seconds=345)
    assert engine == EngineContainer(
        command=VLLM["command"],
        env={"HF_HUB_OFFLINE": "1"},
        image=IMAGE,
        engine_version="0.31.0",
        instance_type="p5en.48xlarge",
        port=20_001,
        load_seconds=1200,
        grace_seconds=345,
        rendezvous=tmp_path.parent,
    )
    healthy = StandIns().program(engine, tmp_path)
    words = (
        "-P -m rehearsal.vllm --listen 20001 --instance-type p5en.48xlarge --engine-version 0.31.0 --load-seconds 2.0"
    )
    assert list(healthy.argv[1:]) == [
        *words.split(),
        *("--time-scale", "0.025", "--drain-seconds", "34.5", "--rendezvous", str(tmp_path.parent)),
        "--",
        *VLLM["command"],
    ]
    assert healthy.env["HF_HUB_OFFLINE"] == "1"
    faulty = StandIns({IMAGE: Fault.GIBBERISH}).program(engine, tmp_path)
    assert list(faulty.argv[18:21]) == ["--fault", "gibberish", "--"]


def test_programs_of_ours_run_in_this_python(tmp_path: Path) -> None:
    spec = {**MOUNTED, "command": ["python3", "-m", "gate"], "workingDir": "/opt/glm"}
    program = beside_engine(spec, boxed(tmp_path, spec))
    assert list(program.argv[1:]) == ["-m", "gate"]
    assert program.cwd == tmp_path / "volumes" / "programs"
    with pytest.raises(RehearsalError, match=r"^container gate: \['nginx'\] is no program that a rehearsal can run$"):
        beside_engine({**MOUNTED, "command": ["nginx"]}, boxed(tmp_path, spec))


# --- containers -----------------------------------------------------------------------------------------------------------


@dataclass
class FakeHost:
    """Starts nothing and remembers what it was asked for; a test says how a process ended."""

    started: list[str] = field(default_factory=list[str])
    ended: dict[str, int] = field(default_factory=dict[str, int])
    signals: list[tuple[str, signal.Signals]] = field(default_factory=list[tuple[str, signal.Signals]])

    def run_beside(self, name: str, argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        assert (list(argv), cwd, dict(env)) == (["program"], log.parent, {})
        log.write_text(f"log of {name}\n")
        self.started.append(name)

    def exit_status(self, name: str) -> int | None:
        return self.ended.get(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        self.signals.append((name, number))
        if number == signal.SIGKILL:
            self.ended[name] = -number


@dataclass
class Tended:
    """A container on a fake host, with a clock of its own."""

    container: Container
    host: FakeHost
    ends: list[Ended]
    folder: Path
    now: float = 0.0

    @property
    def process(self) -> str:
        return self.host.started[-1]

    def tend(self, seconds: float = 0.0) -> Object:
        self.now += seconds
        self.container.tend(self.now)
        return self.container.status()

    def end(self, status: int, message: str = "") -> Object:
        """Let the process end, and tend the container."""
        (self.folder / "gate.last-words").write_text(message)
        self.host.ended[self.process] = status
        return self.tend()


Make = Callable[..., Tended]


@pytest.fixture
def tended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(container_module, "timestamp", lambda: NOW)

    def make(**fields: Any) -> Tended:
        spec = {"name": "gate", "image": IMAGE, "ports": [{"name": "gate", "containerPort": 8090}], **fields}
        host, ends = FakeHost(), list[Ended]()
        made = Container(
            spec,
            boxed(tmp_path, spec),
            host,
            lambda: Program(["program"], {}, tmp_path),
            lambda _, end: ends.append(end),
            start_seconds=60.0,
        )
        made.start(0.0)
        return Tended(made, host, ends, tmp_path)

    return make


def test_a_container_without_probes_is_ready_while_it_runs(tended: Make) -> None:
    gate = tended()
    assert gate.tend() == {
        "name": "gate",
        "image": IMAGE,
        "imageID": IMAGE,
        "containerID": f"rehearsal://{gate.folder.name}/gate",
        "restartCount": 0,
        "ready": True,
        "started": True,
        "state": {"running": {"startedAt": NOW}},
        "lastState": {},
    }


def test_the_last_words_of_a_container_and_its_restarts(tended: Make) -> None:
    gate = tended()
    status = gate.end(1, "tools-auto failed: 0 calls\n")
    assert (status["ready"], status["restartCount"]) == (False, 0)
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "message": "tools-auto failed: 0 calls",
        "startedAt": NOW,
        "finishedAt": NOW,
    }
    assert status["lastState"] == {"terminated": ended}
    assert gate.ends == [Ended(1, "tools-auto failed: 0 calls", NOW, NOW)]
    assert gate.tend()["restartCount"] == 1  # at once the first time
    waiting = gate.end(1)["state"]["waiting"]
    assert waiting == {
        "reason": "CrashLoopBackOff",
        "message": "back-off 10s restarting failed container=gate pod=glm-1_glm(1-2-3)",
    }
    # Ten seconds are one here, and every time it takes twice as long, up to five minutes.
    for back_off in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        started = len(gate.host.started)
        gate.tend(back_off - 0.01)
        assert len(gate.host.started) == started
        gate.tend(0.01)
        assert len(gate.host.started) == started + 1
        gate.end(1)
    assert len(set(gate.host.started)) == len(gate.host.started)


@pytest.mark.parametrize(
    ("status", "message", "policy", "expected"),
    [
        (0, "", "FallbackToLogsOnError", (0, "")),
        (1, "words", "FallbackToLogsOnError", (1, "words")),
        (1, "", "FallbackToLogsOnError", (1, "log of the first process")),
        (1, "", "File", (1, "")),
        (-signal.SIGKILL, "", "File", (137, "")),
    ],
)
def test_where_last_words_come_from(
    tended: Make, status: int, message: str, policy: str, expected: tuple[int, str]
) -> None:
    gate = tended(terminationMessagePolicy=policy)
    gate.end(status, message)
    code, words = expected
    said = [(end.exit_code, end.message.replace(gate.process, "the first process")) for end in gate.ends]
    assert said == [(code, words)]


# --- probes ---------------------------------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """What probes get: by path, a status or an error."""

    answers: dict[str, int | str]
    asked: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def get(self, port: int, path: str, timeout_seconds: float) -> tuple[int, bytes] | str:
        assert timeout_seconds == 5
        self.asked.append((port, path))
        answer = self.answers[path]
        return answer if isinstance(answer, str) else (answer, b"words\n")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | str]:
    scripted = Scripted({"/health": "Connection refused", "/ready": 503})
    monkeypatch.setattr(probes, "get", scripted.get)
    return scripted.answers


def probe(path: str, period: int = 10, failures: int = 3) -> Object:
    return {
        "httpGet": {"path": path, "port": "gate"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }


def test_readiness_follows_its_probe_at_its_thresholds(tended: Make, answers: dict[str, int | str]) -> None:
    gate = tended(readinessProbe=probe("/ready", failures=2))
    assert not gate.tend()["ready"]
    answers["/ready"] = 200
    assert not gate.tend(0.5)["ready"]  # not asked again yet: ten seconds are one
    assert gate.tend(0.5)["ready"]
    answers["/ready"] = 500
    assert gate.tend(1.0)["ready"]
    assert not gate.tend(1.0)["ready"]
    assert gate.host.signals == []


def test_liveness_begins_after_the_start_and_ends_what_hangs(tended: Make, answers: dict[str, int | str]) -> None:
    vllm = tended(startupProbe=probe("/health", failures=300), livenessProbe=probe("/health"))
    for _ in range(20):
        assert vllm.tend(1.0)["started"] is False
    answers["/health"] = 200
    assert vllm.tend(1.0)["started"]
    answers["/health"] = "timed out"
    for _ in range(3):
        vllm.tend(1.0)
    assert vllm.host.signals == [(vllm.process, signal.SIGKILL)]
    vllm.tend()
    assert vllm.ends == [Ended(137, "Liveness probe failed: timed out", NOW, NOW)]


def test_what_never_starts_is_ended_after_its_budget(tended: Make, answers: dict[str, int | str]) -> None:
    del answers["/ready"]
    vllm = tended(startupProbe=probe("/health", failures=300))
    vllm.tend(64.9)  # 3,000 s of load are five here; a process has a minute besides
    assert vllm.host.signals == []
    vllm.tend(0.2)
    vllm.tend()
    assert vllm.ends == [Ended(137, "Startup probe failed: Connection refused", NOW, NOW)]


@pytest.mark.usefixtures("answers")
def test_other_probes_are_not_rehearsed(tended: Make) -> None:
    with pytest.raises(RehearsalError, match=r"^container gate: a readinessProbe other than httpGet is not rehearsed$"):
        tended(readinessProbe={"exec": {"command": ["true"]}})


# --- the pod's status -------------------------------------------------------------------------------------------------------


def test_a_pod_from_its_fetch_to_its_readiness(tended: Make, answers: dict[str, int | str]) -> None:
    init = [{"name": "prepare-node", "image": IMAGE}, {"name": "fetch-weights", "image": IMAGE}]
    gate = tended(readinessProbe=probe("/ready"))
    bound = pod(gate.container.spec, initContainers=init)
    bound["status"] = {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "then"}]}
    times = {"address": "10.245.0.2", "started": "start"}
    fetching = pod_status(bound, {}, **times, initialized=None, now="t1")
    blank = {"image": IMAGE, "imageID": "", "restartCount": 0, "ready": False, "started": False}
    unready = {"status": "False", "lastTransitionTime": "t1", "reason": "ContainersNotReady"}
    message = "containers with unready status: [gate]"
    assert fetching == {
        "phase": "Pending",
        "startTime": "start",
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "then"},
            {
                "type": "PodReadyToStartContainers",
                "status": "True",
                "lastTransitionTime": "t1",
                "reason": None,
                "message": None,
            },
            {
                "type": "Initialized",
                "status": "False",
                "lastTransitionTime": "t1",
                "reason": "ContainersNotInitialized",
                "message": "containers with incomplete status: [prepare-node fetch-weights]",
            },
            {"type": "ContainersReady", "message": message, **unready},
            {"type": "Ready", "message": message, **unready},
        ],
        "initContainerStatuses": [
            {"name": "prepare-node", **blank, "ready": True, "state": {"terminated": done("start", "start")}},
            {"name": "fetch-weights", **blank, "started": True, "state": {"running": {"startedAt": "start"}}},
        ],
        "containerStatuses": [{"name": "gate", **blank, "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    running = pod_status(bound | {"status": fetching}, {"gate": gate.container}, **times, initialized="t2", now="t2")
    assert (running["phase"], running["podIP"]) == ("Running", "10.245.0.2")
    assert since(running) == {
        "PodScheduled": ("True", "then"),
        "PodReadyToStartContainers": ("True", "t1"),
        "Initialized": ("True", "t2"),
        "ContainersReady": ("False", "t1"),
        "Ready": ("False", "t1"),
    }
    assert [row["state"] for row in running["initContainerStatuses"]] == [{"terminated": done("start", "t2")}] * 2
    assert running["containerStatuses"] == [gate.container.status()]
    answers["/ready"] = 200
    gate.tend(1.0)
    ready = pod_status(bound | {"status": running}, {"gate": gate.container}, **times, initialized="t2", now="t3")
    assert since(ready)["Ready"] == ("True", "t3")


def done(started: str, finished: str) -> Object:
    return {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": finished}


def since(status: Object) -> dict[str, tuple[str, str]]:
    return {row["type"]: (row["status"], row["lastTransitionTime"]) for row in status["conditions"]}
