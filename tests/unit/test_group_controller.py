"""What the rehearsal, as LeaderWorkerSet controller, makes of an object, and how the nodes of an engine find each other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from rehearsal.groups.pods import headless_service, leader_pod, revision, worker_pods
from rehearsal.groups.schema import definition
from rehearsal.vllm import group

OWNER: dict[str, Any] = {
    "metadata": {"name": "glm-group", "namespace": "glm", "uid": "set-uid"},
    "spec": {
        "replicas": 2,
        "leaderWorkerTemplate": {
            "size": 3,
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": {
                "metadata": {"labels": {"app": "glm"}},
                "spec": {
                    "initContainers": [{"name": "fetch"}],
                    "containers": [{"name": "vllm", "env": [{"name": "MINE", "value": "$(LWS_WORKER_INDEX)"}]}],
                },
            },
            "workerTemplate": {"metadata": {"labels": {"app": "glm"}}, "spec": {"containers": [{"name": "vllm"}]}},
        },
    },
}
LEADER = {"metadata": {"name": "glm-group-1", "namespace": "glm", "uid": "leader-uid"}}


def test_the_first_pod_of_a_group() -> None:
    pod = leader_pod(OWNER, 1)
    assert pod["metadata"] == {
        "name": "glm-group-1",
        "namespace": "glm",
        "labels": {
            "app": "glm",
            "leaderworkerset.sigs.k8s.io/name": "glm-group",
            "leaderworkerset.sigs.k8s.io/group-index": "1",
            "leaderworkerset.sigs.k8s.io/worker-index": "0",
            # The controller's own: SHA-1 of namespace and name of the first pod.
            "leaderworkerset.sigs.k8s.io/group-key": "98b03caaf56652061589e886cc7ee3f92ef043a0",
            "leaderworkerset.sigs.k8s.io/template-revision-hash": revision(OWNER),
        },
        "ownerReferences": [
            {
                "apiVersion": "leaderworkerset.x-k8s.io/v1",
                "kind": "LeaderWorkerSet",
                "name": "glm-group",
                "uid": "set-uid",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("glm-group-1", "glm-group")
    added = [
        {"name": "LWS_LEADER_ADDRESS", "value": "glm-group-1.glm-group.glm"},
        {"name": "LWS_GROUP_SIZE", "value": "3"},
        {"name": "LWS_WORKER_INDEX", "value": "0"},
    ]
    assert pod["spec"]["initContainers"][0]["env"] == added
    assert pod["spec"]["containers"][0]["env"] == [*added, {"name": "MINE", "value": "$(LWS_WORKER_INDEX)"}]


def test_the_other_pods_belong_to_the_first_and_share_its_key() -> None:
    first = leader_pod(OWNER, 1)
    others = list(worker_pods(OWNER, 1, LEADER))
    assert [pod["metadata"]["name"] for pod in others] == ["glm-group-1-1", "glm-group-1-2"]
    for index, pod in enumerate(others, 1):
        assert pod["metadata"]["ownerReferences"][0]["uid"] == "leader-uid"
        labels = pod["metadata"]["labels"]
        differing = {key for key in labels if labels[key] != first["metadata"]["labels"][key]}
        assert differing == {"leaderworkerset.sigs.k8s.io/worker-index"}
        env = {row["name"]: row["value"] for row in pod["spec"]["containers"][0]["env"]}
        assert env["LWS_WORKER_INDEX"] == str(index)
        assert env["LWS_LEADER_ADDRESS"] == "glm-group-1.glm-group.glm"
    assert "env" not in OWNER["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]


def test_pods_find_each_other_before_they_are_ready() -> None:
    spec = headless_service(OWNER)["spec"]
    assert spec == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"leaderworkerset.sigs.k8s.io/name": "glm-group"},
    }


def test_another_template_is_another_revision_and_other_replicas_are_not() -> None:
    more = {**OWNER, "spec": {**OWNER["spec"], "replicas": 5}}
    assert revision(more) == revision(OWNER)
    template = {**OWNER["spec"]["leaderWorkerTemplate"], "size": 2}
    assert revision({**OWNER, "spec": {**OWNER["spec"], "leaderWorkerTemplate": template}}) != revision(OWNER)


def test_the_kind_is_the_controllers() -> None:
    made = definition()
    assert made["metadata"]["name"] == "leaderworkersets.leaderworkerset.x-k8s.io"
    assert [row["name"] for row in made["spec"]["versions"]] == ["v1"]
    assert "status" in made["spec"]["versions"][0]["subresources"]


# --- the nodes of an engine ------------------------------------------------------------------------------------------


def test_an_engine_starts_when_all_its_nodes_are_there(tmp_path: Path) -> None:
    place = tmp_path / "meet"
    gathered, attended = threading.Event(), threading.Event()
    nodes: list[Any] = []

    def first() -> None:
        nodes.extend(group.gather(place, 2))
        gathered.set()

    def other() -> None:
        group.attend(place)
        attended.set()

    threads = [threading.Thread(target=act, daemon=True) for act in (first, other)]
    for thread in threads:
        thread.start()
    last = threading.Thread(target=other, daemon=True)
    assert not gathered.is_set()  # one of two is there at most
    last.start()
    threads[0].join()
    assert gathered.is_set()
    assert not attended.is_set()
    for node in nodes:
        node.close()
    threads[1].join()
    last.join()  # both have seen that the first is gone


def test_the_loss_of_a_node_is_noticed(tmp_path: Path) -> None:
    place, lost = tmp_path / "meet", threading.Event()
    nodes: list[Any] = []
    gathering = threading.Thread(target=lambda: nodes.extend(group.gather(place, 1)), daemon=True)
    gathering.start()
    with group.connected(place):
        gathering.join()
        group.watch(nodes, lost.set)
        assert not lost.is_set()
    assert lost.wait(60)
    for node in nodes:
        node.close()


@pytest.mark.parametrize(
    ("flags", "worker", "others"),
    [({}, False, 0), ({"nnodes": "2", "node-rank": "0"}, False, 1), ({"nnodes": "4", "headless": "true"}, True, 3)],
)
def test_what_a_command_says_of_its_nodes(flags: dict[str, str], worker: bool, others: int) -> None:
    assert (group.is_worker(flags), group.others(flags)) == (worker, others)
