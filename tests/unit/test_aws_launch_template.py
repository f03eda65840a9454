"""Rules of launch templates, alone and under a node group: capacity, EFA layout, user data."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from aws_account import DELETE, GPU_NODES, NODE_CONFIG, TEMPLATE, Case, in_words, user_data

from rehearsal.aws import AwsRefusal

_NO_MARKET = {"instanceMarketOptions": DELETE}
_RESERVATION = "capacityReservationSpecification"
_TARGET = f"{_RESERVATION}.capacityReservationTarget"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _node_config(old: str, new: str) -> str:
    return user_data(NODE_CONFIG.replace(old, new))


def _interfaces(cards: int, *, efa_on_card_zero: bool) -> list[dict[str, Any]]:
    """Return the primary interface and an EFA interface on each card, as AWS wants them."""
    places = [(0, 1)] if efa_on_card_zero else []
    places += [(card, 0) for card in range(1, cards)]
    efa = [
        {
            "interfaceType": "efa-only",
            "networkCardIndex": card,
            "deviceIndex": device,
            "securityGroups": ["<cluster group>"],
        }
        for card, device in places
    ]
    return [{"interfaceType": "interface", "deviceIndex": 0, "securityGroups": ["<cluster group>"]}, *efa]


_REFUSED = (
    Case(
        "instance profile",
        GPU_NODES,
        message=(
            'aws:ec2/launchTemplate:LaunchTemplate::gpu: iamInstanceProfile: {"name": "nodes"}: not in the launch '
            "template of a node group: EKS makes the instance profile from the node group's nodeRoleArn (EKS user "
            "guide, nodes/launch-templates)"
        ),
        others={TEMPLATE: {"iamInstanceProfile": {"name": "nodes"}}},
    ),
    Case(
        "shutdown behaviour",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceInitiatedShutdownBehavior: 'terminate': not in "
            "the launch template of a node group: EKS sets the shutdown behaviour (EKS user guide, "
            "nodes/launch-templates)"
        ),
        others={TEMPLATE: {"instanceInitiatedShutdownBehavior": "terminate"}},
    ),
    Case(
        "hibernation",
        GPU_NODES,
        message=(
            'aws:ec2/launchTemplate:LaunchTemplate::gpu: hibernationOptions: {"configured": true}: not in the '
            "launch template of a node group: EKS sets the hibernation behaviour (EKS user guide, "
            "nodes/launch-templates)"
        ),
        others={TEMPLATE: {"hibernationOptions": {"configured": True}}},
    ),
    Case(
        "subnet of an interface",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[0].subnetId: '<Subnet private-0>': not "
            "in the launch template of a node group: the group has subnetIds (EKS user guide, "
            "nodes/launch-templates)"
        ),
        others={TEMPLATE: {"networkInterfaces[0].subnetId": "<Subnet private-0>"}},
    ),
    Case(
        "disk size",
        GPU_NODES,
        {"diskSize": 100},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: diskSize: 100: not together with a launch template: set "
            "blockDeviceMappings in the launch template (EKS user guide, nodes/launch-templates)"
        ),
    ),
    Case(
        "remote access",
        GPU_NODES,
        {"remoteAccess": {"ec2SshKey": "me"}},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: remoteAccess: {"ec2SshKey": "me"}: not together with a launch '
            "template: set keyName and security groups in the launch template (EKS user guide, "
            "nodes/launch-templates)"
        ),
    ),
    Case(
        "instance type twice",
        GPU_NODES,
        {"instanceTypes": ["p6-b200.48xlarge"]},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: instanceTypes: ["p6-b200.48xlarge"]: '
            "aws:ec2/launchTemplate:LaunchTemplate::gpu has instanceType p6-b200.48xlarge: give it in one of the "
            "two, never in both (EKS user guide, nodes/launch-templates)"
        ),
    ),
    Case(
        "groups in two places",
        TEMPLATE,
        {"vpcSecurityGroupIds": ["<cluster group>"]},
        (
            'aws:ec2/launchTemplate:LaunchTemplate::gpu: vpcSecurityGroupIds: ["<cluster group>"]: with '
            "networkInterfaces, security groups go into each interface (securityGroups) and not here (EC2 "
            "CreateLaunchTemplate, <botocore>; EKS user guide, nodes/launch-templates)"
        ),
    ),
    Case(
        "interface without groups",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[8].securityGroups: not given: every "
            "network interface of a node needs security groups (EKS user guide, nodes/launch-templates)"
        ),
        others={TEMPLATE: {"networkInterfaces[8].securityGroups": DELETE}},
    ),
    Case(
        "groups without the cluster's",
        GPU_NODES,
        message=(
            'aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[2].securityGroups: ["<SecurityGroup '
            "efa>\"]: must contain <cluster group>, the cluster's own group (vpcConfig.clusterSecurityGroupId of "
            "aws:eks/cluster:Cluster::main): EKS adds it only where no group is given (EKS user guide, "
            "nodes/launch-templates)"
        ),
        others={TEMPLATE: {"networkInterfaces[2].securityGroups": ["<SecurityGroup efa>"]}},
    ),
    Case(
        "groups without the cluster's, no interfaces",
        GPU_NODES,
        message=(
            'aws:ec2/launchTemplate:LaunchTemplate::gpu: vpcSecurityGroupIds: ["<SecurityGroup efa>"]: must '
            "contain <cluster group>, the cluster's own group (vpcConfig.clusterSecurityGroupId of "
            "aws:eks/cluster:Cluster::main): EKS adds it only where no group is given (EKS user guide, "
            "nodes/launch-templates)"
        ),
        others={TEMPLATE: {"networkInterfaces": DELETE, "vpcSecurityGroupIds": ["<SecurityGroup efa>"]}},
    ),
    Case(
        "group that is not there",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[2].securityGroups[1]: "
            "'sg-00000000000000000': InvalidGroup.NotFound: there is no such SecurityGroup in the rehearsed "
            "account yet; take the value from the resource's output, so that it is created first (AWS error code, "
            "region us-east-2)"
        ),
        others={TEMPLATE: {"networkInterfaces[2].securityGroups": ["<cluster group>", "sg-00000000000000000"]}},
    ),
    Case(
        "IMDSv1",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: metadataOptions.httpTokens: 'optional': must be required: "
            "a node that answers IMDSv1 hands its role to every pod (EKS user guide, nodes/launch-templates)"
        ),
        others={TEMPLATE: {"metadataOptions.httpTokens": "optional"}},
    ),
    Case(
        "hop limit",
        TEMPLATE,
        {"metadataOptions.httpPutResponseHopLimit": 65},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: metadataOptions.httpPutResponseHopLimit: 65: must be from "
            "1 to 64 (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "template version",
        GPU_NODES,
        {"launchTemplate.version": "2"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: launchTemplate.version: '2': "
            "InvalidLaunchTemplateId.VersionNotFound: the latest version of "
            "aws:ec2/launchTemplate:LaunchTemplate::gpu is 1 (EC2 error code)"
        ),
    ),
    Case(
        "template by id and name",
        GPU_NODES,
        {"launchTemplate.name": "<name of LaunchTemplate gpu>"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: launchTemplate.id: '<LaunchTemplate gpu>': give either the id or "
            "the name of the template (EKS user guide, nodes/launch-templates)"
        ),
    ),
    Case(
        "template that is not there",
        GPU_NODES,
        {"launchTemplate.id": "lt-00000000000000000"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: launchTemplate.id: 'lt-00000000000000000': "
            "InvalidLaunchTemplateId.NotFound: there is no such LaunchTemplate in the rehearsed account yet; take "
            "the value from the resource's output, so that it is created first (AWS error code, region us-east-2)"
        ),
    ),
    Case(
        "custom image with an AMI type",
        GPU_NODES,
        message=(
            "aws:eks/nodeGroup:NodeGroup::gpu: amiType: 'AL2023_x86_64_NVIDIA': "
            "aws:ec2/launchTemplate:LaunchTemplate::gpu has an imageId: leave amiType out (EKS user guide, "
            "nodes/launch-templates)"
        ),
        others={TEMPLATE: {"imageId": "ami-0123456789abcdef0"}},
    ),
    Case(
        "custom image with a release",
        GPU_NODES,
        {"amiType": "CUSTOM"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: releaseVersion: '1.36.2-20260714': "
            "aws:ec2/launchTemplate:LaunchTemplate::gpu has an imageId: leave releaseVersion out (EKS user guide, "
            "nodes/launch-templates)"
        ),
        others={TEMPLATE: {"imageId": "ami-0123456789abcdef0"}},
    ),
    Case(
        "custom AMI type without an image",
        GPU_NODES,
        {"amiType": "CUSTOM"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: amiType: 'CUSTOM': aws:ec2/launchTemplate:LaunchTemplate::gpu has "
            "no imageId, which CUSTOM needs (EKS user guide, nodes/launch-templates)"
        ),
    ),
    Case(
        "volume too small",
        TEMPLATE,
        {"blockDeviceMappings[0].ebs.volumeSize": 0},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: blockDeviceMappings[0].ebs.volumeSize: 0: must be from 1 "
            "to 65,536 GiB for gp3 (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "volume throughput",
        TEMPLATE,
        {"blockDeviceMappings[0].ebs.throughput": 2500},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: blockDeviceMappings[0].ebs.throughput: 2500: must be from "
            "125 to 2,000 MiB/s (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "volume throughput of gp2",
        TEMPLATE,
        {"blockDeviceMappings[0].ebs.volumeType": "gp2", "blockDeviceMappings[0].ebs.throughput": 250},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: blockDeviceMappings[0].ebs.throughput: 250: only for gp3, "
            "not for gp2 (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "volume IOPS of st1",
        TEMPLATE,
        {"blockDeviceMappings[0].ebs": {"volumeType": "st1", "volumeSize": 500, "iops": 3000}},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: blockDeviceMappings[0].ebs.iops: 3000: only for gp3, io1 "
            "or io2, not for st1 (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "volume IOPS",
        TEMPLATE,
        {"blockDeviceMappings[0].ebs.iops": 100},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: blockDeviceMappings[0].ebs.iops: 100: must be from 3,000 "
            "to 80,000 for gp3 (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "encrypted as a word",
        TEMPLATE,
        {"blockDeviceMappings[0].ebs.encrypted": "yes"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: blockDeviceMappings[0].ebs.encrypted: 'yes': must be true "
            "or false (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "block without the market type",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceMarketOptions.marketType: not given: market type "
            "(purchasing) option is not valid: a Capacity Block takes three settings together; "
            "aws:eks/nodeGroup:NodeGroup::gpu has capacityType CAPACITY_BLOCK, so it must be capacity-block (EKS "
            "user guide, ml/capacity-blocks-mng)"
        ),
        others={TEMPLATE: {"instanceMarketOptions": DELETE}},
    ),
    Case(
        "block without the capacity type",
        GPU_NODES,
        {"capacityType": DELETE},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: capacityType: not given: market type (purchasing) option is not "
            "valid: a Capacity Block takes three settings together; aws:ec2/launchTemplate:LaunchTemplate::gpu has "
            "instanceMarketOptions.marketType capacity-block, so capacityType must be CAPACITY_BLOCK (EKS user "
            "guide, ml/capacity-blocks-mng)"
        ),
    ),
    Case(
        "block with the wrong capacity type",
        GPU_NODES,
        {"capacityType": "ON_DEMAND"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: capacityType: 'ON_DEMAND': market type (purchasing) option is not "
            "valid: a Capacity Block takes three settings together; aws:ec2/launchTemplate:LaunchTemplate::gpu has "
            "instanceMarketOptions.marketType capacity-block, so capacityType must be CAPACITY_BLOCK (EKS user "
            "guide, ml/capacity-blocks-mng)"
        ),
    ),
    Case(
        "block without the reservation",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: "
            "capacityReservationSpecification.capacityReservationTarget.capacityReservationId: not given: a "
            "Capacity Block takes three settings together; it must be the id of the block, cr-… (EKS user guide, "
            "ml/capacity-blocks-mng)"
        ),
        others={TEMPLATE: {"capacityReservationSpecification": DELETE}},
    ),
    Case(
        "block without a template",
        GPU_NODES,
        {"launchTemplate": DELETE, "instanceTypes": ["p6-b200.48xlarge"]},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: launchTemplate: not given: a Capacity Block takes three settings "
            "together; the group has no launch template for instanceMarketOptions.marketType and "
            "capacityReservationTarget (EKS user guide, ml/capacity-blocks-mng)"
        ),
    ),
    Case(
        "block with the type on the group",
        GPU_NODES,
        {"instanceTypes": ["p6-b200.48xlarge"]},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceType: not given: a Capacity Block needs the "
            "instance type in the template (EKS user guide, ml/capacity-blocks-mng)"
        ),
        others={TEMPLATE: {"instanceType": DELETE}},
    ),
    Case(
        "block in two zones",
        GPU_NODES,
        {"subnetIds": ["<Subnet private-0>", "<Subnet private-1>"]},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: subnetIds: ["<Subnet private-0>", "<Subnet private-1>"]: only the '
            "subnet in the block's zone may be given; these are in use2-az1 and use2-az2 (EKS user guide, "
            "ml/capacity-blocks-mng)"
        ),
    ),
    Case(
        "block of CPU machines",
        GPU_NODES,
        {"amiType": DELETE},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceType: 'm7i.large': Capacity Blocks are for GPU "
            "instance types (EC2 user guide, capacity-blocks)"
        ),
        others={TEMPLATE: {"instanceType": "m7i.large", "networkInterfaces": DELETE}},
    ),
    Case(
        "spot market",
        GPU_NODES,
        {"capacityType": "SPOT"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceMarketOptions.marketType: 'spot': the market type "
            "(purchasing) option is not valid for a node group: set capacityType on the group, or capacity-block "
            "for a Capacity Block (EKS user guide, ml/capacity-blocks-mng)"
        ),
        others={TEMPLATE: {"instanceMarketOptions.marketType": "spot"}},
    ),
    Case(
        "reservation on spot",
        GPU_NODES,
        {"capacityType": "SPOT"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: capacityType: 'SPOT': must be ON_DEMAND: "
            "aws:ec2/launchTemplate:LaunchTemplate::gpu uses an on-demand capacity reservation "
            "(capacityReservationSpecification.capacityReservationTarget.capacityReservationId) (EKS user guide, "
            "ml/ml-node-groups)"
        ),
        others={TEMPLATE: {"instanceMarketOptions": DELETE}},
    ),
    Case(
        "reservations only, on spot",
        GPU_NODES,
        {"capacityType": "SPOT"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: capacityType: 'SPOT': must be ON_DEMAND: "
            "aws:ec2/launchTemplate:LaunchTemplate::gpu uses an on-demand capacity reservation "
            "(capacityReservationSpecification.capacityReservationPreference) (EKS user guide, ml/ml-node-groups)"
        ),
        others={
            TEMPLATE: {
                "instanceMarketOptions": DELETE,
                "capacityReservationSpecification": {"capacityReservationPreference": "capacity-reservations-only"},
            }
        },
    ),
    Case(
        "reservation and preference",
        TEMPLATE,
        {"capacityReservationSpecification.capacityReservationPreference": "open"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: "
            "capacityReservationSpecification.capacityReservationPreference: 'open': give either a preference or a "
            "target, not both (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "reservation and resource group",
        TEMPLATE,
        {_TARGET + ".capacityReservationResourceGroupArn": "arn:aws:resource-groups:us-east-2:123456789012:group/gpu"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: "
            "capacityReservationSpecification.capacityReservationTarget.capacityReservationResourceGroupArn: "
            "'arn:aws:resource-groups:us-east-2:123456789012:group/gpu': give either a reservation or a resource "
            "group, not both (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "reservation id",
        TEMPLATE,
        {_TARGET + ".capacityReservationId": "0123456789abcdef0"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: "
            "capacityReservationSpecification.capacityReservationTarget.capacityReservationId: "
            "'0123456789abcdef0': must be the id of a capacity reservation: cr- and hexadecimal digits (EC2 "
            "CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "resource group ARN",
        TEMPLATE,
        {_TARGET: {"capacityReservationResourceGroupArn": "gpu"}},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: "
            "capacityReservationSpecification.capacityReservationTarget.capacityReservationResourceGroupArn: "
            "'gpu': must be an ARN, arn:aws:resource-groups:… (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "one EFA interface too many",
        TEMPLATE,
        {
            "networkInterfaces[9]": {
                "interfaceType": "efa-only",
                "networkCardIndex": 7,
                "deviceIndex": 1,
                "securityGroups": ["<cluster group>"],
            }
        },
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[9].interfaceType: 'efa-only': asks for "
            "9 EFA interfaces, p6-b200.48xlarge has at most 8 (EC2 user guide, efa-acc-inst-types)"
        ),
    ),
    Case(
        "card that is not there",
        TEMPLATE,
        {"networkInterfaces[8].networkCardIndex": 8},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[8].networkCardIndex: 8: "
            "p6-b200.48xlarge has 8 network cards, 0 to 7 (EC2 user guide, efa-acc-inst-types)"
        ),
    ),
    Case(
        "device that is not there",
        TEMPLATE,
        {"networkInterfaces[8].deviceIndex": 4},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[8].deviceIndex: 4: The specified number "
            "'4' for the device index exceeds the maximum number of network interfaces supported by the network "
            "card: p6-b200.48xlarge allows 0 to 3 on each card (EC2 error text, eksctl#7520)"
        ),
    ),
    Case(
        "EFA at the wrong device",
        TEMPLATE,
        {"networkInterfaces[8].deviceIndex": 1},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[8].deviceIndex: 1: an EFA interface at "
            "card 7, device 1 has no place on p6-b200.48xlarge; its EFA places (card/device) are 0/1, 1/0, 2/0, "
            "3/0, 4/0, 5/0, 6/0 or 7/0 (EC2 user guide, efa-acc-inst-types)"
        ),
    ),
    Case(
        "two at one place",
        TEMPLATE,
        {"networkInterfaces[8].networkCardIndex": 6},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[8].deviceIndex: 0: card 6, device 0 is "
            "taken by networkInterfaces[7] already (EC2 user guide, efa-acc-inst-types)"
        ),
    ),
    Case(
        "primary is efa-only",
        TEMPLATE,
        {"networkInterfaces[0].interfaceType": "efa-only", "networkInterfaces[1].interfaceType": "interface"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[0].interfaceType: 'efa-only': the "
            "primary interface (card 0, device 0) must be a plain interface; EFA goes beside it as efa-only (EC2 "
            "user guide, efa-acc-inst-types)"
        ),
    ),
    Case(
        "primary is efa",
        TEMPLATE,
        {"networkInterfaces[0].interfaceType": "efa", "networkInterfaces[1].interfaceType": "interface"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[0].interfaceType: 'efa': the primary "
            "interface (card 0, device 0) must be a plain interface; EFA goes beside it as efa-only (EC2 user "
            "guide, efa-acc-inst-types)"
        ),
    ),
    Case(
        "no primary",
        TEMPLATE,
        {"networkInterfaces[0].deviceIndex": 2},
        (
            'aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces: [{"deviceIndex": 2, "interfaceType": '
            '"interface", "networkCardIndex": 0, "securityGroups": ["sg-0c6e… (1261 characters): has no primary '
            "interface: one must sit at network card 0, device index 0 (EC2 "
            "LaunchTemplateInstanceNetworkInterfaceSpecificationRequest)"
        ),
    ),
    Case(
        "secondary is efa",
        TEMPLATE,
        {"networkInterfaces[4].interfaceType": "efa"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[4].interfaceType: 'efa': must be "
            "efa-only: nodeadm takes a secondary efa interface for one with an IP address, and the node never "
            "joins (EKS user guide, ml/device-management-efa)"
        ),
    ),
    Case(
        "interface type unknown",
        TEMPLATE,
        {"networkInterfaces[4].interfaceType": "efa_only"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[4].interfaceType: 'efa_only': must be "
            "interface, efa or efa-only (EC2 LaunchTemplateInstanceNetworkInterfaceSpecificationRequest)"
        ),
    ),
    Case(
        "no device index",
        TEMPLATE,
        {"networkInterfaces[4].deviceIndex": DELETE},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[4].deviceIndex: not given: required for "
            "a network interface (EC2 LaunchTemplateInstanceNetworkInterfaceSpecificationRequest)"
        ),
    ),
    Case(
        "public address",
        TEMPLATE,
        {"networkInterfaces[0].associatePublicIpAddress": "true"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[0].associatePublicIpAddress: 'true': "
            "not with several network interfaces: put the nodes into private subnets behind a NAT gateway (EC2 "
            "RunInstances)"
        ),
    ),
    Case(
        "p5e has two ENIs a card",
        TEMPLATE,
        {"instanceType": "p5e.48xlarge", "networkInterfaces[8].deviceIndex": 2},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[8].deviceIndex: 2: The specified number "
            "'2' for the device index exceeds the maximum number of network interfaces supported by the network "
            "card: p5e.48xlarge allows 0 to 1 on each card (EC2 error text, eksctl#7520)"
        ),
    ),
    Case(
        "EFA on card 0 of p6-b300",
        TEMPLATE,
        {"instanceType": "p6-b300.48xlarge"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[1].deviceIndex: 1: an EFA interface at "
            "card 0, device 1 has no place on p6-b300.48xlarge; its EFA places (card/device) are 1/0, 2/0, 3/0, "
            "4/0, 5/0, 6/0, 7/0, 8/0, 9/0, 10/0, 11/0, 12/0, 13/0, 14/0, 15/0 or 16/0 (EC2 user guide, "
            "efa-acc-inst-types)"
        ),
    ),
    Case(
        "EFA on a CPU machine",
        TEMPLATE,
        {"instanceType": "m7i.large"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[1].interfaceType: 'efa-only': asks for "
            "8 EFA interfaces, m7i.large has at most 0 (EC2 user guide, efa-acc-inst-types)"
        ),
    ),
    Case(
        "machine that the catalogue does not know",
        TEMPLATE,
        {"instanceType": "p5.48xlarge"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceType: 'p5.48xlarge': is no instance type that the "
            "catalogue knows: m7i.2xlarge, m7i.large, m7i.xlarge, p5e.48xlarge, p5en.48xlarge, p6-b200.48xlarge or "
            "p6-b300.48xlarge; did you mean p5e.48xlarge? (serving/catalogue/accelerators.toml)"
        ),
    ),
    Case(
        "layout of the type on the group",
        GPU_NODES,
        {"instanceTypes": ["p5e.48xlarge"], "capacityType": "ON_DEMAND"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[8].deviceIndex: 3: The specified number "
            "'3' for the device index exceeds the maximum number of network interfaces supported by the network "
            "card: p5e.48xlarge allows 0 to 1 on each card (EC2 error text, eksctl#7520)"
        ),
        others={
            TEMPLATE: {"instanceType": DELETE, "instanceMarketOptions": DELETE, "networkInterfaces[8].deviceIndex": 3}
        },
    ),
    Case(
        "not base64",
        TEMPLATE,
        {"userData": "#!/bin/bash"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData: '#!/bin/bash': InvalidUserData.Malformed: "
            "Invalid BASE64 encoding of user data (EC2 RequestLaunchTemplateData)"
        ),
    ),
    Case(
        "too large",
        TEMPLATE,
        {"userData": _base64("x" * (16 * 1024 + 1))},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData: "
            "'eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh… "
            "(21850 characters): holds 16,385 bytes, allowed are 16,384 before base64 (EC2 "
            "RequestLaunchTemplateData)"
        ),
    ),
    Case(
        "not MIME",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData: '#!/bin/bash echo hi': "
            "Ec2LaunchTemplateInvalidConfiguration: User data was not in the MIME multipart format (EKS error "
            "text, terraform-aws-modules/terraform-aws-eks#1875)"
        ),
        others={TEMPLATE: {"userData": _base64("#!/bin/bash\necho hi\n")}},
    ),
    Case(
        "MIME without its end",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData: 'MIME-Version: 1.0 Content-Type: "
            'multipart/mixed; boundary="//" --// Content-Type: text/plain hi\': MIME multipart with a defect: '
            "CloseBoundaryNotFoundDefect (RFC 2046)"
        ),
        others={
            TEMPLATE: {
                "userData": _base64(
                    'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="//"\n\n--//\nContent-Type: text/plain\n\nhi\n'
                )
            }
        },
    ),
    Case(
        "not YAML",
        TEMPLATE,
        {"userData": _node_config("spec:", "spec: [")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData.NodeConfig: 'apiVersion: node.eks.aws/v1alpha1 "
            "kind: NodeConfig spec: [ instance: localStorage: strategy: RAID0': is not YAML: while parsing a flow "
            "sequence in \"<unicode string>\", line 3, column 7: spec: [ ^ expected ',' or ']', but got ':' in "
            '"<unicode string>", line 5, column 17: localStorage: ^ (awslabs/amazon-eks-ami, nodeadm/doc/api.md)'
        ),
    ),
    Case(
        "API version",
        TEMPLATE,
        {"userData": _node_config("v1alpha1", "v1")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData.NodeConfig.apiVersion: 'node.eks.aws/v1': must "
            "be node.eks.aws/v1alpha1 (awslabs/amazon-eks-ami, nodeadm/doc/api.md)"
        ),
    ),
    Case(
        "kind",
        TEMPLATE,
        {"userData": _node_config("kind: NodeConfig", "kind: Nodeconfig")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData.NodeConfig.kind: 'Nodeconfig': must be "
            "NodeConfig (awslabs/amazon-eks-ami, nodeadm/doc/api.md)"
        ),
    ),
    Case(
        "no kind",
        TEMPLATE,
        {"userData": _node_config("kind: NodeConfig\n", "")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData.NodeConfig.kind: not given: must be NodeConfig "
            "(awslabs/amazon-eks-ami, nodeadm/doc/api.md)"
        ),
    ),
    Case(
        "strategy",
        TEMPLATE,
        {"userData": _node_config("RAID0", "raid0")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData.NodeConfig.spec.instance.localStorage.strategy: "
            "'raid0': must be RAID0, RAID10 or Mount; did you mean RAID0? (awslabs/amazon-eks-ami, "
            "nodeadm/doc/api.md)"
        ),
    ),
    Case(
        "no strategy",
        TEMPLATE,
        {"userData": _node_config("strategy: RAID0", "mountPath: /mnt/k8s-disks/")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData.NodeConfig.spec.instance.localStorage.strategy: "
            "not given: must be RAID0, RAID10 or Mount (awslabs/amazon-eks-ami, nodeadm/doc/api.md)"
        ),
    ),
    Case(
        "misspelt field",
        TEMPLATE,
        {"userData": _node_config("localStorage", "localStorge")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData.NodeConfig.spec.instance.localStorge: "
            '{"strategy": "RAID0"}: no such field; did you mean localStorage?; allowed are localStorage '
            "(awslabs/amazon-eks-ami, nodeadm/doc/api.md)"
        ),
    ),
    Case(
        "misspelt mount",
        TEMPLATE,
        {"userData": _node_config("strategy: RAID0", "strategy: RAID0\n      disabledMounts: [Kubelet]")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: "
            "userData.NodeConfig.spec.instance.localStorage.disabledMounts: 'Kubelet': must be Containerd, PodLogs "
            "or SOCI (awslabs/amazon-eks-ami, nodeadm/doc/api.md)"
        ),
    ),
    Case(
        "text for a mapping",
        TEMPLATE,
        {"userData": _node_config("localStorage:\n      strategy: RAID0", "localStorage: RAID0")},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: userData.NodeConfig.spec.instance.localStorage: 'RAID0': "
            "must be a mapping (awslabs/amazon-eks-ami, nodeadm/doc/api.md)"
        ),
    ),
)

ACCEPTED = (
    Case("the whole block", GPU_NODES),
    Case("on-demand with a reservation", GPU_NODES, {"capacityType": "ON_DEMAND"}, others={TEMPLATE: _NO_MARKET}),
    Case("on-demand, silently", GPU_NODES, {"capacityType": DELETE}, others={TEMPLATE: _NO_MARKET}),
    Case(
        "on-demand with a group of reservations",
        GPU_NODES,
        {"capacityType": "ON_DEMAND"},
        others={
            TEMPLATE: {
                **_NO_MARKET,
                _RESERVATION: {
                    "capacityReservationTarget": {
                        "capacityReservationResourceGroupArn": "arn:aws:resource-groups:us-east-2:123456789012:group/gpu"
                    }
                },
            }
        },
    ),
    Case(
        "on-demand from reservations only",
        GPU_NODES,
        {"capacityType": "ON_DEMAND"},
        others={
            TEMPLATE: {**_NO_MARKET, _RESERVATION: {"capacityReservationPreference": "capacity-reservations-only"}}
        },
    ),
    Case("spot", GPU_NODES, {"capacityType": "SPOT"}, others={TEMPLATE: {**_NO_MARKET, _RESERVATION: DELETE}}),
    Case("block in two subnets of one zone", GPU_NODES, {"subnetIds": ["<Subnet private-0>", "<Subnet public-0>"]}),
    Case(
        "groups without interfaces",
        GPU_NODES,
        others={TEMPLATE: {"networkInterfaces": DELETE, "vpcSecurityGroupIds": ["<cluster group>"]}},
    ),
    Case("no groups at all", GPU_NODES, others={TEMPLATE: {"networkInterfaces": DELETE}}),
    Case("no metadata options: AL2023 has IMDSv2 by itself", GPU_NODES, others={TEMPLATE: {"metadataOptions": DELETE}}),
    Case(
        "template by name",
        GPU_NODES,
        {"launchTemplate": {"name": "<name of LaunchTemplate gpu>", "version": "$Latest"}},
    ),
    Case(
        "custom image",
        GPU_NODES,
        {"amiType": DELETE, "releaseVersion": DELETE},
        others={TEMPLATE: {"imageId": "ami-0123456789abcdef0", "userData": "IyEvYmluL2Jhc2gK"}},
    ),
    Case(
        "type on the group",
        GPU_NODES,
        {"instanceTypes": ["p6-b200.48xlarge"], "capacityType": "ON_DEMAND"},
        others={TEMPLATE: {**_NO_MARKET, "instanceType": DELETE}},
    ),
    Case(
        "volume of io2",
        TEMPLATE,
        {"blockDeviceMappings[0].ebs": {"volumeType": "io2", "volumeSize": 500, "iops": 256000}},
    ),
    Case(
        "all of p5en",
        TEMPLATE,
        {"instanceType": "p5en.48xlarge", "networkInterfaces": _interfaces(16, efa_on_card_zero=True)},
    ),
    Case(
        "all of p5e",
        TEMPLATE,
        {"instanceType": "p5e.48xlarge", "networkInterfaces": _interfaces(32, efa_on_card_zero=True)},
    ),
    Case(
        "all of p6-b300",
        TEMPLATE,
        {"instanceType": "p6-b300.48xlarge", "networkInterfaces": _interfaces(17, efa_on_card_zero=False)},
    ),
    Case("no EFA", TEMPLATE, {"networkInterfaces": _interfaces(1, efa_on_card_zero=False)}),
    Case("some EFA", TEMPLATE, {"networkInterfaces": _interfaces(3, efa_on_card_zero=True)}),
    Case(
        "one interface of a CPU machine",
        TEMPLATE,
        {"instanceType": "m7i.large", "networkInterfaces": _interfaces(1, efa_on_card_zero=False)},
    ),
    Case("no user data", GPU_NODES, others={TEMPLATE: {"userData": DELETE}}),
    Case(
        "mounts",
        GPU_NODES,
        others={
            TEMPLATE: {
                "userData": _node_config(
                    "strategy: RAID0",
                    "strategy: Mount\n      mountPath: /mnt/k8s-disks/\n      disabledMounts: [PodLogs]",
                )
            }
        },
    ),
    Case(
        "kubelet",
        GPU_NODES,
        others={
            TEMPLATE: {
                "userData": _node_config(
                    "spec:",
                    "spec:\n  kubelet:\n    config: {maxPods: 50}\n    flags: [--v=2]\n  featureGates: {FastImagePull: true}",
                )
            }
        },
    ),
)


@pytest.mark.parametrize("case", _REFUSED, ids=lambda case: case.name)
def test_refused(case: Case) -> None:
    with pytest.raises(AwsRefusal) as refusal:
        case.create()
    assert in_words(str(refusal.value)) == case.message


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_accepted(case: Case) -> None:
    stand_in, created = case.create()
    assert f"{created.token}::{created.name} ({created.id})" in stand_in.remaining()
