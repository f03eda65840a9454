"""The program under the real Pulumi CLI, with a backend in a folder. Runs only where `pulumi` is on PATH (make engine-tests).

What needs no provider plugin is refused or accepted before one is asked for; the preview of a stack on an existing cluster
needs the Kubernetes plugin and is skipped, with the reason in the summary, where that is not on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from rehearsal.run import ROOT

LIMIT_SECONDS = 300


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what git would track, because the CLI writes into stack files, with this virtual environment."""
    folder = tmp_path / "project"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, tracked.split("\0")):
        source = ROOT / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def pulumi(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    state = project.parent / "state"
    state.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_HOME": str(project.parent / "home"),
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
    }
    return subprocess.run(
        ["pulumi", "--non-interactive", "--color", "never", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


def succeed(project: Path, *arguments: str) -> str:
    result = pulumi(project, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_a_refused_plan_says_why_and_registers_nothing(project: Path, stack: str) -> None:
    succeed(project, "stack", "init", stack)
    succeed(project, "config", "set", "--stack", stack, "--path", "glm-on-gpus:workloads.glm.precision", "bf16")
    result = pulumi(project, "preview", "--stack", stack)
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "workloads.glm: bf16-one-node: BF16 needs 178.8 GiB of weights on each GPU of one 8x" in said
    assert "Traceback" not in said
    assert "aws:" not in said.replace("aws:region", "")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "workloads.glm.maxModelLne",
            "131072",
            "Pulumi.dev.yaml: workloads.glm.maxModelLne: unknown key; allowed are",
        ),
        (
            "workload.glm.replicas",
            "1",
            "Pulumi.dev.yaml: glm-on-gpus:workload: unknown key; allowed are cluster, nodePools",
        ),
        (
            "workloads.glm.maxModelLen",
            "128k",
            "Pulumi.dev.yaml: workloads.glm.maxModelLen: '128k' is not allowed; expected",
        ),
        (
            "nodePools.h200.nodes",
            "-1",
            "Pulumi.dev.yaml: nodePools.h200.nodes: -1 is not allowed; expected a whole number",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(project: Path, path: str, value: str, said: str) -> None:
    succeed(project, "stack", "init", "dev")
    succeed(project, "config", "set", "--stack", "dev", "--path", f"glm-on-gpus:{path}", "--", value)
    result = pulumi(project, "preview", "--stack", "dev")
    assert result.returncode != 0
    assert said in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.skipif(shutil.which("pulumi-resource-kubernetes") is None, reason="no pulumi-resource-kubernetes on PATH")
def test_a_preview_on_an_existing_cluster(project: Path) -> None:
    kubeconfig = project.parent / "kubeconfig"
    context = {"name": "mine", "context": {"cluster": "c", "user": "u"}}
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    kubeconfig.write_text(
        yaml.safe_dump(
            {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": users}
        ),
        encoding="utf-8",
    )
    config = {
        "glm-on-gpus:cluster": {"kind": "existing", "context": "mine", "kubeconfig": str(kubeconfig)},
        "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5en.48xlarge", "nodes": 1}},
        "glm-on-gpus:workloads": {
            "glm": {
                "nodePool": "h200",
                "precision": "fp8",
                "replicas": 1,
                "maxModelLen": 131072,
                "gpuMemoryUtilization": 0.9,
            }
        },
    }
    (project / "Pulumi.mine.yaml").write_text(yaml.safe_dump({"config": config}), encoding="utf-8")
    succeed(project, "stack", "init", "mine")
    said = succeed(project, "preview", "--stack", "mine", "--diff")
    assert "kubernetes:apps/v1:Deployment" in said
    assert "--gpu-memory-utilization" in said
