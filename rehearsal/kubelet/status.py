"""A serving pod's status, put together as a kubelet does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rehearsal.kubelet.container import Container

Object = dict[str, Any]

_OURS = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")


def pod_status(
    pod: Object,
    containers: Mapping[str, Container],
    *,
    address: str,
    started: str,
    initialized: str | None,
    now: str,
    problem: str | None = None,
) -> Object:
    """Return a pod's status; times are Kubernetes' timestamps, `initialized` is None while init containers run.

    `containers` are those that have been started, by name; `problem` says why the others cannot be. No process stands for
    init containers: the last of them takes the time of the fetch.
    """
    spec, old = pod["spec"], {row["type"]: row for row in pod.get("status", {}).get("conditions") or []}
    done = initialized is not None
    unready = _names([row for row in spec["containers"] if not _is_ready(row, containers)])
    conditions = {
        "PodReadyToStartContainers": "",
        "Initialized": "" if done else f"containers with incomplete status: {_names(spec['initContainers'])}",
        **dict.fromkeys(("ContainersReady", "Ready"), f"containers with unready status: {unready}" if unready else ""),
    }
    others = [row for kind, row in old.items() if kind not in _OURS]
    return {
        "phase": "Running" if done else "Pending",
        "startTime": started,
        "conditions": others + [_condition(kind, wrong, old.get(kind), now) for kind, wrong in conditions.items()],
        "initContainerStatuses": list(_init_statuses(spec, started, initialized)),
        "containerStatuses": [_status(row, containers, problem) for row in spec["containers"]],
        **({"podIP": address, "podIPs": [{"ip": address}]} if done else {}),
    }


def _is_ready(spec: Object, containers: Mapping[str, Container]) -> bool:
    return spec["name"] in containers and containers[spec["name"]].ready


def _names(containers: Sequence[Object]) -> str:
    """Return `[vllm gate]`, or nothing for none."""
    return f"[{' '.join(row['name'] for row in containers)}]" if containers else ""


def _condition(kind: str, wrong: str, old: Object | None, now: str) -> Object:
    status = "False" if wrong else "True"
    since = old["lastTransitionTime"] if old and old["status"] == status else now
    reason = "ContainersNotInitialized" if kind == "Initialized" else "ContainersNotReady"
    return {
        "type": kind,
        "status": status,
        "lastTransitionTime": since,
        "reason": reason if wrong else None,
        "message": wrong or None,
    }


def _init_statuses(spec: Object, started: str, initialized: str | None) -> Iterator[Object]:
    containers = spec.get("initContainers") or []
    for row in containers:
        if initialized is None and row is containers[-1]:
            yield {**_blank(row), "started": True, "state": {"running": {"startedAt": started}}}
        else:
            ended = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": initialized or started}
            yield {**_blank(row), "ready": True, "state": {"terminated": ended}}


def _status(spec: Object, containers: Mapping[str, Container], problem: str | None) -> Object:
    """Return the status of a container that is run, or of one that waits."""
    container = containers.get(spec["name"])
    if container is not None:
        return container.status()
    waiting = {"reason": "ContainerCreating", "message": problem} if problem else {"reason": "PodInitializing"}
    return {**_blank(spec), "state": {"waiting": waiting}}


def _blank(spec: Object) -> Object:
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "restartCount": 0,
        "ready": False,
        "started": False,
    }
