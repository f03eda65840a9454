"""Why a pod is on no node, as one sentence that names the field to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from rehearsal.placement import pod_template, why_not_placed

GPU = "nvidia.com/gpu"
CLASS = "accelerator.nvidia.com/class"
GPU_TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}
TOLERATES_GPU = {"key": GPU, "operator": "Equal", "value": "present", "effect": "NoSchedule"}
RESOURCES = "spec.template.spec.containers[].resources.requests"


def node(
    name: str,
    labels: Mapping[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    **allocatable: str,
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {"taints": taints} if taints else {},
        "status": {"allocatable": {"cpu": "190", "memory": "1900Gi", **allocatable}},
    }


def gpu_node(name: str = "h200-0", gpus: str | None = "8", **labels: str) -> dict[str, Any]:
    offered = {GPU: gpus} if gpus else {}
    return node(name, {CLASS: "h200-8gpu", f"{GPU}.present": "true", **labels}, [GPU_TAINT], **offered)


def system_node(name: str = "system-0") -> dict[str, Any]:
    return node(name, cpu="2", memory="8Gi")


def serving(**changed: Any) -> dict[str, Any]:
    """A pod that fits on `gpu_node()`, with fields of its spec changed."""
    container = {"name": "vllm", "resources": {"requests": {"cpu": "172000m", "memory": "1702Gi", GPU: "8"}}}
    spec = {
        "nodeSelector": {CLASS: "h200-8gpu"},
        "tolerations": [TOLERATES_GPU],
        "containers": [container],
        **changed,
    }
    return {"spec": spec}


def asking(**requests: str) -> list[dict[str, Any]]:
    return [{"name": "vllm", "resources": {"requests": {GPU: "8", **requests}}}]


@dataclass(frozen=True)
class Case:
    name: str
    pod: dict[str, Any]
    message: str
    nodes: list[dict[str, Any]] = field(default_factory=lambda: [system_node(), gpu_node()])


UNTOLERATED = f"spec.template.spec.tolerations: the taint {GPU}=present:NoSchedule of node h200-0 is not tolerated"
CASES = [
    Case("no node at all", serving(), "there is no node", []),
    Case("it would fit", serving(), "node h200-0 would take it, but another pod is there"),
    Case("no toleration", serving(tolerations=[]), UNTOLERATED),
    Case("no tolerations field", serving(tolerations=None), UNTOLERATED),
    Case("toleration of another key", serving(tolerations=[{**TOLERATES_GPU, "key": "gpu"}]), UNTOLERATED),
    Case("toleration of another value", serving(tolerations=[{**TOLERATES_GPU, "value": "true"}]), UNTOLERATED),
    Case("toleration of another effect", serving(tolerations=[{**TOLERATES_GPU, "effect": "NoExecute"}]), UNTOLERATED),
    Case(
        "a label the node does not have",
        serving(nodeSelector={"glm-on-gpus/node-pool": "h200"}),
        "spec.template.spec.nodeSelector: asks for glm-on-gpus/node-pool=h200, node h200-0 has no label glm-on-gpus/node-pool",
    ),
    Case(
        "a label of another value",
        serving(nodeSelector={CLASS: "b200-8gpu"}),
        f"spec.template.spec.nodeSelector: asks for {CLASS}=b200-8gpu, node h200-0 has {CLASS}=h200-8gpu",
    ),
    Case(
        "more memory than the node has",
        serving(containers=asking(memory="2000Gi")),
        f"{RESOURCES}.memory: asks for 2000Gi, node h200-0 offers 1900Gi",
    ),
    Case(
        "more milli-cpu than the node has",
        serving(containers=asking(cpu="190001m")),
        f"{RESOURCES}.cpu: asks for 190001m, node h200-0 offers 190",
    ),
    Case(
        "a node whose device plugin does not run",
        serving(),
        f"{RESOURCES}.{GPU}: asks for 8, node h200-0 offers none",
        [system_node(), gpu_node(gpus=None)],
    ),
    Case(
        "a limit stands for the request that is left out",
        serving(containers=[{"name": "vllm", "resources": {"limits": {GPU: "9"}}}]),
        f"{RESOURCES}.{GPU}: asks for 9, node h200-0 offers 8",
    ),
    Case(
        "an init container asks for more than the engine",
        serving(initContainers=[{"name": "fetch", "resources": {"requests": {"memory": "2Ti"}}}]),
        f"{RESOURCES}.memory: asks for 2Ti, node h200-0 offers 1900Gi",
    ),
    Case(
        "everything at once",
        serving(nodeSelector={CLASS: "b200-8gpu"}, tolerations=[], containers=asking(memory="3Ti")),
        f"spec.template.spec.nodeSelector: asks for {CLASS}=b200-8gpu, node h200-0 has {CLASS}=h200-8gpu; "
        f"{UNTOLERATED}; {RESOURCES}.memory: asks for 3Ti, node h200-0 offers 1900Gi",
    ),
    Case(
        "the node that comes closest is named",
        serving(),
        f"{RESOURCES}.{GPU}: asks for 8, node h200-1 offers 4",
        [gpu_node("h200-0", gpus="4", **{CLASS: "h200-4gpu"}), gpu_node("h200-1", gpus="4")],
    ),
    Case(
        # A system node has fewer problems, but nobody meant the pod for it.
        "a GPU pod is explained by a GPU node",
        {"spec": {"containers": asking(memory="3Ti", cpu="500")}},
        f"{UNTOLERATED}; {RESOURCES}.memory: asks for 3Ti, node h200-0 offers 1900Gi; "
        f"{RESOURCES}.cpu: asks for 500, node h200-0 offers 190",
        [node("large-0", cpu="9999", memory="9Ti"), gpu_node()],
    ),
    Case(
        "a DaemonSet that selects GPU nodes is explained by one",
        {"spec": {"nodeSelector": {f"{GPU}.present": "true"}, "containers": [{"name": "plugin"}]}},
        UNTOLERATED,
    ),
    Case(
        "a pod without GPUs is explained by a node without",
        {"spec": {"containers": [{"name": "gateway", "resources": {"requests": {"cpu": "4"}}}]}},
        f"{RESOURCES}.cpu: asks for 4, node system-0 offers 2",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_sentence(case: Case) -> None:
    assert why_not_placed(case.pod, case.nodes) == case.message
    assert why_not_placed(case.pod, list(reversed(case.nodes))) == case.message


@pytest.mark.parametrize(
    "toleration",
    [
        TOLERATES_GPU,
        {"key": GPU, "value": "present"},
        {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
        {"key": GPU, "operator": "Exists"},
        {"operator": "Exists"},
    ],
)
def test_tolerations_that_cover_the_taint(toleration: dict[str, str]) -> None:
    assert why_not_placed(serving(tolerations=[toleration]), [gpu_node()]) == (
        "node h200-0 would take it, but another pod is there"
    )


def test_a_preferred_taint_keeps_nothing_off() -> None:
    preferred = {"key": "spot", "value": "true", "effect": "PreferNoSchedule"}
    offered = gpu_node()
    offered["spec"]["taints"].append(preferred)
    assert why_not_placed(serving(), [offered]) == "node h200-0 would take it, but another pod is there"


def test_quantities_are_compared_by_amount() -> None:
    fits = serving(containers=asking(memory="1945600Mi", cpu="190000m"))
    assert why_not_placed(fits, [gpu_node()]) == "node h200-0 would take it, but another pod is there"


def test_the_pod_of_a_deployment() -> None:
    assert pod_template({"spec": {"template": serving()}}) == serving()
