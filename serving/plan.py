"""StackConfig -> Plan: everything that components need, derived once.

A plan is complete even if rules refuse it, so that a report can show the numbers beside the refusals. Components do no
arithmetic and read no configuration: what they need stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving import catalogue
from serving.catalogue import Checkpoint, EfaSlot, Engine, InstanceType
from serving.command import (
    CACHES_MOUNT,
    PORT,
    EngineSettings,
    KvOffload,
    command,
    default_kv_cache_dtype,
    environment,
    worker_command,
)
from serving.config import (
    PROJECT,
    CapacityBlock,
    EksClusterConfig,
    ExistingClusterConfig,
    NodePoolConfig,
    StackConfig,
    WorkloadConfig,
)
from serving.cost import Cost, pool_cost
from serving.expectations import expectations, long_needle_tokens
from serving.facts import HostPath, WorkloadFacts, short_digest
from serving.host import ENGINE_SHARED_MEMORY_GIB, pod_cpu_millis, pod_memory_mib
from serving.memory import MemoryBreakdown, breakdown, decode_scratch_gib, largest_captured_batch
from serving.parallelism import aligned_partition
from serving.reading import from_command
from serving.rules import (
    DECODE_SCRATCH_LIMIT_GIB,
    NODE_DISK,
    Verdict,
    Violation,
    advice,
    judge,
    violations,
)
from serving.timing import GATE_RUNS, Timing, timing

GPU_RESOURCE = "nvidia.com/gpu"
RELEASE_LABEL = "app.kubernetes.io/version"
"""The label of a pod that says which vLLM release its image is, where the catalogue does not know the digest."""
GPU_LABEL = "nvidia.com/gpu.present"
EFA_RESOURCE = "vpc.amazonaws.com/efa"
EFA_LABEL = "vpc.amazonaws.com/efa.present"
GPU_TAINT_VALUE = "present"  # the value that NVIDIA's own charts tolerate
NODE_POOL_LABEL = "glm-on-gpus/node-pool"

# Machines with the EFA driver set 5,128 huge pages of 2 MiB aside (EKS user guide, node-efa), for libfabric's buffers.
_EFA_HUGEPAGES_MIB = 5_120

WorkloadKind = Literal["Deployment", "LeaderWorkerSet"]
"""The Kubernetes object that keeps a workload's pods: a LeaderWorkerSet where each replica is a group of them."""


@dataclass(frozen=True)
class NodePoolPlan:
    """A pool of GPU machines. `taint` is (key, value) with effect NoSchedule.

    `nodes` is how many machines there are to be had, `desired_nodes` how many run: none outside of an active Capacity Block.
    `cluster_placement`: its machines are to stand close together, and nothing else sees to it.
    """

    name: str
    instance: InstanceType
    nodes: int
    desired_nodes: int
    zone_id: str | None
    capacity: str | None
    reservation_id: str | None
    block: CapacityBlock | None
    efa_slots: tuple[EfaSlot, ...]
    cluster_placement: bool
    root_volume_gib: int
    ami_release_version: str | None
    labels: Mapping[str, str]
    taint: tuple[str, str]
    cost: Cost


@dataclass(frozen=True)
class PodResources:
    """What the engine's container asks for on each node: milli-CPU, MiB of memory, GPUs, GiB of shared memory.

    Where an engine runs on several nodes also EFA interfaces, and MiB of huge pages for them.
    """

    cpu_millis: int
    memory_mib: int
    gpus: int
    shared_memory_gib: int
    efa_interfaces: int
    hugepages_mib: int


@dataclass(frozen=True)
class Rollout:
    """How a rolling update replaces pods. `stops_serving_seconds` is 0 if some replica serves throughout.

    Never `Recreate`: while it takes the old pod down, Pulumi's Kubernetes provider (4.32.0) finds the old revision complete:
    8 of 20 measured updates ended before the new pod had started. Without surge a rolling update, too, ends the old pod first.
    """

    max_surge: int
    max_unavailable: int
    stops_serving_seconds: int


