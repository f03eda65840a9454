"""Stack files and programs that the graph tests run: the AWS half of a stack, from configuration to registrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pulumi

from components.eks_cluster import EksCluster, EksClusterArgs
from components.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from components.network import Network, NetworkArgs
from serving.config import EksClusterConfig, parse
from serving.plan import Plan, build
from tests.graph.harness import REGION

CLUSTER_NAME = "glm-on-gpus-test"
ADMIN = "arn:aws:iam::123456789012:role/platform"
BLOCK = {"kind": "capacityBlock", "reservationId": "cr-0123456789abcdef0"}
SCHEDULED = {**BLOCK, "phase": "scheduled", "startsAt": "2026-12-01T11:30:00Z"}
ENDED = {**BLOCK, "phase": "ended"}
RESERVATION = {"kind": "reservation", "reservationId": "cr-0fedcba9876543210"}
EFA_PLUGIN = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/efa-plugin@sha256:{'e' * 64}"
ON_DEMAND = {"kind": "onDemand"}


def plan(*, cluster: Mapping[str, Any] | None = None, pool: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan of a stack with one pool, `gpu`: two 8xB200 machines on demand, unless told otherwise."""
    settings = {
        "aws:region": REGION,
        "glm-on-gpus:cluster": {
            "kind": "eks",
            "availabilityZoneIds": ["use1-az6", "use1-az2"],
            "efaPluginImage": EFA_PLUGIN,
            **(cluster or {}),
        },
        "glm-on-gpus:nodePools": {
            "gpu": {
                "instanceType": "p6-b200.48xlarge",
                "nodes": 2,
                "availabilityZoneId": "use1-az6",
                "capacity": ON_DEMAND,
                **(pool or {}),
            }
        },
        "glm-on-gpus:workloads": {"glm": {"nodePool": "gpu", "precision": "fp8", "replicas": 1, "maxModelLen": 131072}},
    }
    return build(parse(settings), "test")


def cluster_program(**cluster: Any) -> Callable[[], Mapping[str, pulumi.Output[Any]]]:
    """Return a program that makes a network and a cluster."""

    def program() -> Mapping[str, pulumi.Output[Any]]:
        made = make_cluster(plan(cluster=cluster))[0]
        return {"kubeconfig": made.kubeconfig, "clusterSecurityGroupId": made.cluster_security_group_id}

    return program


def pool_program(**pool: Any) -> Callable[[], None]:
    """Return a program that makes a network, a cluster and a pool in it."""

    def program() -> None:
        stack = plan(pool=pool)
        cluster, network = make_cluster(stack)
        row = stack.node_pools["gpu"]
        assert row.zone_id is not None
        subnet = network.private_subnet_ids[row.zone_id]
        GpuNodePool("gpu", GpuNodePoolArgs(row, cluster, network.vpc_id, subnet))

    return program


def make_cluster(stack: Plan) -> tuple[EksCluster, Network]:
    """Make the network and the cluster of a plan, inside a program."""
    config = stack.cluster
    assert isinstance(config, EksClusterConfig)
    network = Network("net", NetworkArgs(config.vpc_cidr, config.availability_zone_ids, CLUSTER_NAME, REGION))
    return EksCluster("eks", EksClusterArgs(config, CLUSTER_NAME, REGION, network)), network
