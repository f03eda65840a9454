from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from email import message_from_bytes, policy
from functools import cache
from typing import Any

import pytest
import yaml

from components.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from tests.graph.harness import CLUSTER_SECURITY_GROUP, UNKNOWN, Recorded, Run, run
from tests.graph.stacks import (
    BLOCK,
    CLUSTER_NAME,
    ENDED,
    ON_DEMAND,
    RESERVATION,
    SCHEDULED,
    make_cluster,
    plan,
    pool_program,
)


def pool(*, preview: bool = False, **settings: Any) -> Run:
    return _run(json.dumps(settings, sort_keys=True), preview)


@cache
def _run(settings: str, preview: bool) -> Run:
    """Run each program once: a run is only read, and the same program registers the same."""
    return run(pool_program(**json.loads(settings)), preview=preview)


def template(result: Run) -> Mapping[str, Any]:
    return result.one("aws:ec2/launchTemplate:LaunchTemplate", "gpu-template").inputs


def nodes(result: Run) -> Recorded:
    return result.one("aws:eks/nodeGroup:NodeGroup", "gpu-nodes")


def test_urns() -> None:
    owned = [urn for urn in pool().urns if "GpuNodePool" in urn]
    assert owned == [
        "glm-on-gpus:gpu_node_pool:GpuNodePool$aws:ec2/launchTemplate:LaunchTemplate::gpu-template",
        "glm-on-gpus:gpu_node_pool:GpuNodePool$aws:eks/nodeGroup:NodeGroup::gpu-nodes",
        "pulumi:pulumi:Stack$glm-on-gpus:gpu_node_pool:GpuNodePool::gpu",
    ]


# --- launch template -----------------------------------------------------------------------------------------------------


def test_template_of_machines_on_demand() -> None:
    inputs = dict(template(pool(rootVolumeGiB=300)))
    inputs.pop("userData")
    tags = {"Name": f"{CLUSTER_NAME}-gpu", "glm-on-gpus/node-pool": "gpu"}
    assert inputs == {
        "instanceType": "p6-b200.48xlarge",
        "metadataOptions": {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1},
        "blockDeviceMappings": [
            {
                "deviceName": "/dev/xvda",
                "ebs": {"volumeSize": 300, "volumeType": "gp3", "encrypted": "true", "deleteOnTermination": "true"},
            }
        ],
        "vpcSecurityGroupIds": [CLUSTER_SECURITY_GROUP],
        "tagSpecifications": [
            {"resourceType": kind, "tags": tags} for kind in ("instance", "volume", "network-interface")
        ],
    }


def test_user_data_makes_one_array_of_the_local_disks() -> None:
    message = message_from_bytes(base64.b64decode(template(pool())["userData"]), policy=policy.default)
    assert message.get_content_type() == "multipart/mixed"
    (part,) = message.iter_parts()
    assert part.get_content_type() == "application/node.eks.aws"
    assert not message.defects
    assert yaml.safe_load(part.get_content()) == {
        "apiVersion": "node.eks.aws/v1alpha1",
        "kind": "NodeConfig",
        "spec": {"instance": {"localStorage": {"strategy": "RAID0"}}},
    }


@pytest.mark.parametrize(
    ("capacity", "market", "reservation"),
    [
        (ON_DEMAND, None, None),
        (RESERVATION, None, "cr-0fedcba9876543210"),
        (BLOCK, {"marketType": "capacity-block"}, "cr-0123456789abcdef0"),
    ],
)
def test_where_the_machines_come_from(
    capacity: dict[str, str], market: dict[str, str] | None, reservation: str | None
) -> None:
    inputs = template(pool(capacity=capacity))
    assert inputs.get("instanceMarketOptions") == market
    target = {"capacityReservationTarget": {"capacityReservationId": reservation}} if reservation else None
    assert inputs.get("capacityReservationSpecification") == target


@pytest.mark.parametrize(
    ("instance_type", "slots"),
    [
        ("p5en.48xlarge", [(0, 1), *((card, 0) for card in range(1, 16))]),
        ("p6-b200.48xlarge", [(0, 1), *((card, 0) for card in range(1, 8))]),
        ("p6-b300.48xlarge", [(card, 0) for card in range(1, 17)]),
    ],
)
def test_efa_interfaces_beside_the_primary_one(instance_type: str, slots: list[tuple[int, int]]) -> None:
    inputs = template(pool(instanceType=instance_type, efa=True))
    assert "vpcSecurityGroupIds" not in inputs  # AWS refuses groups in both places
    assert inputs["networkInterfaces"] == [
        interface("interface", 0, 0, [CLUSTER_SECURITY_GROUP]),
        *(interface("efa-only", card, device, [CLUSTER_SECURITY_GROUP, "gpu-efa-id"]) for card, device in slots),
    ]


