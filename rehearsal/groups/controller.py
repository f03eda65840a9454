"""The controller's part: groups that are missing are made, groups that have lost a pod are made anew as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from kubernetes.client.exceptions import ApiException

from rehearsal.cluster import Cluster
from rehearsal.groups.pods import GROUP_INDEX, REVISION, SET_NAME, headless_service, leader_pod, revision, worker_pods
from rehearsal.groups.schema import API_VERSION, CRD_NAME, KIND, definition
from rehearsal.rollout import failures

_LOOK_SECONDS = 0.2
# How often a group may be made anew for containers that fail before its object says that it will not come up.
_TRIES = 3

Object = dict[str, Any]


class GroupController:
    """Plays the LeaderWorkerSet controller from `install` to `uninstall`."""

    def __init__(self, cluster: Cluster, tell: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._tell = tell
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._pods: dict[tuple[str, str, int], set[str]] = {}
        self._restarts: dict[tuple[str, str], tuple[int, str]] = {}

    @property
    def installed(self) -> bool:
        """Whether its part has been played since the rehearsal began."""
        return self._thread is not None

    def install(self, label: str) -> None:
        """Let the API server know the kind, and begin to look after objects of it."""
        self._cluster.apply(definition(), label)
        self._cluster.wait(self._is_served, f"{label}: the API server does not serve {API_VERSION} {KIND}")
        self._cluster.look_for_kinds()
        self._thread = threading.Thread(target=self._run, name="leader-worker-sets", daemon=True)
        self._thread.start()

    def uninstall(self, label: str) -> None:
        """Stop, and take the kind away with all objects of it."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._cluster.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", CRD_NAME, None, label)
        self._cluster.look_for_kinds()

    def _is_served(self) -> bool:
        found = self._cluster.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", CRD_NAME) or {}
        conditions = found.get("status", {}).get("conditions") or []
        return any(row["type"] == "Established" and row["status"] == "True" for row in conditions)

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS) and not self._cluster.stopping.is_set():
            with self._cluster.unless_stopped():
                for owner in self._cluster.list(API_VERSION, KIND):
                    if not owner["metadata"].get("deletionTimestamp"):
                        self._reconcile(owner)

    def _reconcile(self, owner: Object) -> None:
        metadata, problem = owner["metadata"], ""
        try:
            if self._cluster.get("v1", "Service", metadata["name"], metadata["namespace"]) is None:
                self._cluster.create(headless_service(owner))
            groups = {index: self._group(owner, index) for index in range(owner["spec"]["replicas"])}
            for index, pods in groups.items():
                self._look_after(owner, index, pods)
            self._update_one(owner, groups)
        except ApiException as error:
            problem = f"a pod is refused: {error.body or error.reason}"
            groups = {}
        self._say(owner, groups, problem)

    def _group(self, owner: Object, index: int) -> list[Object]:
        metadata = owner["metadata"]
        selector = f"{SET_NAME}={metadata['name']},{GROUP_INDEX}={index}"
        return self._cluster.list("v1", "Pod", metadata["namespace"], label_selector=selector)

    def _look_after(self, owner: Object, index: int, pods: list[Object]) -> None:
        metadata = owner["metadata"]
        key = (metadata["namespace"], metadata["name"], index)
        if not pods:
            self._pods[key] = set(self._make(owner, index))
            return
        lost = self._pods.get(key, set()) - {pod["metadata"]["uid"] for pod in pods}
        broken = [pod for pod in pods if _has_restarted(pod) or pod["metadata"].get("deletionTimestamp")]
        if owner["spec"]["leaderWorkerTemplate"]["restartPolicy"] == "None" or not (lost or broken):
            return
        if any(not pod["metadata"].get("deletionTimestamp") for pod in pods):
            self._note_restart(owner, index, broken)
        self._delete(pods)

    def _make(self, owner: Object, index: int) -> Iterator[str]:
        leader = leader_pod(owner, index)
        self._cluster.create(leader)
        metadata = leader["metadata"]
        made = self._cluster.get("v1", "Pod", metadata["name"], metadata["namespace"])
        if made is None:
            return
        yield made["metadata"]["uid"]
        for pod in worker_pods(owner, index, made):
            self._cluster.create(pod)
            worker = self._cluster.get("v1", "Pod", pod["metadata"]["name"], metadata["namespace"])
            if worker is not None:
                yield worker["metadata"]["uid"]

    def _delete(self, pods: list[Object]) -> None:
        for pod in pods:
            metadata = pod["metadata"]
            if not metadata.get("deletionTimestamp"):
                with self._cluster.unless_stopped():
                    self._cluster.ask_to_end(metadata["name"], metadata["namespace"])

    def _note_restart(self, owner: Object, index: int, broken: list[Object]) -> None:
        words = "; ".join(word for pod in broken for word in failures(pod)) or "one of its pods is gone"
        key = (owner["metadata"]["namespace"], owner["metadata"]["name"])
        count, _ = self._restarts.get(key, (0, ""))
        self._restarts[key] = (count + 1, words)
        self._tell("groups", f"{owner['metadata']['name']}-{index} is made anew as a whole: {words[:160]}")

    def _update_one(self, owner: Object, groups: dict[int, list[Object]]) -> None:
        """Take one group of an older template down, from the last to the first, while all others are ready."""
        current, size = revision(owner), owner["spec"]["leaderWorkerTemplate"]["size"]
        old = [index for index, pods in groups.items() if any(_revision(pod) != current for pod in pods)]
        others_ready = all(_is_ready(pods, size) for index, pods in groups.items() if index not in old[-1:])
        if old and others_ready:
            self._delete(groups[old[-1]])

    def _say(self, owner: Object, groups: dict[int, list[Object]], problem: str) -> None:
        metadata = owner["metadata"]
        size, current = owner["spec"]["leaderWorkerTemplate"]["size"], revision(owner)
        count, words = self._restarts.get((metadata["namespace"], metadata["name"]), (0, ""))
        conditions = (
            [{"type": "Progressing", "status": "True", "reason": "PodRefused", "message": problem}] if problem else []
        )
        if count:
            message = f"made anew {count} times, the last time for: {words}"
            reason = "GroupFails" if count >= _TRIES else "GroupRecreated"
            conditions.append({"type": "Progressing", "status": "True", "reason": reason, "message": message})
        status = {
            "replicas": len([pods for pods in groups.values() if pods]),
            "readyReplicas": sum(_is_ready(pods, size) for pods in groups.values()),
            "updatedReplicas": sum(
                bool(pods) and all(_revision(p) == current for p in pods) for pods in groups.values()
            ),
            "conditions": conditions,
        }
        if status != {key: owner.get("status", {}).get(key) for key in status}:
            place = {"name": metadata["name"], "namespace": metadata["namespace"]}
            body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": place, "status": status}
            self._cluster.patch(body, status=True)


def _is_ready(pods: list[Object], size: int) -> bool:
    """Whether all pods of a group are there and ready: half a group is none."""
    return len(pods) == size and all(_pod_ready(pod) for pod in pods)


def _pod_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)


def _revision(pod: Object) -> str:
    return pod["metadata"]["labels"].get(REVISION, "")


def _has_restarted(pod: Object) -> bool:
    status = pod.get("status", {})
    rows = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return any(row["restartCount"] > 0 for row in rows)
