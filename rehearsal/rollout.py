"""Waiting for what keeps pods (Deployment, DaemonSet, LeaderWorkerSet) as Pulumi does, and saying why it will not come up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rehearsal.cluster import Cluster
from rehearsal.groups.pods import SET_NAME
from rehearsal.placement import pod_template, why_not_placed
from rehearsal.resource import RehearsalError
from rehearsal.scale import TIME_SCALE

# How long a pod may stay unschedulable after the cluster last changed. The real scheduler tries again at every change of a
# node within a second or two.
_SETTLED_SECONDS = 6.0

_REVISION = "deployment.kubernetes.io/revision"

Object = dict[str, Any]


def wait_until_ready(cluster: Cluster, body: Object, label: str) -> None:
    """Wait until an object that keeps pods runs as it says; other kinds are not waited for."""
    if body["kind"] in _READY:
        cluster.touch()
        rollout = _Rollout(cluster, body, label)
        cluster.wait(rollout.done, rollout.why_not)


@dataclass
class _Rollout:
    cluster: Cluster
    body: Object
    label: str
    _progress: tuple[int, ...] = ()
    _progressed: float = field(default_factory=time.monotonic)

    def done(self) -> bool:
        """Whether everything is ready; raise `RehearsalError` once it is clear that it never will be."""
        metadata = self.body["metadata"]
        current = self.cluster.get(
            self.body["apiVersion"], self.body["kind"], metadata["name"], metadata.get("namespace")
        )
        if current is None:
            raise RehearsalError(f"{self.label}: was deleted while it was waited for")
        if _READY[current["kind"]](current):
            return True
        self._fail_if_refused(current)
        self._fail_if_stopped(current)
        if self.cluster.settled(_SETTLED_SECONDS):
            self._fail_if_unplaced(current)
        return False

    def why_not(self) -> str:
        """Return the sentence for a deadline that has passed."""
        pods = self._pods(self.body)
        states = "; ".join(f"pod {p['metadata']['name']} is {p['status'].get('phase')}" for p in pods)
        return f"{self.label}: is not ready: {states or 'it has no pod'}"

    def _fail_if_refused(self, current: Object) -> None:
        for condition in current.get("status", {}).get("conditions") or []:
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                raise RehearsalError(f"{self.label}: {condition['message']}")
            if condition.get("reason") in {"PodRefused", "GroupFails"}:
                raise RehearsalError(f"{self.label}: {condition['message']}")

    def _fail_if_stopped(self, current: Object) -> None:
        """Fail if containers of new pods fail and nothing has moved for the Deployment's progress deadline."""
        deadline = current["spec"].get("progressDeadlineSeconds")
        if deadline is None:
            return
        status = current.get("status", {})
        progress = tuple(status.get(key, 0) for key in ("updatedReplicas", "readyReplicas", "availableReplicas"))
        if progress != self._progress:
            self._progress, self._progressed = progress, time.monotonic()
        if time.monotonic() - self._progressed < deadline * TIME_SCALE:
            return
        pods = [pod for pod in self._pods(current) if _is_new(pod, self._new_template_hash(current))]
        for pod in pods:
            words = "; ".join(failures(pod))
            if words:
                raise RehearsalError(f"{self.label}: {self._stopped_at(pod, pods, current)}: {words}")

    def _stopped_at(self, pod: Object, pods: list[Object], current: Object) -> str:
        name, replicas = pod["metadata"]["name"], current["spec"]["replicas"]
        if replicas == 1:
            return f"pod {name} does not become ready"
        return f"the rollout stopped at {len(pods)} of {replicas} pods, {name} does not become ready"

    def _new_template_hash(self, current: Object) -> str | None:
        sets = [row for row in self._owned(current, "apps/v1", "ReplicaSet") if _owned_by(row, current)]
        newest = max(sets, key=lambda row: int(row["metadata"]["annotations"].get(_REVISION, 0)), default=None)
        return newest["metadata"]["labels"]["pod-template-hash"] if newest else None

    def _fail_if_unplaced(self, current: Object) -> None:
        nodes = self.cluster.nodes()
        if current["kind"] == "DaemonSet" and current.get("status", {}).get("desiredNumberScheduled", 0) == 0:
            reason = why_not_placed(pod_template(current), nodes)
            raise RehearsalError(f"{self.label}: runs on none of {len(nodes)} nodes: {reason}")
        for pod, said in _unschedulable(self._pods(current)):
            raise RehearsalError(f"{self.label}: cannot be scheduled: {why_not_placed(pod, nodes)} (scheduler: {said})")

    def _pods(self, owner: Object) -> list[Object]:
        return self._owned(owner, "v1", "Pod")

    def _owned(self, owner: Object, api_version: str, kind: str) -> list[Object]:
        labels = _selector(owner)
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return self.cluster.list(api_version, kind, owner["metadata"].get("namespace"), label_selector=selector)


def failures(pod: Object) -> Iterator[str]:
    """Yield what every container of a pod that is not ready has said when it failed, or why it cannot be started."""
    for row in pod.get("status", {}).get("containerStatuses") or []:
        state = row.get("state") or {}
        ended = state.get("terminated") or (row.get("lastState") or {}).get("terminated")
        if row.get("ready"):
            continue
        if ended and ended["exitCode"] != 0:
            lines = (ended.get("message") or f"ended with exit code {ended['exitCode']} without a word").splitlines()
            yield f"container {row['name']}: {'; '.join(line.strip() for line in lines if line.strip())}"
        elif (state.get("waiting") or {}).get("message"):
            yield f"container {row['name']}: {state['waiting']['message']}"


def _selector(owner: Object) -> Mapping[str, str]:
    if owner["kind"] == "LeaderWorkerSet":
        return {SET_NAME: owner["metadata"]["name"]}
    return owner["spec"]["selector"]["matchLabels"]


def _unschedulable(pods: list[Object]) -> Iterator[tuple[Object, str]]:
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield pod, condition.get("message", "")


def _is_new(pod: Object, template_hash: str | None) -> bool:
    return pod["metadata"]["labels"].get("pod-template-hash") == template_hash


def _owned_by(row: Object, owner: Object) -> bool:
    references = row["metadata"].get("ownerReferences") or []
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in references)


def _deployment_ready(current: Object) -> bool:
    """Whether the new pods are available and the old ones gone."""
    status, wanted = current.get("status", {}), current["spec"]["replicas"]
    return status.get("observedGeneration", 0) >= current["metadata"]["generation"] and all(
        status.get(key, 0) == wanted for key in ("replicas", "updatedReplicas", "availableReplicas")
    )


def _daemon_set_ready(current: Object) -> bool:
    """A DaemonSet on no node counts as complete for Kubernetes; here it does not."""
    status = current.get("status", {})
    wanted = status.get("desiredNumberScheduled", 0)
    return (
        status.get("observedGeneration", 0) >= current["metadata"]["generation"]
        and wanted > 0
        and status.get("numberReady", 0) == wanted
        and status.get("updatedNumberScheduled", 0) == wanted
    )


def _groups_ready(current: Object) -> bool:
    """What the stack has Pulumi wait for: as many ready groups as there are to be."""
    return current.get("status", {}).get("readyReplicas", 0) == current["spec"]["replicas"]


_READY = {"Deployment": _deployment_ready, "DaemonSet": _daemon_set_ready, "LeaderWorkerSet": _groups_ready}