def interface(kind: str, card: int, device: int, groups: list[str]) -> dict[str, object]:
    return {
        "interfaceType": kind,
        "networkCardIndex": card,
        "deviceIndex": device,
        "securityGroups": groups,
        "deleteOnTermination": "true",
    }


@pytest.mark.parametrize("way", ["Ingress", "Egress"])
def test_efa_interfaces_talk_to_each_other_and_to_nobody_else(way: str) -> None:
    result = pool(efa=True)
    rules = [row.inputs for row in result.of(f"aws:vpc/securityGroup{way}Rule:SecurityGroup{way}Rule")]
    assert rules == [{"securityGroupId": "gpu-efa-id", "referencedSecurityGroupId": "gpu-efa-id", "ipProtocol": "-1"}]
    assert result.one("aws:ec2/securityGroup:SecurityGroup", "gpu-efa").inputs["vpcId"] == "net-vpc-id"


@pytest.mark.parametrize(
    ("capacity", "efa", "placed"),
    [
        (ON_DEMAND, True, True),
        (ON_DEMAND, False, False),  # nothing on these machines talks to another one
        (RESERVATION, True, False),  # reserved machines stand where the reservation has them
        (BLOCK, True, False),
    ],
)
def test_machines_with_efa_stand_close_together(capacity: dict[str, str], efa: bool, placed: bool) -> None:
    result = pool(capacity=capacity, efa=efa)
    groups = result.of("aws:ec2/placementGroup:PlacementGroup")
    assert [row.inputs for row in groups] == ([{"strategy": "cluster"}] if placed else [])
    assert template(result).get("placement") == ({"groupName": "gpu-placement-1a2b3c4"} if placed else None)


# --- node group ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity", "capacity_type"),
    [(ON_DEMAND, "ON_DEMAND"), (RESERVATION, "ON_DEMAND"), (BLOCK, "CAPACITY_BLOCK")],
)
def test_node_group(capacity: dict[str, str], capacity_type: str) -> None:
    assert nodes(pool(capacity=capacity)).inputs == {
        "clusterName": CLUSTER_NAME,
        "nodeRoleArn": "arn:aws:iam::123456789012:role/eks-node",
        "subnetIds": ["net-private-use1-az6-id"],
        "amiType": "AL2023_x86_64_NVIDIA",
        "capacityType": capacity_type,
        "version": "1.36",
        "releaseVersion": "1.36.2-20260714",
        "launchTemplate": {"id": "gpu-template-id", "version": "7"},
        "labels": {
            "nvidia.com/gpu.present": "true",
            "accelerator.nvidia.com/class": "b200-8gpu",
            "glm-on-gpus/node-pool": "gpu",
        },
        "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}],
        "scalingConfig": {"minSize": 0, "maxSize": 2, "desiredSize": 2},
        "updateConfig": {"maxUnavailable": 1, "updateStrategy": "MINIMAL"},
        "nodeRepairConfig": {
            "enabled": True,
            "maxParallelNodesRepairedCount": 1,
            "nodeRepairConfigOverrides": [left_alone("NvidiaXID13Error"), left_alone("NvidiaXID31Error")],
        },
    }


def left_alone(reason: str) -> dict[str, object]:
    return {
        "nodeMonitoringCondition": "AcceleratedHardwareReady",
        "nodeUnhealthyReason": reason,
        "minRepairWaitTimeMins": 10,
        "repairAction": "NoAction",
    }


@pytest.mark.parametrize(
    ("capacity", "replaces"),
    [
        (ON_DEMAND, ()),
        (RESERVATION, ()),
        (BLOCK, ("launchTemplate", "releaseVersion", "version")),
    ],
)
def test_what_replaces_a_pool(capacity: dict[str, str], replaces: tuple[str, ...]) -> None:
    row = nodes(pool(capacity=capacity))
    assert row.ignore_changes == ()
    assert row.replace_on_changes == replaces
    assert row.replacement_trigger == "p6-b200.48xlarge"
    assert row.delete_before_replace


