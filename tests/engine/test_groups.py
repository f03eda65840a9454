"""A replica on two nodes under the real Pulumi CLI: what it waits for, on the rehearsal's control plane and the real controller.

Skipped, with the reason in the summary, where the provider's plugin is not on PATH.
"""

from __future__ import annotations

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

STACK = "two"
SETTINGS = "glm-on-gpus:workloads.glm"


@pytest.fixture
def project_with_a_group(project: Project, control_plane: ControlPlane) -> Project:
    """The project with a stack file of one BF16 replica on two machines of the control plane."""
    kubeconfig = project.folder.parent / "kubeconfig"
    control_plane.write_kubeconfig(kubeconfig)
    config = {
        "glm-on-gpus:cluster": {"kind": "existing", "context": "rehearsal", "kubeconfig": str(kubeconfig)},
        "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5en.48xlarge", "nodes": 2, "efa": True}},
        "glm-on-gpus:workloads": {
            "glm": {
                "nodePool": "h200",
                "precision": "bf16",
                "replicas": 1,
                "nodesPerReplica": 2,
                "maxModelLen": 131072,
                "maxNumSeqs": 32,
            },
        },
    }
    (project.folder / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": config}), encoding="utf-8")
    project.succeed("stack", "init", STACK)
    return project


def serving(rehearsal: Rehearsal) -> dict[str, tuple[bool, str]]:
    """Return for each pod of the group whether it is ready, and its --max-num-seqs."""
    pods = rehearsal.world.cluster.list("v1", "Pod", "glm", label_selector="app.kubernetes.io/instance=glm")
    return {pod["metadata"]["name"]: (is_ready(pod), flag(pod, "--max-num-seqs")) for pod in pods}


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)


def flag(pod: Mapping[str, Any], name: str) -> str:
    command = next(row for row in pod["spec"]["containers"] if row["name"] == "vllm")["command"]
    return command[command.index(name) + 1]


def test_an_update_is_done_when_the_new_group_is_ready(
    project_with_a_group: Project, control_plane: ControlPlane
) -> None:
    project = project_with_a_group
    plan, settings = load(STACK, (), project.folder)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        rehearsal.join_existing_machines()
        created = project.steps(STACK)
        assert {"glm-leader-worker-set", "glm-groups"} <= set(created)

        project.succeed("up", "--stack", STACK, "--yes", "--skip-preview")
        assert serving(rehearsal) == {"glm-group-0": (True, "32"), "glm-group-0-1": (True, "32")}
        assert project.steps(STACK, "--expect-no-changes") == {}
        project.succeed("refresh", "--stack", STACK, "--preview-only", "--expect-no-changes")

        # The old group is ready when the update begins, and the set's status says so for a moment longer.
        project.succeed("config", "set", "--stack", STACK, "--path", f"{SETTINGS}.maxNumSeqs", "16")
        assert project.steps(STACK) == {"glm": "update", "glm-leader-worker-set": "update", "glm-groups": "update"}
        project.succeed("up", "--stack", STACK, "--yes", "--skip-preview")
        assert serving(rehearsal) == {"glm-group-0": (True, "16"), "glm-group-0-1": (True, "16")}
        assert project.steps(STACK, "--expect-no-changes") == {}

        project.succeed("destroy", "--stack", STACK, "--yes", "--skip-preview")
        rehearsal.leave_existing_machines()
        assert rehearsal.left() == []
