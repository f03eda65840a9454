"""Simulated machines: a node group becomes nodes that KWOK keeps alive, with what their instance type offers.

A machine offers `nvidia.com/gpu` only once the device plugin's pod runs on it, as a real one does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.cluster import Cluster
from serving import catalogue
from serving.catalogue import InstanceType, SystemInstanceType
from serving.plan import GPU_RESOURCE

Object = dict[str, Any]


@dataclass(frozen=True)
class MachineGroup:
    """Machines of one node group: instance type, number, labels, taints (key, value, effect) and zone ids.

    `offers_gpus` is for machines that were there before the stack: something else hands out their GPUs.
    """

    name: str
    instance_type: str
    count: int
    labels: Mapping[str, str]
    taints: tuple[tuple[str, str, str], ...]
    zone_ids: tuple[str, ...]
    region: str
    offers_gpus: bool = False


class SimulatedNodes:
    """All simulated machines of a rehearsal."""

    def __init__(self, cluster: Cluster, tell: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._tell = tell
        self._gpus: dict[str, int] = {}
        self._offering: set[str] = set()
        self._groups: dict[str, list[str]] = {}
        self._watcher = threading.Thread(target=self._watch, name="device-plugins", daemon=True)

    def start(self) -> None:
        """Begin to watch for device plugins."""
        self._watcher.start()

    def stop(self) -> None:
        """End the watch."""
        self._cluster.stopping.set()

    def join(self, group: MachineGroup) -> None:
        """Let a group's machines join the cluster and wait until they are ready."""
        names = [f"{group.name}-{number}" for number in range(group.count)]
        for number, name in enumerate(names):
            self._cluster.create(_node(name, group, group.zone_ids[number % len(group.zone_ids)]))
            instance = _instance(group.instance_type)
            if isinstance(instance, InstanceType) and not group.offers_gpus:
                self._gpus[name] = instance.gpus
        self._groups[group.name] = names
        self._cluster.wait(
            lambda: all(_is_ready(self._cluster.get("v1", "Node", name)) for name in names),
            f"node group {group.name}: its nodes did not become ready",
        )
        self._tell("nodes", f"{group.count} x {group.instance_type} joined: {', '.join(names)}")

    def leave(self, group: str) -> None:
        """Take a group's machines away."""
        for name in self._groups.pop(group, []):
            self._cluster.delete("v1", "Node", name, None, f"node {name}")
            self._gpus.pop(name, None)
            self._offering.discard(name)

    def _watch(self) -> None:
        plugin = catalogue.image("device-plugin").repository
        for pod in self._cluster.watch_pods():
            node = pod["spec"].get("nodeName")
            images = [container["image"] for container in pod["spec"]["containers"]]
            if node and any(image.startswith((f"{plugin}@", f"{plugin}:")) for image in images):
                with self._cluster.unless_stopped():
                    self._offer_gpus(node, pod)

    def _offer_gpus(self, node: str, pod: Object) -> None:
        if node not in self._gpus or node in self._offering or not _is_ready(pod):
            return
        self._offering.add(node)
        amount = {GPU_RESOURCE: str(self._gpus[node])}
        body = {"capacity": amount, "allocatable": amount}
        self._cluster.patch(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "status": body}, status=True
        )
        self._tell("nodes", f"{node} offers {self._gpus[node]} x {GPU_RESOURCE}")


def _is_ready(item: Object | None) -> bool:
    conditions = (item or {}).get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _instance(name: str) -> InstanceType | SystemInstanceType:
    if name in catalogue.system_instance_types():
        return catalogue.system_instance_type(name)
    return catalogue.instance_type(name)


def _node(name: str, group: MachineGroup, zone_id: str) -> Object:
    instance = _instance(group.instance_type)
    if isinstance(instance, InstanceType):
        cpu, memory, pods = f"{instance.allocatable_cpu_millis}m", instance.allocatable_memory_mib, instance.max_pods
    else:
        cpu, memory, pods = str(instance.vcpus), instance.memory_mib, 29  # an m-large's default with the VPC CNI
    gpus = {GPU_RESOURCE: str(instance.gpus)} if isinstance(instance, InstanceType) and group.offers_gpus else {}
    offered = {"cpu": cpu, "memory": f"{memory}Mi", "pods": str(pods), "ephemeral-storage": "100Gi", **gpus}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                # What EKS and the cloud provider set on every node; all else comes from the node group.
                "eks.amazonaws.com/nodegroup": group.name,
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
                "node.kubernetes.io/instance-type": group.instance_type,
                "topology.kubernetes.io/region": group.region,
                "topology.k8s.aws/zone-id": zone_id,
                **group.labels,
            },
        },
        "spec": {"taints": [{"key": k, "value": v, "effect": e} for k, v, e in group.taints]},
        "status": {"capacity": offered, "allocatable": offered},
    }
