"""The cluster a stack runs on, made with its network and node pools, or found."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components.eks_cluster import EksCluster, EksClusterArgs
from components.existing_cluster import ExistingCluster
from components.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from components.network import Network, NetworkArgs
from components.weights_access import WeightsAccess, WeightsAccessArgs
from serving.config import EksClusterConfig
from serving.plan import Plan, WorkloadPlan


@dataclass(frozen=True)
class Cluster:
    """What workloads need of a cluster: a provider, and the pools to wait for (none on an existing cluster).

    `eks_name` is an EKS cluster's name, whose pods get AWS credentials through Pod Identity; None on an existing cluster.
    """

    provider: k8s.Provider
    kubeconfig: pulumi.Output[str]
    node_pools: list[pulumi.Resource]
    eks_name: pulumi.Output[str] | None

    def access_to_weights(self, workload: WorkloadPlan) -> list[pulumi.Resource]:
        """Let a workload's pods read its mirror, if it has one; on an existing cluster that is its owner's to do."""
        if workload.weights_mirror is None or self.eks_name is None:
            return []
        args = WeightsAccessArgs(workload=workload, mirror=workload.weights_mirror, cluster_name=self.eks_name)
        return [WeightsAccess(f"{workload.name}-weights-access", args)]


def cluster_of(plan: Plan) -> Cluster:
    """Create or find the cluster of a plan."""
    if isinstance(plan.cluster, EksClusterConfig):
        return _eks(plan, plan.cluster)
    existing = ExistingCluster("cluster", plan.cluster)
    return Cluster(existing.provider, existing.kubeconfig, [], None)


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
            name,
            GpuNodePoolArgs(
                pool=pool,
                cluster=cluster,
                vpc_id=network.vpc_id,
                subnet_id=network.private_subnet_ids[pool.zone_id or ""],
            ),
        )
        for name, pool in plan.node_pools.items()
    ]
    return Cluster(cluster.provider, cluster.kubeconfig, pools, cluster.cluster_name)