@dataclass(frozen=True)
class WorkloadPlan:
    """A model served by vLLM, with everything its Kubernetes objects say. `expectations` is the gate's expect file.

    `command` is that of the pod that answers requests, `worker_command` that of the other pods of its group, if it has any.
    `gate_runs` is how often the gate tries before its container ends. `replicas` is how many run: outside of an active Capacity
    Block none, because a pod that waits for machines would fail the update at its deadline, and be found failed by the next.
    """

    name: str
    kind: WorkloadKind
    namespace: str
    node_pool: str
    checkpoint: Checkpoint
    revision: str
    weights_mirror: str | None
    image: str
    engine_version: str
    replicas: int
    nodes_per_replica: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    decode_context_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    kv_offload_gib: int | None
    command: tuple[str, ...]
    worker_command: tuple[str, ...]
    env: Mapping[str, str]
    port: int
    cache_path: str
    resources: PodResources
    node_selector: Mapping[str, str]
    taint: tuple[str, str]
    rollout: Rollout
    timing: Timing
    expectations: Mapping[str, object]
    gate_runs: int
    memory: MemoryBreakdown
    facts: WorkloadFacts
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Plan:
    """A whole stack: its cluster, pools, workloads, and what the rules say."""

    stack: str
    region: str | None
    cluster: EksClusterConfig | ExistingClusterConfig
    node_pools: Mapping[str, NodePoolPlan]
    workloads: Mapping[str, WorkloadPlan]

    @property
    def cluster_name(self) -> str:
        """The EKS cluster's name: fixed, because tags and its log group name it before it exists."""
        return f"{PROJECT}-{self.stack}"

    @property
    def installs_device_plugin(self) -> bool:
        """Whether the stack brings the NVIDIA device plugin; an existing cluster may have its own."""
        return isinstance(self.cluster, EksClusterConfig) or self.cluster.install_device_plugin

    @property
    def efa_plugin_image(self) -> str | None:
        """The EFA device plugin that the stack brings, by digest; None where no pool has EFA or its owner sees to it."""
        if not self.installs_device_plugin or not any(pool.efa_slots for pool in self.node_pools.values()):
            return None
        return self.cluster.efa_plugin_image or catalogue.image("efa-plugin").reference

    @property
    def installs_leader_worker_set(self) -> bool:
        """Whether the stack brings the LeaderWorkerSet controller; an existing cluster may have its own."""
        ours = isinstance(self.cluster, EksClusterConfig) or self.cluster.install_leader_worker_set
        return ours and self.has_groups

    @property
    def has_groups(self) -> bool:
        """Whether a replica of some workload is a group of pods, which the LeaderWorkerSet controller keeps."""
        return any(row.kind == "LeaderWorkerSet" for row in self.workloads.values())

    @property
    def violations(self) -> list[Violation]:
        """Every refusal, workload by workload in the table's order."""
        return [refusal for row in self.workloads.values() for refusal in violations(row.verdicts)]

    @property
    def advice(self) -> list[Violation]:
        """What advisory rules have to say, workload by workload in the table's order; it refuses nothing."""
        return [row for workload in self.workloads.values() for row in advice(workload.verdicts)]

    @property
    def cost(self) -> Cost:
        """All pools together; without a figure if one pool has none."""
        rates = [pool.cost.hourly_usd for pool in self.node_pools.values()]
        known = [rate for rate in rates if rate is not None]
        total = sum(known) if len(known) == len(rates) else None
        return Cost(total, "GPU nodes only: control plane, system nodes, NAT and traffic come on top")


def build(config: StackConfig, stack: str) -> Plan:
    """Derive the plan of a stack. Never refuses: `violations` says what the rules refuse."""
    pools = {name: _node_pool(name, row, config) for name, row in config.node_pools.items()}
    nodes = [(row.node_pool, row.replicas * row.nodes_per_replica) for row in config.workloads.values()]
    used = {name: sum(taken for pool, taken in nodes if pool == name) for name in pools}
    workloads = {
        name: _workload(name, row, pools[row.node_pool], pools[row.node_pool].nodes - used[row.node_pool])
        for name, row in config.workloads.items()
    }
    return Plan(stack, config.region, config.cluster, pools, workloads)


