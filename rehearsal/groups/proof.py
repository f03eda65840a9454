"""What a rehearsal can say of a workload's groups once they are ready."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from rehearsal.cluster import Cluster
from rehearsal.groups.names import GROUP_INDEX
from rehearsal.resource import RehearsalError
from serving.plan import WorkloadPlan


def placed_groups(cluster: Cluster, workload: WorkloadPlan) -> Iterator[str]:
    """Yield a line for each group: its pods, each on a node of its own, all in one zone; raise `RehearsalError` if not."""
    selector = f"app.kubernetes.io/instance={workload.name},{GROUP_INDEX}"
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pod in cluster.list("v1", "Pod", workload.namespace, label_selector=selector):
        groups[pod["metadata"]["labels"][GROUP_INDEX]].append((pod["metadata"]["name"], pod["spec"]["nodeName"]))
    zones = {
        row["metadata"]["name"]: row["metadata"]["labels"]["topology.kubernetes.io/zone"] for row in cluster.nodes()
    }
    for pods in groups.values():
        nodes = [node for _, node in pods]
        text = ", ".join(f"{pod} on {node}" for pod, node in sorted(pods))
        if len(set(nodes)) < workload.nodes_per_replica or len({zones[node] for node in nodes}) > 1:
            raise RehearsalError(f"workload {workload.name}: a group is not on nodes of its own in one zone: {text}")
        yield text