@pytest.mark.parametrize(
    ("capacity", "desired"), [(SCHEDULED, 0), (BLOCK, 2), ({**BLOCK, "phase": "active"}, 2), (ENDED, 0)]
)
def test_machines_run_in_an_active_block_only(capacity: dict[str, str], desired: int) -> None:
    """The program keeps the desired size, and nothing else follows from the phase: so EKS scales the same node group."""
    active, found = pool(capacity=BLOCK), pool(capacity=capacity)
    row = nodes(found)
    assert row.inputs == {
        **nodes(active).inputs,
        "scalingConfig": {"minSize": 0, "maxSize": 2, "desiredSize": desired},
    }
    assert template(found) == template(active)
    assert row.ignore_changes == ()


@pytest.mark.parametrize(("count", "update"), [(1, "1h"), (2, "2h"), (8, "8h")])
def test_nodes_are_waited_for_one_by_one(count: int, update: str) -> None:
    assert nodes(pool(nodes=count)).timeouts == {"create": "75m", "update": update, "delete": "60m"}


def test_nodes_come_after_what_makes_them_ready() -> None:
    result = pool()
    waits_for = {
        "Addon eks-eks-pod-identity-agent",
        "Addon eks-vpc-cni",
        "Addon eks-kube-proxy",
        "RolePolicyAttachment eks-node-AmazonEKSWorkerNodePolicy",
        "RolePolicyAttachment eks-node-AmazonEC2ContainerRegistryPullOnly",
        "Route net-private-use1-az6",
        "LaunchTemplate gpu-template",
    }
    assert waits_for <= result.dependencies(nodes(result))
    # Time in a block is paid for: it is not spent on waiting for system nodes.
    assert "NodeGroup eks-system" not in result.all_dependencies(nodes(result))


def test_the_subnet_of_the_pools_zone_and_a_release_of_its_own() -> None:
    inputs = nodes(
        pool(availabilityZoneId="use1-az2", instanceType="p5en.48xlarge", amiReleaseVersion="1.36.1-20260610")
    ).inputs
    assert inputs["subnetIds"] == ["net-private-use1-az2-id"]
    assert inputs["releaseVersion"] == "1.36.1-20260610"
    assert inputs["labels"]["accelerator.nvidia.com/class"] == "h200-8gpu"


def test_what_policies_see() -> None:
    result = pool(capacity=BLOCK, efa=True)
    component = result.one("glm-on-gpus:gpu_node_pool:GpuNodePool")
    assert component.inputs == {
        "nodePool": "gpu",
        "instanceType": "p6-b200.48xlarge",
        "gpu": "B200",
        "gpusPerNode": 8,
        "nodes": 2,
        "availabilityZoneId": "use1-az6",
        "capacity": "capacityBlock",
        "reservationId": "cr-0123456789abcdef0",
        "phase": "active",
        "amiReleaseVersion": "1.36.2-20260714",
        "efaInterfaces": 8,
        "labels": {
            "nvidia.com/gpu.present": "true",
            "vpc.amazonaws.com/efa.present": "true",
            "accelerator.nvidia.com/class": "b200-8gpu",
            "glm-on-gpus/node-pool": "gpu",
        },
    }
    assert result.component_outputs[component.urn] == {"nodeGroupName": "gpu-nodes-1a2b3c4"}


@pytest.mark.parametrize("capacity", [ON_DEMAND, BLOCK])
@pytest.mark.parametrize("efa", [False, True])
def test_a_preview_registers_the_same(capacity: dict[str, str], efa: bool) -> None:
    preview = pool(preview=True, capacity=capacity, efa=efa)
    update = pool(capacity=capacity, efa=efa)
    assert preview.urns == update.urns
    assert nodes(preview).inputs["launchTemplate"] == {"id": UNKNOWN, "version": UNKNOWN}
    assert nodes(preview).inputs["subnetIds"] == [UNKNOWN]
    assert template(preview)["userData"] == template(update)["userData"]


def test_a_pool_without_capacity_is_not_made_here() -> None:
    def program() -> None:
        stack = plan()
        cluster, network = make_cluster(stack)
        row = replace(stack.node_pools["gpu"], capacity=None)
        GpuNodePool("gpu", GpuNodePoolArgs(row, cluster, network.vpc_id, network.private_subnet_ids["use1-az6"]))

    with pytest.raises(ValueError, match="node pool gpu says no capacity: its nodes are not provisioned here"):
        run(program)
