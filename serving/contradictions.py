"""What no single field of a stack file can say: settings that are fine by themselves and contradict each other.

Every problem is one sentence that begins with the path of the setting to change.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from serving import catalogue
from serving.host import ENGINE_HOST_GIB, ENGINE_SHARED_MEMORY_GIB, pod_memory_mib
from serving.parallelism import context_problem, rank_problem
from serving.spelling import UnknownKeyError, allowed, did_you_mean, listed

if TYPE_CHECKING:
    from serving.config import CapacityBlock, EksClusterConfig, NodePoolConfig, StackConfig, WorkloadConfig

# Namespaces that are Kubernetes' or this stack's own: `destroy` would take them away.
_RESERVED_NAMES = ("default", "efa-device-plugin", "lws-system", "nvidia-device-plugin")

# Variables that other settings rest on: an override would go unseen by them.
_DERIVED_VARIABLES = {
    "VLLM_ENGINE_READY_TIMEOUT_S": "probes and deadlines are timed by the same number",
    "HF_HUB_OFFLINE": "the weights are on the node and verified",
    "HF_HUB_CACHE": "the weights are mounted there",
}


# Every block ends at 11:30 UTC, and lasts 182 days at most (EC2 user guide, capacity-blocks).
_BLOCK_ENDS = (11, 30)
_LONGEST_BLOCK = timedelta(days=182)


def contradictions(config: StackConfig) -> Iterator[str]:
    """Yield one sentence for each setting that another one contradicts."""
    for name, pool in config.node_pools.items():
        path = f"nodePools.{name}"
        if config.cluster.kind == "eks":
            yield from _eks_pool_problems(path, pool, config.cluster, config.region)
        else:
            yield from _existing_pool_problems(path, pool)
    if config.cluster.kind == "eks":
        yield from _zone_problems(config.cluster, config.region)
    for name, workload in config.workloads.items():
        yield from _name_problems(name)
        yield from _workload_problems(f"workloads.{name}", workload, config)
    yield from _phase_problems(config)
    yield from _capacity_problems(config)
    yield from _efa_plugin_problems(config)


def _zone_problems(cluster: EksClusterConfig, region: str | None) -> Iterator[str]:
    if region is None:
        yield "aws:region: missing; expected an AWS region such as us-east-1"
        return
    if region not in catalogue.regions():
        known = sorted(catalogue.regions())
        yield (
            f"aws:region: {region!r} offers none of the catalogue's machines; {allowed(known)}{did_you_mean(region, known)}"
        )
        return
    prefix = catalogue.regions()[region]
    elsewhere = [zone for zone in cluster.availability_zone_ids if zone.rpartition("-")[0] != prefix]
    if elsewhere:
        yield (
            f"cluster.availabilityZoneIds: {listed(elsewhere, 'and')} {'are' if len(elsewhere) > 1 else 'is'} not in {region}, "
            f"whose zone ids begin with {prefix}-az"
        )
    if len(set(cluster.availability_zone_ids)) < len(cluster.availability_zone_ids):
        yield f"cluster.availabilityZoneIds: {list(cluster.availability_zone_ids)} names a zone twice; name each zone once"


def _eks_pool_problems(path: str, pool: NodePoolConfig, cluster: EksClusterConfig, region: str | None) -> Iterator[str]:
    offered = catalogue.instance_type(pool.instance_type).availability_zone_ids
    prefix = catalogue.regions().get(region or "")
    here = [zone for zone in offered if zone.rpartition("-")[0] == prefix]
    zone = pool.availability_zone_id
    if pool.capacity is None:
        yield f"{path}.capacity: missing; expected {type(pool).model_fields['capacity'].description}"
    elif pool.capacity.kind == "capacityBlock":
        yield from _block_problems(f"{path}.capacity", pool.capacity)
    if prefix and not here:
        regions = catalogue.instance_type(pool.instance_type).regions
        yield f"{path}.instanceType: {pool.instance_type} is not offered in {region}; it is in {listed(regions, 'and')}"
    elif zone is None:
        yield f"{path}.availabilityZoneId: missing; {pool.instance_type} is offered in {listed(here)}"
    elif prefix and zone not in here:
        yield (
            f"{path}.availabilityZoneId: {zone!r} does not offer {pool.instance_type}; "
            f"in {region} these do: {listed(here)}{did_you_mean(zone, here)}"
        )
    elif zone not in cluster.availability_zone_ids:
        yield (
            f"{path}.availabilityZoneId: {zone!r} is not one of the cluster's zones; "
            f"add it to cluster.availabilityZoneIds, now {listed(cluster.availability_zone_ids, 'and')}"
        )
    release = pool.ami_release_version
    if release is not None and not release.startswith(f"{cluster.kubernetes_version}."):
        yield (
            f"{path}.amiReleaseVersion: {release!r} is not a release for Kubernetes {cluster.kubernetes_version}; "
            f"name one that begins with {cluster.kubernetes_version}., or leave it out"
        )


def _block_problems(path: str, block: CapacityBlock) -> Iterator[str]:
    """Say what is wrong with when a block begins and ends."""
    starts, ends = block.starts_at, block.ends_at
    if block.phase == "scheduled" and starts is None:
        expected = type(block).model_fields["starts_at"].description
        yield f"{path}.startsAt: missing, and a scheduled block has a start that everybody waits for; expected {expected}"
    if ends is None:
        return
    end = ends.astimezone(UTC)
    if (end.hour, end.minute, end.second) != (*_BLOCK_ENDS, 0):
        yield (
            f"{path}.endsAt: {end:%H:%M:%S} UTC is no block's end, all end at 11:30 UTC; take EndDate as "
            f"aws ec2 describe-capacity-reservations --capacity-reservation-ids {block.reservation_id} says it"
        )
    if starts is not None and not starts < ends:
        yield f"{path}.endsAt: {ends.isoformat()} is not after startsAt, {starts.isoformat()}; set both as AWS says them"
    if starts is not None and ends - starts > _LONGEST_BLOCK:
        yield (
            f"{path}.endsAt: is {(ends - starts).days} days after startsAt, and a block lasts 182 at most; "
            "set both as AWS says them"
        )


def _phase_problems(config: StackConfig) -> Iterator[str]:
    """Refuse two pools in one block that tell different stories of it."""
    seen: dict[str, tuple[str, CapacityBlock]] = {}
    for name, pool in config.node_pools.items():
        if pool.capacity is None or pool.capacity.kind != "capacityBlock":
            continue
        block = pool.capacity
        other, said = seen.setdefault(block.reservation_id, (name, block))
        for setting in ("phase", "starts_at", "ends_at"):
            ours, theirs = getattr(block, setting), getattr(said, setting)
            if ours != theirs:
                key = type(block).model_fields[setting].alias
                yield (
                    f"nodePools.{name}.capacity.{key}: differs from nodePools.{other}.capacity.{key}, and both are in block "
                    f"{block.reservation_id}; set both to the same"
                )


def _existing_pool_problems(path: str, pool: NodePoolConfig) -> Iterator[str]:
    unused = {
        "capacity": pool.capacity,
        "availabilityZoneId": pool.availability_zone_id,
        "amiReleaseVersion": pool.ami_release_version,
    }
    for field, value in unused.items():
        if value is not None:
            yield f"{path}.{field}: the nodes of an existing cluster are not provisioned here; leave {field} out"


def _name_problems(name: str) -> Iterator[str]:
    if name in _RESERVED_NAMES or name.startswith("kube-"):
        yield (
            f"workloads.{name}: a workload's name is its namespace, and {name} belongs to others; "
            "choose another name such as glm"
        )


def _workload_problems(path: str, workload: WorkloadConfig, config: StackConfig) -> Iterator[str]:
    for name in workload.env.keys() & _DERIVED_VARIABLES.keys():
        yield f"{path}.env.{name}: the plan sets it ({_DERIVED_VARIABLES[name]}); leave it out"
    pool = config.node_pools.get(workload.node_pool)
    if pool is None:
        pools = list(config.node_pools)
        yield (
            f"{path}.nodePool: there is no node pool {workload.node_pool!r}; "
            f"{allowed(pools)}{did_you_mean(workload.node_pool, pools)}"
        )
    else:
        yield from _group_problems(path, workload, pool)
        yield from _offload_problems(path, workload, pool)
    try:
        checkpoint = catalogue.checkpoint_for(workload.model, workload.precision)
    except UnknownKeyError as error:
        yield f"{path}.precision: {error}"
    else:
        if checkpoint.thinking == "always" and not workload.reasoning:
            yield (
                f"{path}.reasoning: {workload.model} always thinks, and without a reasoning parser its thoughts end up in "
                "every answer; leave reasoning out"
            )
        if workload.revision is None and checkpoint.revision is None:
            yield (
                f"{path}.revision: missing, and the catalogue knows no revision of {checkpoint.repository}; "
                "set it to a commit of that repository, 40 hexadecimal digits"
            )
    if workload.image is None and catalogue.engine(workload.vllm_version).digest is None:
        with_digest = [row.version for row in catalogue.engines().values() if row.digest]
        yield (
            f"{path}.vllmVersion: no public image digest of vLLM {workload.vllm_version} is known; "
            f"pin it (python -m serving pin vllm {workload.vllm_version}), set {path}.image to your copy by digest, "
            f"or use {listed(with_digest)}"
        )


def _offload_problems(path: str, workload: WorkloadConfig, pool: NodePoolConfig) -> Iterator[str]:
    """Say what keeps KV cache from being moved to the host's memory."""
    gib = workload.kv_offload_gib
    if gib is None:
        return
    if catalogue.engine(workload.vllm_version).kv_offload_connector is None:
        able = [row.version for row in catalogue.engines().values() if row.kv_offload_connector]
        yield (
            f"{path}.kvOffloadGiB: nobody has looked how vLLM {workload.vllm_version} offloads KV cache; leave it out, or use "
            f"vllmVersion {listed(able)}"
        )
    if workload.nodes_per_replica > 1:
        yield f"{path}.kvOffloadGiB: not known to work for an engine on several nodes; leave it out"
    instance = catalogue.instance_type(pool.instance_type)
    most = pod_memory_mib(instance) // 1024 - ENGINE_HOST_GIB - ENGINE_SHARED_MEMORY_GIB
    if gib > most:
        yield (
            f"{path}.kvOffloadGiB: {gib} GiB beside {ENGINE_HOST_GIB} GiB for the engine and {ENGINE_SHARED_MEMORY_GIB} GiB of "
            f"its shared memory are more than the {pod_memory_mib(instance) // 1024} GiB that a pod has on {instance.name}; "
            f"at most {most} fit"
        )


