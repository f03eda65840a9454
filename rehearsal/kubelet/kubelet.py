"""All serving pods of a rehearsal: a worker for each, from its binding on, and the addresses they answer at."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rehearsal.cluster import Cluster
from rehearsal.kubelet.programs import Host, Servers
from rehearsal.kubelet.sandbox import LOOPBACK
from rehearsal.kubelet.worker import Machine, PodWorker
from serving.timing import Timing

Object = dict[str, Any]

_SERVING = ("app.kubernetes.io/name", "vllm")
_REVISION = "glm-on-gpus/revision"
_INSTANCE_TYPE = "node.kubernetes.io/instance-type"


class Kubelet:
    """The kubelets of all machines, as far as serving pods go. `timings` says how long each workload's pods take to load."""

    def __init__(
        self,
        cluster: Cluster,
        host: Host,
        servers: Servers,
        *,
        timings: Mapping[str, Timing],
        folder: Path,
        tell: Callable[[str, str], None],
    ) -> None:
        self._cluster = cluster
        self._host = host
        self._servers = servers
        self.timings = timings
        self._folder = folder
        self._tell = tell
        self._workers: dict[str, PodWorker] = {}
        self._by_address: dict[str, PodWorker] = {}
        self._addresses = _addresses()
        self._fetched: set[tuple[str, str]] = set()
        self._watcher = threading.Thread(target=self._watch, name="simulated-kubelet", daemon=True)

    def start(self) -> None:
        """Begin to look after serving pods."""
        self._watcher.start()

    def stop(self, *, keep: bool = False) -> None:
        """Look after pods no more; end all their processes at once, or let them live as long as the control plane."""
        self._cluster.stopping.set()
        for worker in list(self._workers.values()):
            worker.abandon(keep=keep)
        for worker in list(self._workers.values()):
            worker.join()

    def reach(self, address: str, port: int) -> tuple[str, int]:
        """Return where on this machine a pod's port is; the pod's own address if no such pod runs here."""
        worker = self._by_address.get(address)
        if worker is None or worker.sandbox is None:
            return address, port
        return LOOPBACK, worker.sandbox.ports[port]

    def _watch(self) -> None:
        label, value = _SERVING
        for pod in self._cluster.watch_pods():
            metadata = pod["metadata"]
            if (metadata.get("labels") or {}).get(label) != value or not pod["spec"].get("nodeName"):
                continue
            with self._cluster.unless_stopped():
                worker = self._workers.get(metadata["uid"]) or self._begin(pod)
                if worker is not None and metadata.get("deletionTimestamp"):
                    worker.leave()

    def _begin(self, pod: Object) -> PodWorker | None:
        metadata, node = pod["metadata"], pod["spec"]["nodeName"]
        times = self.timings.get(metadata["labels"].get("app.kubernetes.io/instance", ""))
        machine = self._cluster.get("v1", "Node", node)
        if times is None or machine is None:
            return None
        revision = (metadata.get("annotations") or {}).get(_REVISION, "")
        fetch = 0 if (node, revision) in self._fetched else times.expected_fetch_seconds
        self._fetched.add((node, revision))
        address = next(self._addresses)
        # A pod of a group has the name of the one before it.
        folder = self._folder / f"{metadata['name']}.{metadata['uid'][:8]}"
        instance_type = machine["metadata"]["labels"][_INSTANCE_TYPE]
        worker = PodWorker(
            pod,
            self._cluster,
            Machine(self._host, self._servers, instance_type, folder, address),
            fetch_seconds=fetch,
            load_seconds=times.expected_load_seconds + times.expected_engine_start_seconds,
            tell=self._tell,
        )
        self._workers[metadata["uid"]] = self._by_address[address] = worker
        minutes = f"{(fetch + worker.load_seconds) / 60:.0f} min on real machines"
        self._tell("pods", f"{worker.name} is on {node}: {'fetches and loads' if fetch else 'loads'} ({minutes})")
        worker.start()
        return worker


def _addresses() -> Iterator[str]:
    """Yield addresses beside those that KWOK gives to the pods it plays."""
    for number in itertools.count(1):
        yield f"10.245.{number // 250}.{number % 250 + 1}"