def _node_pool(name: str, pool: NodePoolConfig, config: StackConfig) -> NodePoolPlan:
    instance = catalogue.instance_type(pool.instance_type)
    release = pool.ami_release_version
    if release is None and isinstance(config.cluster, EksClusterConfig):
        release = catalogue.kubernetes_version(config.cluster.kubernetes_version).ami_release_version
    capacity = pool.capacity.kind if pool.capacity else None
    block = pool.capacity if isinstance(pool.capacity, CapacityBlock) else None
    desired = pool.nodes if block is None or block.is_active else 0
    return NodePoolPlan(
        name=name,
        instance=instance,
        nodes=pool.nodes,
        desired_nodes=desired,
        zone_id=pool.availability_zone_id,
        capacity=capacity,
        reservation_id=getattr(pool.capacity, "reservation_id", None),
        block=block,
        efa_slots=instance.efa_interfaces if pool.efa else (),
        # Reserved machines stand where their reservation has them: a Capacity Block's are close together by themselves.
        cluster_placement=pool.efa and capacity == "onDemand",
        root_volume_gib=pool.root_volume_gib,
        ami_release_version=release,
        labels={
            # The AMI sets this label only from Kubernetes 1.35 on; the device plugin selects on it.
            GPU_LABEL: "true",
            **({EFA_LABEL: "true"} if pool.efa else {}),
            "accelerator.nvidia.com/class": accelerator_class(instance),
            NODE_POOL_LABEL: name,
        },
        taint=(GPU_RESOURCE, GPU_TAINT_VALUE),
        cost=pool_cost(instance, desired, config.region, capacity),
    )


def accelerator_class(instance: InstanceType) -> str:
    """Return the cookbook's label for a machine: h200-8gpu, b200-8gpu."""
    return f"{instance.gpu.name.lower()}-{instance.gpus}gpu"


def _workload(name: str, row: WorkloadConfig, pool: NodePoolPlan, spare_nodes: int) -> WorkloadPlan:
    checkpoint = catalogue.checkpoint_for(row.model, row.precision)
    engine = catalogue.engine(row.vllm_version)
    image = f"{catalogue.image('vllm').repository}@{engine.digest}" if row.image is None else row.image
    needle = long_needle_tokens(row.gate, row.max_model_len)
    times = timing(checkpoint, row.replicas, needle, row.nodes_per_replica)
    settings = EngineSettings(
        checkpoint=checkpoint,
        revision=_revision(row, checkpoint),
        gpu=pool.instance.gpu,
        nodes=row.nodes_per_replica,
        tensor_parallel_size=row.nodes_per_replica * pool.instance.gpus // row.pipeline_parallel_size,
        layer_partition=aligned_partition(checkpoint.architecture, row.pipeline_parallel_size),
        decode_context_parallel_size=row.decode_context_parallel_size,
        max_model_len=row.max_model_len,
        max_num_seqs=row.max_num_seqs or derived_max_num_seqs(row.speculative_tokens, row.max_model_len),
        max_num_batched_tokens=row.max_num_batched_tokens,
        gpu_memory_utilization=row.gpu_memory_utilization,
        kv_cache_dtype=row.kv_cache_dtype or default_kv_cache_dtype(pool.instance.gpu),
        speculative_tokens=row.speculative_tokens,
        tool_calling=row.tool_calling,
        reasoning=row.reasoning,
        load_format=row.load_format,
        kv_offload=_kv_offload(row, engine),
        shutdown_timeout_seconds=times.shutdown_timeout_seconds,
        engine_ready_timeout_seconds=times.engine_ready_timeout_seconds,
        rendezvous_timeout_seconds=times.fetch_budget_seconds,
        cache_path=cache_path(name, image),
    )
    argv = command(settings)
    env = {**environment(settings), **row.env}
    resources = _resources(pool, row)
    facts = from_command(
        name,
        argv,
        env,
        image,
        pool.instance,
        engine=engine,
        shared_memory_gib=resources.shared_memory_gib,
        memory_limited=True,
        host_paths=(HostPath(NODE_DISK, "Directory"),),
        gated=True,
    )
    if facts.shape is None:  # both come from the catalogue here
        raise AssertionError(f"workload {name}: engine or checkpoint is not in the catalogue")
    memory = breakdown(facts.shape)
    return WorkloadPlan(
        name=name,
        kind="LeaderWorkerSet" if row.nodes_per_replica > 1 else "Deployment",
        namespace=name,
        node_pool=pool.name,
        checkpoint=checkpoint,
        revision=settings.revision,
        weights_mirror=row.weights_mirror,
        image=image,
        engine_version=engine.version,
        replicas=row.replicas if pool.desired_nodes else 0,
        nodes_per_replica=facts.nodes_per_replica,
        tensor_parallel_size=settings.tensor_parallel_size,
        pipeline_parallel_size=row.pipeline_parallel_size,
        decode_context_parallel_size=row.decode_context_parallel_size,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        kv_offload_gib=row.kv_offload_gib,
        command=argv,
        worker_command=worker_command(settings),
        env=env,
        port=PORT,
        cache_path=settings.cache_path,
        resources=resources,
        node_selector=_node_selector(pool),
        taint=pool.taint,
        rollout=_rollout(row, spare_nodes, times),
        timing=times,
        expectations=expectations(
            settings,
            image=image,
            engine_version=engine.version,
            kv_cache_tokens=memory.kv_pool_tokens,
            times=times,
            gate=row.gate,
        ),
        # The kubelet starts a gate again that has ended; the end of a container in a group would end the whole group.
        gate_runs=GATE_RUNS if row.nodes_per_replica > 1 else 1,
        memory=memory,
        facts=facts,
        verdicts=tuple(judge(facts)),
    )


