"""The cluster a stack runs on, made with its network and node pools, or found."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components.eks_cluster import EksCluster, EksClusterArgs
from components.existing_cluster import ExistingCluster
from components.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from components.network import Network, NetworkArgs
from serving.config import EksClusterConfig
from serving.plan import Plan


@dataclass(frozen=True)
class Cluster:
    """What workloads need of a cluster: a provider, and the pools to wait for (none on an existing cluster)."""

    provider: k8s.Provider
    kubeconfig: pulumi.Output[str]
    node_pools: list[pulumi.Resource]


def cluster_of(plan: Plan) -> Cluster:
    """Create or find the cluster of a plan."""
    if isinstance(plan.cluster, EksClusterConfig):
        return _eks(plan, plan.cluster)
    existing = ExistingCluster("cluster", plan.cluster)
    return Cluster(existing.provider, existing.kubeconfig, [])


def _eks(plan: Plan, config: EksClusterConfig) -> Cluster:
    region = plan.region or ""
    network = Network(
        "network",
        NetworkArgs(
            vpc_cidr=config.vpc_cidr,
            availability_zone_ids=config.availability_zone_ids,
            cluster_name=plan.cluster_name,
            region=region,
        ),
    )
    cluster = EksCluster(
        "cluster", EksClusterArgs(config=config, cluster_name=plan.cluster_name, region=region, network=network)
    )
    pools: list[pulumi.Resource] = [
        GpuNodePool(
            name, GpuNodePoolArgs(pool=pool, cluster=cluster, subnet_id=network.private_subnet_ids[pool.zone_id or ""])
        )
        for name, pool in plan.node_pools.items()
    ]
    return Cluster(cluster.provider, cluster.kubeconfig, pools)
