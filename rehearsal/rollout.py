"""Waiting for what keeps pods as Pulumi does, and saying why it will not come up."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rehearsal.cluster import Cluster
from rehearsal.groups.names import KIND, REVISION, SET_NAME, WORKER_INDEX
from rehearsal.placement import pod_template, why_not_placed
from rehearsal.resource import RehearsalError
from rehearsal.scale import TIME_SCALE
from rehearsal.wait_for import Condition, conditions

# How long a pod may stay unschedulable after the cluster last changed. The real scheduler tries again at every change of a
# node within a second or two.
_SETTLED_SECONDS = 6.0

# How often a group may be made anew for containers that fail before it is clear that it will not come up: one that starts while
# another goes may fail once.
_TRIES = 3

_REVISION = "deployment.kubernetes.io/revision"

Object = dict[str, Any]


def wait_until_ready(cluster: Cluster, body: Object, label: str) -> None:
    """Wait until an object that keeps pods runs as it says, or as its annotation for Pulumi does; others are not waited for."""
    awaited = conditions(body, label)
    if awaited or body["kind"] in _READY:
        cluster.touch()
        rollout = _Rollout(cluster, body, label, awaited)
        cluster.wait(rollout.done, rollout.why_not)


@dataclass
class _Rollout:
    cluster: Cluster
    body: Object
    label: str
    awaited: list[Condition]
    _progress: tuple[int, ...] = ()
    _progressed: float = field(default_factory=time.monotonic)
    _began: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    _failed: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def done(self) -> bool:
        """Whether everything is ready; raise `RehearsalError` once it is clear that it never will be."""
        metadata = self.body["metadata"]
        current = self.cluster.get(
            self.body["apiVersion"], self.body["kind"], metadata["name"], metadata.get("namespace")
        )
        if current is None:
            raise RehearsalError(f"{self.label}: was deleted while it was waited for")
        if self._is_ready(current):
            return True
        self._fail_if_refused(current)
        self._fail_if_stopped(current)
        self._fail_if_made_anew(current)
        if self.cluster.settled(_SETTLED_SECONDS):
            self._fail_if_none_is_made(current)
            self._fail_if_unplaced(current)
        return False

    def _is_ready(self, current: Object) -> bool:
        if self.awaited:
            return all(condition.holds(current) for condition in self.awaited)
        return _READY[current["kind"]](current)

    def why_not(self) -> str:
        """Return the sentence for a deadline that has passed."""
        pods = self._pods(self.body)
        states = "; ".join(f"pod {p['metadata']['name']} is {p['status'].get('phase')}" for p in pods)
        missing = ", ".join(str(condition) for condition in self.awaited)
        waited = f" (waited for {missing})" if missing else ""
        return f"{self.label}: is not ready: {states or 'it has no pod'}{waited}"

    def _fail_if_refused(self, current: Object) -> None:
        for condition in current.get("status", {}).get("conditions") or []:
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
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

    def _fail_if_made_anew(self, current: Object) -> None:
        """Fail if a pod of a group ends for containers that fail, and its group is made anew and ends so again."""
        if SET_NAME not in _selector(current):
            return
        pods = self._pods(current)
        for pod in pods:
            metadata, words = pod["metadata"], "; ".join(failures(pod))
            if not words or not _has_restarted(pod):
                continue
            ends = self._failed[metadata["name"]]
            ends[metadata["uid"]] = words
            if len(ends) == _TRIES:
                revision = metadata["labels"][REVISION]
                firsts = [row for row in pods if row["metadata"]["labels"].get(WORKER_INDEX) == "0"]
                new = [row for row in firsts if row["metadata"]["labels"].get(REVISION) == revision]
                raise RehearsalError(f"{self.label}: {self._stopped_at(pod, new, current)}: {words}")

    def _fail_if_none_is_made(self, current: Object) -> None:
        """Fail if a group's pod, or the StatefulSet that makes it, is refused: the controllers say so in events only."""
        if SET_NAME not in _selector(current):
            return
        names = {current["metadata"]["name"], *(pod["metadata"]["name"] for pod in self._pods(current))}
        events = self.cluster.list(
            "v1", "Event", current["metadata"]["namespace"], field_selector="reason=FailedCreate"
        )
        for event in events:
            if event["involvedObject"]["name"] in names and _time(event) > self._began:
                raise RehearsalError(f"{self.label}: {event['message']}")

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
    """Return the labels of an object's pods. A set's groups are all its pods, also of the StatefulSet of their first ones."""
    selector: Mapping[str, str] = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
    if owner["kind"] == KIND or SET_NAME in selector:
        return {SET_NAME: owner["metadata"]["name"]}
    return selector


def _has_restarted(pod: Object) -> bool:
    status = pod.get("status", {})
    rows = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return any(row["restartCount"] > 0 for row in rows)


def _time(event: Object) -> datetime:
    """Return when something last happened, to the second."""
    text = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(text)


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


_READY = {"Deployment": _deployment_ready, "DaemonSet": _daemon_set_ready}
