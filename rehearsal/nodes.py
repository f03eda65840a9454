"""Simulated machines: a node group becomes nodes that KWOK keeps alive, with what their instance type offers.

A machine offers its devices only once their plugin's pod runs on it, as a real one does: GPUs and EFA interfaces.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.cluster import Cluster
from serving import catalogue
from serving.catalogue import InstanceType, SystemInstanceType
from serving.plan import EFA_RESOURCE, GPU_RESOURCE

Object = dict[str, Any]

# Of 2 MiB each: what the AMI's EFA driver sets aside (EKS user guide, node-efa).
_HUGE_PAGES = 5_128


@dataclass(frozen=True)
class MachineGroup:
    """Machines of one node group: instance type, number, labels, taints (key, value, effect), zone ids, EFA interfaces.

    `offers_devices` is for machines that were there before the stack: something else hands out what they have.
    """

    name: str
    instance_type: str
    count: int
    labels: Mapping[str, str]
    taints: tuple[tuple[str, str, str], ...]
    zone_ids: tuple[str, ...]
    region: str
    efa_interfaces: int
    offers_devices: bool = False

    @property
    def devices(self) -> Mapping[str, int]:
        """What a device plugin may hand out, by the resource's name."""
        instance = _instance(self.instance_type)
        gpus = instance.gpus if isinstance(instance, InstanceType) else 0
        return {name: number for name, number in ((GPU_RESOURCE, gpus), (EFA_RESOURCE, self.efa_interfaces)) if number}


class SimulatedNodes:
    """All simulated machines of a rehearsal."""

    def __init__(self, cluster: Cluster, tell: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._tell = tell
        self._devices: dict[str, Mapping[str, int]] = {}
        self._offering: set[tuple[str, str]] = set()
        self._groups: dict[str, list[str]] = {}
        self._watcher = threading.Thread(target=self._watch, name="device-plugins", daemon=True)

    def start(self) -> None:
        """Begin to watch for device plugins."""
        self._watcher.start()

    def stop(self) -> None:
        """End the watch."""
        self._cluster.stopping.set()

    def scale(self, group: MachineGroup) -> None:
        """Let as many machines of a group be in the cluster as it counts, and wait until those that join are ready."""
        names = [f"{group.name}-{number}" for number in range(group.count)]
        there = self._groups.get(group.name, [])
        joined = {name: number for number, name in enumerate(names) if name not in there}
        for name, number in joined.items():
            self._cluster.create(_node(name, group, group.zone_ids[number % len(group.zone_ids)]))
            self._devices[name] = {} if group.offers_devices else group.devices
        gone = [name for name in there if name not in names]
        self._take_away(gone)
        self._groups[group.name] = names
        self._cluster.wait(
            lambda: all(_is_ready(self._cluster.get("v1", "Node", name)) for name in joined),
            f"node group {group.name}: its nodes did not become ready",
        )
        if gone:
            self._tell("nodes", f"{len(gone)} x {group.instance_type} taken away: {', '.join(gone)}")
        if joined or not names:
            which = f": {', '.join(joined)}" if joined else ""
            self._tell("nodes", f"{len(joined)} x {group.instance_type} joined{which}")

    def leave(self, group: str) -> None:
        """Take a group's machines away."""
        self._take_away(self._groups.pop(group, []))

    def _take_away(self, names: Iterable[str]) -> None:
        for name in names:
            self._cluster.delete("v1", "Node", name, None, f"node {name}")
            self._devices.pop(name, None)
            self._offering -= {(name, resource) for resource in (GPU_RESOURCE, EFA_RESOURCE)}

    def _watch(self) -> None:
        for pod in self._cluster.watch_pods():
            node, resource = pod["spec"].get("nodeName"), _handed_out_by(pod)
            if node and resource:
                with self._cluster.unless_stopped():
                    self._offer(node, resource, pod)

    def _offer(self, node: str, resource: str, pod: Object) -> None:
        number = self._devices.get(node, {}).get(resource)
        if number is None or (node, resource) in self._offering or not _is_ready(pod):
            return
        self._offering.add((node, resource))
        amount = {resource: str(number)}
        body = {"capacity": amount, "allocatable": amount}
        self._cluster.patch(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "status": body}, status=True
        )
        self._tell("nodes", f"{node} offers {number} x {resource}")


def _handed_out_by(pod: Object) -> str | None:
    """Return what a device plugin hands out: NVIDIA's by its image, of AWS's there may be copies, by its name."""
    nvidia = catalogue.image("device-plugin").repository
    if any(row["image"].startswith((f"{nvidia}@", f"{nvidia}:")) for row in pod["spec"]["containers"]):
        return GPU_RESOURCE
    labels = pod["metadata"].get("labels") or {}
    return EFA_RESOURCE if labels.get("app.kubernetes.io/name") == "efa-device-plugin" else None


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
    pages = {"hugepages-2Mi": f"{2 * _HUGE_PAGES}Mi"} if isinstance(instance, InstanceType) else {}
    devices = {name: str(number) for name, number in group.devices.items()} if group.offers_devices else {}
    offered = {"cpu": cpu, "memory": f"{memory}Mi", "pods": str(pods), "ephemeral-storage": "100Gi", **pages, **devices}
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
                "topology.kubernetes.io/zone": group.region + chr(ord("a") + int(zone_id.rpartition("-az")[2]) - 1),
                "topology.k8s.aws/zone-id": zone_id,
                **group.labels,
            },
        },
        "spec": {"taints": [{"key": k, "value": v, "effect": e} for k, v, e in group.taints]},
        "status": {"capacity": offered, "allocatable": offered},
    }
