"""What the controller makes of a LeaderWorkerSet: its Service, and the pods of a group with their names, labels and variables."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from rehearsal.groups.schema import API_VERSION, KIND

_DOMAIN: Final = "leaderworkerset.sigs.k8s.io"
SET_NAME: Final = f"{_DOMAIN}/name"
GROUP_INDEX: Final = f"{_DOMAIN}/group-index"
WORKER_INDEX: Final = f"{_DOMAIN}/worker-index"
GROUP_KEY: Final = f"{_DOMAIN}/group-key"
REVISION: Final = f"{_DOMAIN}/template-revision-hash"

Object = dict[str, Any]


def revision(owner: Object) -> str:
    """Return a hash of what a group is made from: groups with another one are out of date."""
    text = json.dumps(owner["spec"]["leaderWorkerTemplate"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def headless_service(owner: Object) -> Object:
    """Return the Service that gives every pod of a set a name; it has the set's own name."""
    name, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": [_reference(owner, API_VERSION, KIND)]},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {SET_NAME: name}},
    }


def leader_pod(owner: Object, group: int) -> Object:
    """Return the first pod of a group."""
    template = owner["spec"]["leaderWorkerTemplate"]
    body = template.get("leaderTemplate") or template["workerTemplate"]
    return _pod(owner, body, group, 0, _reference(owner, API_VERSION, KIND))


def worker_pods(owner: Object, group: int, leader: Object) -> Iterator[Object]:
    """Yield the other pods of a group, which belong to its first."""
    template = owner["spec"]["leaderWorkerTemplate"]
    for index in range(1, template["size"]):
        yield _pod(owner, template["workerTemplate"], group, index, _reference(leader, "v1", "Pod"))


def _pod(owner: Object, template: Object, group: int, index: int, belongs_to: Object) -> Object:
    name, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
    leader = f"{name}-{group}"
    pod = copy.deepcopy(template)
    metadata = pod.setdefault("metadata", {})
    metadata |= {
        "name": f"{leader}-{index}" if index else leader,
        "namespace": namespace,
        "ownerReferences": [belongs_to],
        "labels": {
            **(metadata.get("labels") or {}),
            SET_NAME: name,
            GROUP_INDEX: str(group),
            WORKER_INDEX: str(index),
            GROUP_KEY: hashlib.sha1(f"{namespace}/{leader}".encode(), usedforsecurity=False).hexdigest(),
            REVISION: revision(owner),
        },
    }
    spec = pod["spec"]
    spec |= {"hostname": metadata["name"], "subdomain": name}
    added = {
        "LWS_LEADER_ADDRESS": f"{leader}.{name}.{namespace}",
        "LWS_GROUP_SIZE": str(owner["spec"]["leaderWorkerTemplate"]["size"]),
        "LWS_WORKER_INDEX": str(index),
    }
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        # First, so that the container's own variables may refer to them.
        container["env"] = [{"name": k, "value": v} for k, v in added.items()] + (container.get("env") or [])
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def _reference(owner: Object, api_version: str, kind: str) -> Object:
    metadata = owner["metadata"]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
