"""Proof that the API server refuses what `kubectl` would put past the program: the stack's own pods, changed in one respect."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rehearsal.cluster import Cluster, Object
from rehearsal.engine import RehearsalError
from rehearsal.placement import pod_template
from serving import catalogue
from serving.admission import Admission
from serving.plan import WorkloadPlan


def refusals(cluster: Cluster, admission: Admission, workload: WorkloadPlan) -> Iterator[tuple[str, str]]:
    """Yield each rule with what the API server says of the workload's pod if it breaks the rule, and nothing else.

    Policies take effect a second or so after they were created: until then the API server is asked again. Raises
    `RehearsalError` if a broken pod is admitted, or the pod as it is refused.
    """
    pod = _pod(cluster, workload)
    for row in admission.policies:
        broken = copy.deepcopy(pod)
        _BREAK[row.rule](broken["spec"], workload)
        yield row.rule, _refusal(cluster, broken, f"{admission.prefix}-{row.rule}")
    if refusal := cluster.refusal(pod):
        raise RehearsalError(f"workload {workload.name}: its own pod is refused: {refusal}")


def _refusal(cluster: Cluster, pod: Object, policy: str) -> str:
    found: list[str] = []

    def refused() -> bool:
        found[:] = [text for text in [cluster.refusal(pod)] if text and f"'{policy}'" in text]
        return bool(found)

    cluster.wait(refused, f"admission policy {policy}: a pod that breaks its rule is admitted")
    return found[0].rpartition(" denied request: ")[2]


def _pod(cluster: Cluster, workload: WorkloadPlan) -> Object:
    """Return a pod like those that serve, to be tried out under another name."""
    label = f"app.kubernetes.io/instance={workload.name}"
    pods = cluster.list("v1", "Pod", workload.namespace, label_selector=label)
    running = pods[0] if pods else _declared(cluster, workload)
    # The LeaderWorkerSet controller refuses a pod of a group without its annotations, or without a number in its name.
    kept = {key: running["metadata"].get(key) or {} for key in ("labels", "annotations")}
    metadata = {"name": "tried-out-1", "namespace": workload.namespace, **kept}
    # Without what its creation has filled in: a node, and the label values of its own group.
    spec = {key: value for key, value in running["spec"].items() if key not in {"nodeName", "affinity"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _declared(cluster: Cluster, workload: WorkloadPlan) -> Object:
    """Return the pod that a workload without replicas would have."""
    if workload.kind == "Deployment":
        return pod_template(cluster.get("apps/v1", "Deployment", workload.name, workload.namespace) or {})
    groups = cluster.list("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", workload.namespace)
    return groups[0]["spec"]["leaderWorkerTemplate"]["leaderTemplate"]


def _engine(spec: Object) -> Object:
    return next(row for row in spec["containers"] if row["name"] == "vllm")


def _serve(spec: Object, workload: WorkloadPlan, precision: str) -> list[str]:
    """Let the engine serve its model at another precision; return its command."""
    words = _engine(spec)["command"]
    checkpoint = catalogue.checkpoint_for(workload.checkpoint.model, precision)
    words[words.index(workload.checkpoint.repository)] = checkpoint.repository
    return words


def _without_digest(spec: Object, workload: WorkloadPlan) -> None:
    """Take the digest away, and BF16, of which nobody can judge whether it fits an unknown release."""
    _serve(spec, workload, "fp8")
    _engine(spec)["image"] = _engine(spec)["image"].partition("@")[0]


def _without_revision(spec: Object, _workload: WorkloadPlan) -> None:
    words = _engine(spec)["command"]
    at = words.index("--revision")
    del words[at : at + 2]


def _bf16_on_half_a_node(spec: Object, workload: WorkloadPlan) -> None:
    """Half a node's GPUs hold no BF16 weights on any machine of the catalogue; eight B300 would."""
    words = _serve(spec, workload, "bf16")
    words[words.index("--tensor-parallel-size") + 1] = "4"


def _in_development(spec: Object, _workload: WorkloadPlan) -> None:
    _engine(spec).setdefault("env", []).append({"name": "VLLM_SERVER_DEV_MODE", "value": "1"})


def _on_the_root_disk(spec: Object, _workload: WorkloadPlan) -> None:
    next(row for row in spec["volumes"] if "hostPath" in row)["hostPath"]["path"] = "/var/lib/models"


_BREAK: Mapping[str, Callable[[Any, WorkloadPlan], None]] = {
    "image-digest": _without_digest,
    "model-revision": _without_revision,
    "bf16-one-node": _bf16_on_half_a_node,
    "dev-mode": _in_development,
    "host-path": _on_the_root_disk,
}
