"""Whole rehearsals as a user runs them: as a process, with its exit code, what it prints and what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from rehearsal.run import ROOT
from tests.fixtures.rehearsals import LIMIT_SECONDS, command, processes_of, rehearse


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
        *["ValidatingAdmissionPolicy"] * 5,
        *["ValidatingAdmissionPolicyBinding"] * 5,
    ]