def _revision(row: WorkloadConfig, checkpoint: Checkpoint) -> str:
    revision = checkpoint.revision if row.revision is None else row.revision
    if revision is None:  # the configuration asks for one where the catalogue has none
        raise AssertionError(f"{checkpoint.repository} has no revision")
    return revision


def derived_max_num_seqs(speculative_tokens: int, max_model_len: int) -> int:
    """Return the most requests whose decode step stays inside the largest CUDA graph and within the safe scratch.

    Inside the graph the indexer's logits are in vLLM's own profile; beyond it nothing counts them (rule decode-scratch).
    """
    tokens = 1 + speculative_tokens
    in_graph = largest_captured_batch(speculative_tokens) // tokens
    in_scratch = int(DECODE_SCRATCH_LIMIT_GIB / decode_scratch_gib(1, speculative_tokens, max_model_len))
    return max(min(in_graph, in_scratch), 1)


def cache_path(workload: str, image: str) -> str:
    """Return the folder for compiled code inside the container: one for an image's digest and a pod's slot on its node.

    A replica takes a whole node, so every node has one slot of a workload. An image without a digest is refused by a rule.
    """
    return f"{CACHES_MOUNT}/{short_digest(image) or 'unpinned'}/{workload}-0"


def _rollout(row: WorkloadConfig, spare_nodes: int, times: Timing) -> Rollout:
    """Choose the strategy from spare capacity: a replica takes whole nodes, so a surge needs as many spare ones.

    A group that is the only one is replaced in place, whatever is spare: told to add one first, LeaderWorkerSet 0.7.0 gives
    that one up before it is made, and never begins the update (kubernetes-sigs/lws pulls 491 and 779; seen in a rehearsal).
    """
    only_group = row.nodes_per_replica > 1 and row.replicas == 1
    if spare_nodes >= row.nodes_per_replica and not only_group:
        return Rollout(max_surge=1, max_unavailable=0, stops_serving_seconds=0)
    if row.replicas > 1:
        return Rollout(max_surge=0, max_unavailable=1, stops_serving_seconds=0)
    stops = times.termination_grace_period_seconds + times.expected_restart_seconds
    return Rollout(max_surge=0, max_unavailable=1, stops_serving_seconds=stops)


def _kv_offload(row: WorkloadConfig, engine: Engine) -> KvOffload | None:
    if row.kv_offload_gib is None or engine.kv_offload_connector is None:
        return None
    return KvOffload(engine.kv_offload_connector, row.kv_offload_gib)


def _resources(pool: NodePoolPlan, row: WorkloadConfig) -> PodResources:
    nodes = row.nodes_per_replica
    return PodResources(
        cpu_millis=pod_cpu_millis(pool.instance),
        memory_mib=pod_memory_mib(pool.instance),
        gpus=pool.instance.gpus,
        shared_memory_gib=ENGINE_SHARED_MEMORY_GIB + (row.kv_offload_gib or 0),
        efa_interfaces=len(pool.efa_slots) if nodes > 1 else 0,
        hugepages_mib=_EFA_HUGEPAGES_MIB if nodes > 1 else 0,
    )


def _node_selector(pool: NodePoolPlan) -> dict[str, str]:
    """Return the labels a replica selects; on an existing cluster only the machine's class, which its owner labels."""
    keys = ["accelerator.nvidia.com/class"]
    if pool.capacity is not None:
        keys.append(NODE_POOL_LABEL)
    return {key: pool.labels[key] for key in keys}
