"""A stack on an existing cluster, under the real Pulumi CLI and the real Kubernetes provider, on the rehearsal's control plane.

Skipped, with the reason in the summary, where the provider's plugin is not on PATH.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from rehearsal.control_plane import ControlPlane
from rehearsal.run import Rehearsal, load, opened
from rehearsal.timeline import Timeline
from tests.engine.conftest import Project

pytestmark = pytest.mark.skipif(
    shutil.which("pulumi-resource-kubernetes") is None, reason="no pulumi-resource-kubernetes on PATH"
)

STACK = "mine"
SETTINGS = "glm-on-gpus:workloads.glm"


@pytest.fixture
def project_on_the_cluster(project: Project, control_plane: ControlPlane) -> Project:
    """The project with a stack file that names the control plane as its cluster."""
    kubeconfig = project.folder.parent / "kubeconfig"
    control_plane.write_kubeconfig(kubeconfig)
    config = {
        "glm-on-gpus:cluster": {
            "kind": "existing",
            "context": "rehearsal",
            "kubeconfig": str(kubeconfig),
            "installDevicePlugin": True,
        },
        "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5en.48xlarge", "nodes": 1}},
        "glm-on-gpus:workloads": {
            "glm": {"nodePool": "h200", "precision": "fp8", "replicas": 1, "maxModelLen": 131072, "maxNumSeqs": 32},
        },
    }
    (project.folder / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": config}), encoding="utf-8")
    project.succeed("stack", "init", STACK)
    return project


def deployment(rehearsal: Rehearsal) -> dict[str, Any]:
    """Return the workload's Deployment as the API server has it."""
    found = rehearsal.world.cluster.get("apps/v1", "Deployment", "glm", "glm")
    assert found is not None
    return found


def flag(body: Mapping[str, Any], name: str) -> str:
    """Return the value of a flag in the engine's command."""
    command = next(row for row in body["spec"]["template"]["spec"]["containers"] if row["name"] == "vllm")["command"]
    return command[command.index(name) + 1]


def test_from_preview_to_nothing_left(project_on_the_cluster: Project, control_plane: ControlPlane) -> None:
    project = project_on_the_cluster
    plan, settings = load(STACK, (), project.folder)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        rehearsal.join_existing_machines()
        created = project.steps(STACK)
        assert set(created.values()) == {"create"}
        assert {"glm-deployment", "glm-service", "device-plugin-daemonset", "cluster-provider"} <= set(created)

        project.succeed("up", "--stack", STACK, "--yes", "--skip-preview")
        assert deployment(rehearsal)["status"]["readyReplicas"] == 1
        assert flag(deployment(rehearsal), "--max-num-seqs") == "32"
        outputs = json.loads(project.succeed("stack", "output", "--stack", STACK, "--json"))
        assert outputs["endpoints"] == {"glm": "http://glm.glm.svc.cluster.local:8000/v1"}
        assert outputs["kubeconfig"] == "[secret]"

        # What has come up is what the program asks for: no change is planned, and nothing has drifted.
        assert project.steps(STACK, "--expect-no-changes") == {}
        project.succeed("refresh", "--stack", STACK, "--preview-only", "--expect-no-changes")

        project.succeed("config", "set", "--stack", STACK, "--path", f"{SETTINGS}.maxNumSeqs", "16")
        # The component says the command too, for the policy pack.
        assert project.steps(STACK) == {"glm": "update", "glm-deployment": "update"}
        project.succeed("up", "--stack", STACK, "--yes", "--skip-preview")
        assert deployment(rehearsal)["status"]["readyReplicas"] == 1
        assert flag(deployment(rehearsal), "--max-num-seqs") == "16"

        project.succeed("destroy", "--stack", STACK, "--yes", "--skip-preview")
        rehearsal.leave_existing_machines()
        assert rehearsal.left() == []


def test_drift_is_seen(
    project_on_the_cluster: Project, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody changes with kubectl is found by a refresh; an update does not overwrite it unless it is told to."""
    project = project_on_the_cluster
    plan, settings = load(STACK, (), project.folder)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        rehearsal.join_existing_machines()
        project.succeed("up", "--stack", STACK, "--yes", "--skip-preview")
        grace = deployment(rehearsal)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        change = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": grace + 60}}}}
        metadata = {"name": "glm", "namespace": "glm"}
        rehearsal.world.cluster.patch({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, **change})

        found = project.pulumi("refresh", "--stack", STACK, "--preview-only", "--expect-no-changes", "--diff")
        assert found.returncode != 0
        assert "terminationGracePeriodSeconds" in found.stdout

        refused = project.pulumi("up", "--stack", STACK, "--yes", "--skip-preview", "--refresh", "--run-program")
        assert refused.returncode != 0
        assert "conflict with " in refused.stdout
        assert "using apps/v1: .spec.template.spec.terminationGracePeriodSeconds" in refused.stdout

        monkeypatch.setenv("PULUMI_K8S_ENABLE_PATCH_FORCE", "true")
        project.succeed("up", "--stack", STACK, "--yes", "--skip-preview", "--refresh", "--run-program")
        assert deployment(rehearsal)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace
        project.succeed("destroy", "--stack", STACK, "--yes", "--skip-preview")
        rehearsal.leave_existing_machines()
        assert rehearsal.left() == []


def test_a_preview_asks_nothing_of_a_cluster_that_does_not_answer(project_on_no_cluster: Project) -> None:
    said = project_on_no_cluster.succeed("preview", "--stack", "mine", "--diff")
    assert "kubernetes:apps/v1:Deployment" in said
    assert "--gpu-memory-utilization" in said
