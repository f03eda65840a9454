"""What a pod has of its host, and what an engine takes of that beside its GPUs."""

from __future__ import annotations

from serving.catalogue import InstanceType

# A replica has its node to itself; the tenth is for the kubelet's daemons and theirs.
_NODE_SHARE_PERCENT = 90

ENGINE_SHARED_MEMORY_GIB = 16
"""What vLLM's tensor-parallel workers exchange messages through; its own LeaderWorkerSet example gives them 15 GiB."""

ENGINE_HOST_GIB = 512
"""What eight ranks may take while they load and serve: the memory that llm-d's manifest for GLM-5.2-FP8 gives them."""


def pod_cpu_millis(instance: InstanceType) -> int:
    """Return the milli-CPUs of a serving pod, in whole CPUs."""
    return instance.allocatable_cpu_millis * _NODE_SHARE_PERCENT // 100 // 1000 * 1000


def pod_memory_mib(instance: InstanceType) -> int:
    """Return the memory of a serving pod in MiB, in whole GiB. What is written to /dev/shm counts."""
    return instance.allocatable_memory_mib * _NODE_SHARE_PERCENT // 100 // 1024 * 1024
