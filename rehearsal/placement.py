"""Why a pod does not fit on any node, in terms of its own fields.

The scheduler decides; this only translates its verdict, which counts nodes, into the field to change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes.utils.quantity import parse_quantity

Object = dict[str, Any]


def pod_template(owner: Object) -> Object:
    """Return the pod that a Deployment or DaemonSet would make."""
    return owner["spec"]["template"]


def why_not_placed(pod: Object, nodes: list[Object]) -> str:
    """Return what keeps a pod off the node that comes closest to taking it; `pod` has a `spec`."""
    if not nodes:
        return "there is no node"
    problems = {node["metadata"]["name"]: list(_problems(pod["spec"], node)) for node in nodes}
    closest = min(nodes, key=lambda node: _distance(pod["spec"], node, problems[node["metadata"]["name"]]))
    name = closest["metadata"]["name"]
    return "; ".join(problems[name]) or f"node {name} would take it, but another pod is there"


def _distance(spec: Object, node: Object, problems: list[str]) -> tuple[bool, int]:
    """Order nodes by how near they come: a pod that tolerates or asks for GPUs is meant for a GPU node."""
    tainted = bool(node["spec"].get("taints"))
    wants_gpu = any("nvidia.com/gpu" in _requests(c) for c in spec.get("containers", []))
    selects_gpu = "nvidia.com/gpu.present" in (spec.get("nodeSelector") or {})
    return ((wants_gpu or selects_gpu) != tainted, len(problems))


def _problems(spec: Object, node: Object) -> Iterator[str]:
    name = node["metadata"]["name"]
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    for key, value in (spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            has = f"{key}={labels[key]}" if key in labels else f"no label {key}"
            yield f"spec.template.spec.nodeSelector: asks for {key}={value}, node {name} has {has}"
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] != "PreferNoSchedule" and not _tolerated(taint, spec.get("tolerations") or []):
            shown = f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
            yield f"spec.template.spec.tolerations: the taint {shown} of node {name} is not tolerated"
    allocatable: Mapping[str, str] = node["status"].get("allocatable") or {}
    for resource, wanted in _pod_requests(spec).items():
        offered = parse_quantity(allocatable.get(resource, "0"))
        if parse_quantity(wanted) > offered:
            path = f"spec.template.spec.containers[].resources.requests.{resource}"
            yield f"{path}: asks for {wanted}, node {name} offers {allocatable.get(resource, 'none')}"


def _tolerated(taint: Object, tolerations: list[Object]) -> bool:
    return any(
        toleration.get("key") in {None, "", taint["key"]}
        and toleration.get("effect") in {None, "", taint["effect"]}
        and (toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""))
        for toleration in tolerations
    )


def _requests(container: Object) -> Mapping[str, str]:
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _pod_requests(spec: Object) -> dict[str, str]:
    """Return the largest request of a single container for each resource; this stack's pods have one that counts."""
    largest: dict[str, str] = {}
    for container in [*spec.get("containers", []), *(spec.get("initContainers") or [])]:
        for resource, wanted in _requests(container).items():
            if resource not in largest or parse_quantity(wanted) > parse_quantity(largest[resource]):
                largest[resource] = wanted
    return largest