def _group_problems(path: str, workload: WorkloadConfig, pool: NodePoolConfig) -> Iterator[str]:
    """Say what keeps a replica's nodes from serving one model together."""
    nodes, stages = workload.nodes_per_replica, workload.pipeline_parallel_size
    if nodes > 1 and not pool.efa:
        yield (
            f"{path}.nodesPerReplica: {nodes} nodes exchange the output of every layer, and nodePools.{workload.node_pool}.efa "
            "is false; set it to true (over TCP they are about 28 times slower)"
        )
    architecture = catalogue.architecture_of(workload.model)
    gpus = nodes * catalogue.instance_type(pool.instance_type).gpus
    problem = rank_problem(architecture, workload.precision, gpus, stages)
    if problem:
        setting = "nodesPerReplica" if stages == 1 else "pipelineParallelSize"
        yield f"{path}.{setting}: {problem}; change nodesPerReplica or pipelineParallelSize"
        return
    shares = context_problem(gpus // stages, workload.decode_context_parallel_size)
    if shares:
        yield f"{path}.decodeContextParallelSize: {shares}"


def _efa_plugin_problems(config: StackConfig) -> Iterator[str]:
    cluster, plugin = config.cluster, catalogue.image("efa-plugin")
    pools = [name for name, pool in config.node_pools.items() if pool.efa]
    installed = cluster.kind == "eks" or cluster.install_device_plugin
    if pools and installed and cluster.efa_plugin_image is None and plugin.digest is None:
        yield (
            f"cluster.efaPluginImage: missing, nodePools.{pools[0]}.efa needs it, and no public digest of the EFA device plugin "
            f"{plugin.version} is known; pin it (python -m serving pin efa-plugin {plugin.version}), or set it to your copy by "
            "digest, repository@sha256:…"
        )


def _capacity_problems(config: StackConfig) -> Iterator[str]:
    for name, pool in config.node_pools.items():
        users = {key: row for key, row in config.workloads.items() if row.node_pool == name}
        needed = sum(row.replicas * row.nodes_per_replica for row in users.values())
        if needed > pool.nodes:
            asked = listed([f"{row.replicas} of {key}" for key, row in users.items()], "and")
            sizes = [
                f"{row.nodes_per_replica} for each of {key}" for key, row in users.items() if row.nodes_per_replica > 1
            ]
            each = listed(sizes, "and") if sizes else "one each"
            path = f"workloads.{next(iter(users))}.replicas"
            yield (
                f"{path}: the replicas ({asked}) need {needed} nodes, {each}, "
                f"but nodePools.{name}.nodes is {pool.nodes}; lower the replicas or raise the nodes"
            )
