"""A pool of eight-GPU machines: a launch template and a managed node group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components.eks_cluster import EksCluster
from components.node_template import encrypted_root, metadata_options, node_config, pinned, tag_specifications
from serving.plan import NODE_POOL_LABEL, NodePoolPlan

_CAPACITY_TYPES = {"onDemand": "ON_DEMAND", "reservation": "ON_DEMAND", "capacityBlock": "CAPACITY_BLOCK"}

# One RAID0 array over the local disks, at /mnt/k8s-disks/0, with kubelet, containerd and pod logs on it too: about 28 TB for
# weights, images and caches. They are lost with the node, and all of them can be fetched again.
_LOCAL_STORAGE = {"instance": {"localStorage": {"strategy": "RAID0"}}}

# XID 13 (a kernel's exception) and 31 (a page fault on the GPU) are usually bugs of the application, which restarts by itself.
# EKS would reboot the node for them, and with it take the model away for the length of a load.
_APPLICATION_XIDS = ("NvidiaXID13Error", "NvidiaXID31Error")
_GPU_CONDITION = "AcceleratedHardwareReady"
_REPAIR_WAIT_MINUTES = 10  # EKS's own for this condition; the API wants a number even where nothing will be done

# EKS itself gives up on missing capacity after 60 minutes, the provider's default: a little longer, and its words are seen.
_CREATE_TIMEOUT = "75m"
_DELETE_TIMEOUT = "60m"
_UPDATE_HOURS_PER_NODE = 1  # nodes are replaced one after the other, so the provider's default of an hour is for each


@dataclass(frozen=True)
class GpuNodePoolArgs:
    """What a pool is made from: its plan, its cluster, the VPC, and the private subnet of its zone in it."""

    pool: NodePoolPlan
    cluster: EksCluster
    vpc_id: pulumi.Input[str]
    subnet_id: pulumi.Input[str]


class GpuNodePool(pulumi.ComponentResource):
    """Machines of one type, in one zone, from one kind of capacity.

    In a Capacity Block the phase says how many run: none before its start, all while it is active, none after its end. So the
    program keeps the desired size itself, also against EKS, which sets it to 0 before the block ends: ignored, the change from
    one phase to the next would be, too. An update that finds it at 0 in phase active asks for machines that are gone, in vain and
    at no cost: nothing but the block can answer.
    """

    node_group_name: pulumi.Output[str]

    def __init__(self, name: str, args: GpuNodePoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("glm-on-gpus:gpu_node_pool:GpuNodePool", name, _props(args.pool), opts)
        self._prefix = name
        self._args = args
        self._pool = args.pool
        self._in_block = args.pool.capacity == "capacityBlock"
        node_group = self._make_node_group(self._make_template())
        self.node_group_name = node_group.node_group_name
        self.register_outputs({"nodeGroupName": self.node_group_name})

    def _make_template(self) -> aws.ec2.LaunchTemplate:
        group = self._args.cluster.cluster_security_group_id
        efa = bool(self._pool.efa_slots)
        return aws.ec2.LaunchTemplate(
            f"{self._prefix}-template",
            # A Capacity Block needs the type here, and it may stand in one place only.
            instance_type=self._pool.instance.name,
            user_data=node_config(_LOCAL_STORAGE),
            metadata_options=metadata_options(),
            block_device_mappings=[encrypted_root(self._pool.root_volume_gib)],
            # Naming any security group keeps EKS from adding the cluster's, without which no node joins.
            vpc_security_group_ids=None if efa else [group],
            network_interfaces=self._network_interfaces(group) if efa else None,
            placement=self._placement(),
            instance_market_options=self._market_options(),
            capacity_reservation_specification=self._reservation(),
            tag_specifications=self._tags(),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _network_interfaces(self, group: pulumi.Input[str]) -> list[aws.ec2.LaunchTemplateNetworkInterfaceArgs]:
        """Return the primary interface, which carries IP, and one `efa-only` in each slot of the plan.

        `efa-only` takes no IP address; a second interface with one would be taken for the node's, which then never joins.
        """
        efa_groups = [group, self._efa_security_group().id]
        return [
            _interface("interface", 0, 0, [group]),
            *(
                _interface("efa-only", slot.network_card_index, slot.device_index, efa_groups)
                for slot in self._pool.efa_slots
            ),
        ]

    def _efa_security_group(self) -> aws.ec2.SecurityGroup:
        """Let the pool's EFA interfaces talk to each other and to nobody else.

        EFA traffic is not IP: a rule that names addresses does not let it through, one that names the group itself does.
        """
        name = f"{self._prefix}-efa"
        group = aws.ec2.SecurityGroup(
            name,
            description="EFA between the nodes of one pool",
            vpc_id=self._args.vpc_id,
            opts=pulumi.ResourceOptions(parent=self),
        )
        for way, rule in (("in", aws.vpc.SecurityGroupIngressRule), ("out", aws.vpc.SecurityGroupEgressRule)):
            rule(
                f"{name}-{way}",
                security_group_id=group.id,
                referenced_security_group_id=group.id,
                ip_protocol="-1",
                opts=pulumi.ResourceOptions(parent=self),
            )
        return group

    def _placement(self) -> aws.ec2.LaunchTemplatePlacementArgs | None:
        if not self._pool.cluster_placement:
            return None
        group = aws.ec2.PlacementGroup(
            f"{self._prefix}-placement", strategy="cluster", opts=pulumi.ResourceOptions(parent=self)
        )
        return aws.ec2.LaunchTemplatePlacementArgs(group_name=group.name)

    def _market_options(self) -> aws.ec2.LaunchTemplateInstanceMarketOptionsArgs | None:
        if not self._in_block:
            return None
        return aws.ec2.LaunchTemplateInstanceMarketOptionsArgs(market_type="capacity-block")

    def _reservation(self) -> aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs | None:
        if self._pool.reservation_id is None:
            return None
        return aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs(
            capacity_reservation_target=aws.ec2.LaunchTemplateCapacityReservationSpecificationCapacityReservationTargetArgs(
                capacity_reservation_id=self._pool.reservation_id
            )
        )

    def _tags(self) -> pulumi.Output[list[aws.ec2.LaunchTemplateTagSpecificationArgs]]:
        pool = self._pool.name
        return self._args.cluster.cluster_name.apply(
            lambda cluster: tag_specifications({"Name": f"{cluster}-{pool}", NODE_POOL_LABEL: pool})
        )

    def _make_node_group(self, template: aws.ec2.LaunchTemplate) -> aws.eks.NodeGroup:
        pool, cluster = self._pool, self._args.cluster
        key, value = pool.taint
        return aws.eks.NodeGroup(
            f"{self._prefix}-nodes",
            cluster_name=cluster.cluster_name,
            node_role_arn=cluster.node_role_arn,
            # The one zone that offers the machines, or holds the block. A second one would let EC2 look where there is nothing.
            subnet_ids=[self._args.subnet_id],
            ami_type="AL2023_x86_64_NVIDIA",
            capacity_type=_capacity_type(pool),
            version=cluster.kubernetes_version,
            # Pinned: AWS's recommended release moves, and with it the NVIDIA driver under the model.
            release_version=pool.ami_release_version,
            launch_template=pinned(template),
            labels=dict(pool.labels),
            taints=[aws.eks.NodeGroupTaintArgs(key=key, value=value, effect="NO_SCHEDULE")],
            # From 0, because the schedule that empties a block at its end must be able to reach it.
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                min_size=0, max_size=pool.nodes, desired_size=pool.desired_nodes
            ),
            # MINIMAL takes a node away before it asks for the next. The default asks first, for a machine that is not there.
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1, update_strategy="MINIMAL"),
            node_repair_config=_node_repair(),
            opts=self._node_group_options(),
        )

    def _node_group_options(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=self,
            depends_on=list(self._args.cluster.ready),
            # Neither a block nor, most days, a zone has machines for a second pool beside the one that goes.
            delete_before_replace=True,
            # Another machine is another pool: rolled in place, the old machines would carry the new ones' class label.
            replacement_trigger=self._pool.instance.name,
            # EKS updates nodes in a block only while there are none (user guide, capacity-blocks-mng): so there a new launch
            # template (a new block, above all) or AMI makes a new node group, and the preview says so.
            replace_on_changes=["launchTemplate", "releaseVersion", "version"] if self._in_block else None,
            custom_timeouts=pulumi.CustomTimeouts(
                create=_CREATE_TIMEOUT,
                update=f"{_UPDATE_HOURS_PER_NODE * self._pool.nodes}h",
                delete=_DELETE_TIMEOUT,
            ),
        )


def _interface(
    kind: str, card: int, device: int, groups: list[pulumi.Input[str]]
) -> aws.ec2.LaunchTemplateNetworkInterfaceArgs:
    return aws.ec2.LaunchTemplateNetworkInterfaceArgs(
        interface_type=kind,
        network_card_index=card,
        device_index=device,
        security_groups=groups,
        delete_on_termination="true",
    )


def _node_repair() -> aws.eks.NodeGroupNodeRepairConfigArgs:
    """Repair one broken node at a time, so that no wrong diagnosis takes all replicas, and none for a bug of ours."""
    return aws.eks.NodeGroupNodeRepairConfigArgs(
        enabled=True,
        max_parallel_nodes_repaired_count=1,
        node_repair_config_overrides=[
            aws.eks.NodeGroupNodeRepairConfigNodeRepairConfigOverrideArgs(
                node_monitoring_condition=_GPU_CONDITION,
                node_unhealthy_reason=reason,
                min_repair_wait_time_mins=_REPAIR_WAIT_MINUTES,
                repair_action="NoAction",
            )
            for reason in _APPLICATION_XIDS
        ],
    )


def _capacity_type(pool: NodePoolPlan) -> str:
    if pool.capacity is None:
        raise ValueError(f"node pool {pool.name} says no capacity: its nodes are not provisioned here")
    return _CAPACITY_TYPES[pool.capacity]


def _props(pool: NodePoolPlan) -> dict[str, Any]:
    return {
        "nodePool": pool.name,
        "instanceType": pool.instance.name,
        "gpu": pool.instance.gpu.name,
        "gpusPerNode": pool.instance.gpus,
        "nodes": pool.nodes,
        "availabilityZoneId": pool.zone_id,
        "capacity": pool.capacity,
        "reservationId": pool.reservation_id,
        "phase": pool.block.phase if pool.block else None,
        "amiReleaseVersion": pool.ami_release_version,
        "efaInterfaces": len(pool.efa_slots),
        "labels": dict(pool.labels),
    }
