"""The two-node stack on the real control plane: a group is placed, made anew and ready as a whole, or not at all.

The LeaderWorkerSet controller is the real one, as are scheduler, API server and gate; the engines are stand-ins.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from rehearsal.cluster import Cluster, Object
from rehearsal.control_plane import ControlPlane
from rehearsal.groups.names import GROUP_KEY
from rehearsal.rollout import failures
from rehearsal.run import ROOT, Rehearsal, load, opened
from rehearsal.timeline import Timeline

STACK = "h200-bf16-two-nodes"
SET = ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "glm-group", "glm")


@pytest.fixture(scope="module")
def serving(control_plane: ControlPlane) -> Iterator[Rehearsal]:
    """The example's stack with its group ready."""
    plan, settings = load(STACK, [], ROOT)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        rehearsal.preview()
        rehearsal.update()
        yield rehearsal
        rehearsal.tear_down()


def pods(cluster: Cluster) -> dict[str, Object]:
    selector = "app.kubernetes.io/instance=glm"
    return {row["metadata"]["name"]: row for row in cluster.list("v1", "Pod", "glm", label_selector=selector)}


def uids(cluster: Cluster) -> dict[str, str]:
    return {name: row["metadata"]["uid"] for name, row in pods(cluster).items()}


def ready(cluster: Cluster) -> bool:
    return (cluster.get(*SET) or {}).get("status", {}).get("readyReplicas") == 1


def answering(cluster: Cluster) -> list[str]:
    """Return the pods that the Service sends requests to."""
    endpoints = [row for found in cluster.endpoint_slices("glm", "glm") for row in found.get("endpoints") or []]
    return [row["targetRef"]["name"] for row in endpoints if row["conditions"].get("ready")]


def test_the_pods_of_a_group_are_on_different_nodes_of_one_pool(serving: Rehearsal) -> None:
    cluster = serving.world.cluster
    found = pods(cluster)
    assert set(found) == {"glm-group-0", "glm-group-0-1"}
    nodes = {row["metadata"]["name"]: row["metadata"]["labels"] for row in cluster.nodes()}
    places = [nodes[row["spec"]["nodeName"]] for row in found.values()]
    assert len({labels["kubernetes.io/hostname"] for labels in places}) == 2
    for label in ("glm-on-gpus/node-pool", "topology.kubernetes.io/zone"):
        assert len({labels[label] for labels in places}) == 1
    # The report says so, too; the group may have changed places since.
    said = [text for topic, text in serving.proof if topic == "group"]
    first, second = (f"h200-nodes-ad32bac-{number}" for number in (0, 1))
    assert said in (
        [f"glm-group-0 on {first}, glm-group-0-1 on {second}"],
        [f"glm-group-0 on {second}, glm-group-0-1 on {first}"],
    )


def test_only_the_first_pod_gets_requests(serving: Rehearsal) -> None:
    cluster = serving.world.cluster
    cluster.wait(lambda: answering(cluster) == ["glm-group-0"], "the endpoint is not the group's first pod")


@pytest.mark.parametrize("lost", ["glm-group-0-1", "glm-group-0"])
def test_a_group_that_loses_a_pod_is_made_anew_as_a_whole(serving: Rehearsal, lost: str) -> None:
    cluster = serving.world.cluster
    cluster.wait(lambda: ready(cluster), "the group is not ready")
    before = uids(cluster)
    cluster.ask_to_end(lost, "glm")
    cluster.wait(
        lambda: not set(uids(cluster).values()) & set(before.values()), "a pod of the old group is still there"
    )
    cluster.wait(lambda: set(uids(cluster)) == set(before), "the group was not made anew")
    cluster.wait(lambda: ready(cluster), "the new group is not ready")


def test_an_engine_that_loses_a_node_ends_and_the_group_with_it(
    serving: Rehearsal, control_plane: ControlPlane
) -> None:
    """The second node's process is killed: the first node's ends by itself, and no container starts alone."""
    cluster = serving.world.cluster
    cluster.wait(lambda: ready(cluster), "the group is not ready")
    before = uids(cluster)
    control_plane.signal(f"glm-group-0-1.{before['glm-group-0-1'][:8]}/vllm#0", signal.SIGKILL)
    cluster.wait(
        lambda: not set(uids(cluster).values()) & set(before.values()), "a pod of the old group is still there"
    )
    cluster.wait(lambda: ready(cluster), "the new group is not ready")


def test_half_a_group_never_becomes_ready(serving: Rehearsal) -> None:
    """One of two nodes takes no pods: the first pod waits for the other until its startup probe gives up, and again."""
    cluster = serving.world.cluster
    cluster.wait(lambda: ready(cluster), "the group is not ready")
    second = pods(cluster)["glm-group-0-1"]["spec"]["nodeName"]
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": second}}
    before = uids(cluster)

    def given_up() -> bool:
        assert not ready(cluster)
        assert answering(cluster) == []
        said = [words for row in pods(cluster).values() for words in failures(row)]
        return any("Startup probe failed" in words for words in said)

    cluster.patch({**node, "spec": {"unschedulable": True}})
    try:
        cluster.ask_to_end("glm-group-0-1", "glm")
        cluster.wait(lambda: not set(uids(cluster).values()) & set(before.values()), "the old group is still there")
        cluster.wait(lambda: not ready(cluster) and not answering(cluster), "the old group is still counted on")
        cluster.wait(
            lambda: _phases(cluster) == ["Pending", "Running"], lambda: f"not half a group: {_phases(cluster)}"
        )
        cluster.wait(given_up, "the startup probe did not give up")
    finally:
        cluster.patch({**node, "spec": {"unschedulable": None}})
    cluster.wait(lambda: ready(cluster), "the whole group is not ready")


def _phases(cluster: Cluster) -> list[str]:
    return sorted(row["status"].get("phase", "") for row in pods(cluster).values())


def test_all_pods_of_a_group_carry_its_key(serving: Rehearsal) -> None:
    assert len({row["metadata"]["labels"][GROUP_KEY] for row in pods(serving.world.cluster).values()}) == 1
