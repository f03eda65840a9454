"""A stack on a cluster that exists: its machines are there before the stack, and remain after it.

Without the device plugin it is an example, which test_example_stacks.py rehearses.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from rehearsal.control_plane import ControlPlane
from rehearsal.run import ROOT, load, opened
from rehearsal.timeline import Timeline

STACK = "existing-cluster"
CHANGE = "workloads.glm.maxModelLen=65536"


def test_a_stack_that_brings_the_device_plugin(control_plane: ControlPlane, tmp_path: Path) -> None:
    # Named, but there is no such file: what leads to a cluster of somebody is not read.
    kubeconfig = tmp_path / "kubeconfig"
    around = (
        f"cluster.kubeconfig={kubeconfig}",
        "cluster.installDevicePlugin=true",
        "workloads.glm.replicas=1",
        "nodePools.h200.nodes=1",
    )
    plan, settings = load(STACK, around, ROOT)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        rehearsal.preview()
        rehearsal.update()
        kinds = {created.resource.type for created in rehearsal.engine.created}
        assert not any(kind.startswith("aws:") for kind in kinds)
        assert "kubernetes:apps/v1:DaemonSet" in kinds
        provider = next(row.resource for row in rehearsal.engine.created if row.resource.name == "cluster-provider")
        led = yaml.safe_load(provider.inputs["kubeconfig"])
        assert [row["cluster"]["server"] for row in led["clusters"]] == [control_plane.server]
        assert [row["name"] for row in led["contexts"]] == ["gpu-cluster"]
        changed = {step.resource.name for step in rehearsal.change(*load(STACK, (*around, CHANGE), ROOT))}
        assert "glm-deployment" in changed
        assert "cluster-provider" not in changed
        rehearsal.tear_down()
    assert ("workload glm", "1 of 1 replicas ready at http://glm.glm.svc.cluster.local:8000/v1") in rehearsal.proof
    assert not kubeconfig.exists()


def test_groups_on_a_cluster_that_has_their_controller(control_plane: ControlPlane) -> None:
    around = ("nodePools.h200.efa=true", "workloads.glm.nodesPerReplica=2", "workloads.glm.replicas=1")
    plan, settings = load(STACK, around, ROOT)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        rehearsal.preview()
        rehearsal.update()
        assert not any(created.resource.type.startswith("kubernetes:helm") for created in rehearsal.engine.created)
        rehearsal.tear_down()
    assert ("workload glm", "1 of 1 replicas ready at http://glm.glm.svc.cluster.local:8000/v1") in rehearsal.proof
