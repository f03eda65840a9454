"""Whole rehearsals as a user runs them: as a process, with its exit code, what it prints and what it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from rehearsal.control_plane import Programs
from rehearsal.run import ROOT

LIMIT_SECONDS = 300


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rehearsal", *arguments]


def rehearse(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )


def work_tree() -> str:
    """What git sees of the work tree: changes and files it does not ignore."""
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def processes_of(folder: Path) -> set[str]:
    """The commands that name a folder: every program of a control plane names its temporary one."""
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if any(str(folder) in word for word in words):
                    found.add(f"{entry.name} {words[0]}")
    return found


@pytest.fixture
def scratch(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for everything temporary of a rehearsal; short, because sockets lie in it. Needs the programs built."""
    assert programs.complete()
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def nothing_left(scratch: Path) -> Iterator[None]:
    """Check that a test leaves no process, no temporary file and nothing in the work tree."""
    tree = work_tree()
    yield
    assert processes_of(scratch) == set()
    assert list(scratch.iterdir()) == []
    assert work_tree() == tree


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("stack", "replicas", "machine"), [("prod", 2, "p6-b200.48xlarge"), ("dev", 1, "p5en.48xlarge")]
)
def test_a_stack_is_rehearsed(stack: str, replicas: int, machine: str) -> None:
    result = rehearse("up", "--stack", stack)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    lines = " ".join(result.stdout.split())
    assert f"{replicas} x {machine} joined" in lines
    assert f"{replicas} of {replicas} replicas ready at http://glm.glm.svc.cluster.local:8000/v1" in lines
    assert "nothing is left" in lines
    assert f"✓ stack {stack} is rehearsed" in lines


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("line", ["setup", "preview", "pods"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process(line: str, number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command("up", "--stack", "dev"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    for printed in process.stdout:
        if f" {line} " in printed:
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 130
    assert errors == "interrupted: everything that was started has been stopped\n"


@pytest.mark.usefixtures("nothing_left")
def test_a_refused_plan_starts_nothing() -> None:
    result = rehearse("up", "--stack", "dev", "--set", "workloads.glm.precision=bf16")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(
        "stack dev is refused:\n  workloads.glm: bf16-one-node: BF16 needs 178.8 GiB of weights"
    )
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("nothing_left")
def test_bad_input_is_one_sentence() -> None:
    result = rehearse("up", "--stack", "dev", "--set", "workloads.glm.replica=2")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Pulumi.dev.yaml: workloads.glm.replica: unknown key; allowed are ")
    assert result.stderr.endswith("did you mean replicas?\n")


def test_keep_leaves_the_cluster_up_until_down(scratch: Path) -> None:
    try:
        result = rehearse("up", "--stack", "dev", "--keep")
        assert result.returncode == 0, result.stdout + result.stderr
        assert processes_of(scratch) != set()
        kubeconfig = result.stdout.partition("export KUBECONFIG=")[2].split()[0]
        with config.new_client_from_config(kubeconfig) as api:
            deployment = client.AppsV1Api(api).read_namespaced_deployment("glm", "glm")
        assert deployment.status is not None
        assert deployment.status.available_replicas == 1
    finally:
        ended = rehearse("down")
    assert ended.stdout == "1 kept cluster ended\n"
    assert processes_of(scratch) == set()
    assert rehearse("down").stdout == "no kept cluster runs\n"


def test_render_writes_every_object() -> None:
    result = rehearse("render", "--stack", "prod")
    assert result.returncode == 0, result.stderr
    kinds = sorted(document["kind"] for document in yaml.safe_load_all(result.stdout))
    assert kinds == [
        "ConfigMap",
        "ConfigMap",
        "DaemonSet",
        "Deployment",
        "Namespace",
        "Namespace",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    ]
