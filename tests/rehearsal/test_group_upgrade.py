"""An upgrade of replicas on several nodes: Pulumi waits for the new groups, and a bad image stops at its first group."""

from __future__ import annotations

import pytest

from rehearsal.cluster import Object
from rehearsal.control_plane import ControlPlane
from rehearsal.kubelet.programs import StandIns
from rehearsal.run import ROOT, load
from rehearsal.upgrade import Upgrade
from rehearsal.vllm.faults import Fault
from tests.fixtures.rehearsals import brought_up, rehearse

STACK = "h200-bf16-two-nodes"
FOUR_NODES = ("nodePools.h200.nodes=4", "workloads.glm.replicas=2")
SIX_NODES = ("nodePools.h200.nodes=6", "workloads.glm.replicas=2")
OTHER_IMAGE = f"vllm/vllm-openai@sha256:{'e' * 64}"
TO_ANOTHER_IMAGE = (*FOUR_NODES, f"workloads.glm.image={OTHER_IMAGE}")


def pods_of(upgrade: Upgrade) -> list[Object]:
    return upgrade.rehearsal.world.cluster.list("v1", "Pod", "glm", label_selector="app.kubernetes.io/instance=glm")


@pytest.mark.usefixtures("nothing_left")
def test_a_bad_image_stops_at_the_only_group_and_the_way_back_succeeds() -> None:
    result = rehearse("upgrade", "--stack", STACK, "--serving-fault", "required-repeats")
    assert result.returncode == 0, result.stdout + result.stderr
    said = " ".join(result.stdout.split())
    assert (
        "upgrade fails: kubernetes:apps/v1:StatefulSetPatch glm-groups: pod glm-group-0 does not become ready: container gate: "
        "tools-required failed: "
    ) in said
    assert "upgrade is undone, the stack is as it was" in said


def test_a_new_group_starts_on_spare_nodes_and_the_old_ones_follow(control_plane: ControlPlane) -> None:
    with brought_up(control_plane, STACK, SIX_NODES) as upgrade:
        with upgrade.watched():
            upgrade.go_through(*load(STACK, (*SIX_NODES, f"workloads.glm.image={OTHER_IMAGE}"), ROOT))
        pods = pods_of(upgrade)
    assert {row["metadata"]["name"]: row["spec"]["containers"][0]["image"] for row in pods} == dict.fromkeys(
        ("glm-group-0", "glm-group-0-1", "glm-group-1", "glm-group-1-1"), OTHER_IMAGE
    )
    assert all(container["ready"] for row in pods for container in row["status"]["containerStatuses"])
    assert not any(row["metadata"].get("deletionTimestamp") for row in pods)


@pytest.mark.parametrize("fault", [None, Fault.REQUIRED_REPEATS])
def test_one_group_answers_while_the_other_is_replaced(control_plane: ControlPlane, fault: Fault | None) -> None:
    before, settings = load(STACK, FOUR_NODES, ROOT)
    after, new_settings = load(STACK, TO_ANOTHER_IMAGE, ROOT)
    servers = StandIns({OTHER_IMAGE: fault} if fault else {})
    with brought_up(control_plane, STACK, FOUR_NODES, servers) as upgrade:
        with upgrade.watched():
            if fault is None:
                upgrade.go_through(after, new_settings)
            else:
                upgrade.stop_and_go_back(fault, after, new_settings, before, settings)
        pods = pods_of(upgrade)
    assert {row["metadata"]["name"] for row in pods} == {
        *("glm-group-0", "glm-group-0-1"),
        *("glm-group-1", "glm-group-1-1"),
    }
    (plan,) = (before if fault else after).workloads.values()
    engines = [container["image"] for row in pods for container in row["spec"]["containers"]]
    assert set(engines) == {plan.image}
    (tally,) = (text for topic, text in upgrade.rehearsal.proof if topic == "client of glm")
    assert " 0 failed" in tally
    assert "found no ready pod" not in tally
