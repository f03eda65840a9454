"""Simulated machines: a node group becomes nodes that KWOK keeps alive, with what their instance type offers.

A machine offers `nvidia.com/gpu` only once the device plugin's pod runs on it, as a real one does. A pod that serves becomes
ready after its expected load time, scaled down; weights are fetched once for each node and revision.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from rehearsal.cluster import Cluster
from serving import catalogue
from serving.catalogue import InstanceType, SystemInstanceType
from serving.plan import GPU_RESOURCE
from serving.timing import Timing

# Seconds of a rehearsal for each second on real machines: half an hour of fetching and loading becomes three seconds.
TIME_SCALE = 1 / 600

INITIALIZED = "rehearsal.local/initialized"
READY = "rehearsal.local/ready"

_NOT_FOUND = 404

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
    """All simulated machines of a rehearsal. `timings` says how long each workload's pods take to serve."""

    def __init__(self, cluster: Cluster, timings: Mapping[str, Timing], tell: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._timings = timings
        self._tell = tell
        self._gpus: dict[str, int] = {}
        self._offering: set[str] = set()
        self._fetched: set[tuple[str, str]] = set()
        self._started: set[str] = set()
        self._timers: list[threading.Timer] = []
        self._groups: dict[str, list[str]] = {}
        self._watcher = threading.Thread(target=self._watch, name="simulated-kubelet", daemon=True)

    def start(self) -> None:
        """Begin to act as the machines' kubelets."""
        self._watcher.start()

    def stop(self) -> None:
        """End all simulated work."""
        self._cluster.stopping.set()
        for timer in self._timers:
            timer.cancel()

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
            if not node:
                continue
            images = [container["image"] for container in pod["spec"]["containers"]]
            with self._unless_stopped():
                if any(image.startswith((f"{plugin}@", f"{plugin}:")) for image in images):
                    self._offer_gpus(node, pod)
                elif (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/name") == "vllm":
                    self._serve(node, pod)

    @contextmanager
    def _unless_stopped(self) -> Generator[None]:
        """Let a request fail in silence if its object is gone, or once the cluster is being stopped and its server with it."""
        try:
            yield
        except (ApiException, HTTPError) as error:
            gone = isinstance(error, ApiException) and error.status == _NOT_FOUND
            if not gone and not self._cluster.stopping.is_set():
                raise

    def _offer_gpus(self, node: str, pod: Object) -> None:
        if node not in self._gpus or node in self._offering or not _is_ready(pod):
            return
        self._offering.add(node)
        amount = {GPU_RESOURCE: str(self._gpus[node])}
        body = {"capacity": amount, "allocatable": amount}
        self._cluster.patch({**_named("Node", node), "status": body}, status=True)
        self._tell("nodes", f"{node} offers {self._gpus[node]} x {GPU_RESOURCE}")

    def _serve(self, node: str, pod: Object) -> None:
        metadata = pod["metadata"]
        if metadata["uid"] in self._started or metadata.get("deletionTimestamp"):
            return
        self._started.add(metadata["uid"])
        workload = metadata["labels"].get("app.kubernetes.io/instance", "")
        times = self._timings.get(workload)
        if times is None:
            return
        revision = (metadata.get("annotations") or {}).get("glm-on-gpus/revision", "")
        fetch = 0 if (node, revision) in self._fetched else times.expected_fetch_seconds
        self._fetched.add((node, revision))
        name = metadata["name"]
        self._tell("pods", f"{name} is on {node} and fetches the weights ({_real(fetch)})")
        self._after(fetch, lambda: self._annotate(metadata, INITIALIZED))
        load = times.expected_load_seconds + times.expected_engine_start_seconds
        self._after(
            fetch + load, lambda: self._annotate(metadata, READY, f"{name} has loaded and serves ({_real(load)})")
        )

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds * TIME_SCALE, act)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _annotate(self, metadata: Object, key: str, line: str | None = None) -> None:
        body = _named("Pod", metadata["name"], metadata["namespace"])
        body["metadata"]["annotations"] = {key: "true"}
        with self._unless_stopped():
            self._cluster.patch(body)
            if line:
                self._tell("pods", line)


def _real(seconds: int) -> str:
    return f"{seconds / 60:.0f} min on real machines"


def _named(kind: str, name: str, namespace: str | None = None) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}


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
