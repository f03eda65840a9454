"""What botocore's models and the provider's schema refuse: names, types, enums, patterns, ranges."""

from __future__ import annotations

import pytest
from aws_account import CLUSTER, DELETE, FLOW_LOG, GPU_NODES, NODE_ROLE, SYSTEM_NODES, TEMPLATE, VPC, Case, in_words

from rehearsal.aws import AwsRefusal

_REFUSED = (
    Case(
        "enum with nearest spelling",
        GPU_NODES,
        {"amiType": "AL2023_x86_64_NVIDA"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: amiType: 'AL2023_x86_64_NVIDA': must be AL2_x86_64, AL2_x86_64_GPU, "
            "AL2_ARM_64, CUSTOM, BOTTLEROCKET_ARM_64, BOTTLEROCKET_x86_64, BOTTLEROCKET_ARM_64_FIPS, "
            "BOTTLEROCKET_x86_64_FIPS, BOTTLEROCKET_ARM_64_NVIDIA, BOTTLEROCKET_x86_64_NVIDIA, "
            "BOTTLEROCKET_ARM_64_NVIDIA_FIPS, BOTTLEROCKET_x86_64_NVIDIA_FIPS, WINDOWS_CORE_2019_x86_64, "
            "WINDOWS_FULL_2019_x86_64, WINDOWS_CORE_2022_x86_64, WINDOWS_FULL_2022_x86_64, "
            "WINDOWS_CORE_2025_x86_64, WINDOWS_FULL_2025_x86_64, AL2023_x86_64_STANDARD, AL2023_ARM_64_STANDARD, "
            "AL2023_x86_64_NEURON, AL2023_x86_64_NVIDIA or AL2023_ARM_64_NVIDIA; did you mean "
            "AL2023_x86_64_NVIDIA? (EKS CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "enum of capacity types",
        GPU_NODES,
        {"capacityType": "CAPACITYBLOCK"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: capacityType: 'CAPACITYBLOCK': must be ON_DEMAND, SPOT or "
            "CAPACITY_BLOCK; did you mean CAPACITY_BLOCK? (EKS CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "enum in a list",
        GPU_NODES,
        {"taints[0].effect": "NoSchedule"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: taints[0].effect: 'NoSchedule': must be NO_SCHEDULE, NO_EXECUTE or "
            "PREFER_NO_SCHEDULE; did you mean NO_SCHEDULE? (EKS CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "enum too long to list",
        TEMPLATE,
        {"instanceType": "p6-b200.24xlarge"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceType: 'p6-b200.24xlarge': is none of the 1,437 "
            "values of InstanceType; did you mean p6-b200.48xlarge? (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "enum in a nested object",
        TEMPLATE,
        {"instanceMarketOptions.marketType": "capacity_block"},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceMarketOptions.marketType: 'capacity_block': must "
            "be spot, capacity-block, interruptible-capacity-reservation or on-demand; did you mean "
            "capacity-block? (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "enum in a built list",
        CLUSTER,
        {"enabledClusterLogTypes[1]": "audits"},
        (
            'aws:eks/cluster:Cluster::main: enabledClusterLogTypes: ["api", "audits"]: must be api, audit, '
            "authenticator, controllerManager or scheduler; did you mean audit? (EKS CreateCluster, <botocore>)"
        ),
    ),
    Case(
        "pattern",
        CLUSTER,
        {"name": "glm.prod"},
        (
            "aws:eks/cluster:Cluster::main: name: 'glm.prod': must match ^[0-9A-Za-z][A-Za-z0-9\\-_]* (EKS "
            "CreateCluster, <botocore>)"
        ),
    ),
    Case(
        "pattern of a made-up name",
        NODE_ROLE,
        {"namePrefix": "node role/"},
        (
            "aws:iam/role:Role::nodes: name: 'node role/ae0820a8879f00959ac23cc0cb': must match [\\w+=,.@-]+ (IAM "
            "CreateRole, <botocore>)"
        ),
    ),
    Case(
        "pattern with Unicode categories",
        NODE_ROLE,
        {"tags": {"team": "serving!"}},
        (
            'aws:iam/role:Role::nodes: tags: {"team": "serving!"}: must match [\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]* (IAM '
            "CreateRole, <botocore>)"
        ),
    ),
    Case(
        "length of a string",
        NODE_ROLE,
        {"name": "n" * 65},
        (
            "aws:iam/role:Role::nodes: name: 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn': "
            "has 65 characters, allowed are from 1 to 64 (IAM CreateRole, <botocore>)"
        ),
    ),
    Case(
        "length of a list",
        FLOW_LOG,
        {"tagFieldSpecifications": []},
        (
            "aws:ec2/flowLog:FlowLog::main: tagFieldSpecifications: []: has 0 members, allowed are from 1 to 3 "
            "(EC2 CreateFlowLogs, <botocore>)"
        ),
    ),
    Case(
        "least number",
        SYSTEM_NODES,
        {"scalingConfig.maxSize": 0},
        (
            "aws:eks/nodeGroup:NodeGroup::system: scalingConfig.maxSize: 0: must be at least 1 (EKS "
            "CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "range of numbers",
        NODE_ROLE,
        {"maxSessionDuration": 60},
        ("aws:iam/role:Role::nodes: maxSessionDuration: 60: must be from 3600 to 43200 (IAM CreateRole, <botocore>)"),
    ),
    Case(
        "wrong type: text for a number",
        SYSTEM_NODES,
        {"scalingConfig.desiredSize": "two"},
        (
            "aws:eks/nodeGroup:NodeGroup::system: scalingConfig.desiredSize: 'two': must be a whole number (EKS "
            "CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "wrong type: fraction",
        SYSTEM_NODES,
        {"scalingConfig.desiredSize": 1.5},
        (
            "aws:eks/nodeGroup:NodeGroup::system: scalingConfig.desiredSize: 1.5: must be a whole number (EKS "
            "CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "wrong type: list for text",
        SYSTEM_NODES,
        {"nodeRoleArn": ["a"]},
        ('aws:eks/nodeGroup:NodeGroup::system: nodeRoleArn: ["a"]: must be a string (EKS CreateNodegroup, <botocore>)'),
    ),
    Case(
        "wrong type: text for a boolean",
        VPC,
        {"enableDnsSupport": "yes"},
        ("aws:ec2/vpc:Vpc::main: enableDnsSupport: 'yes': must be true or false (EC2 ModifyVpcAttribute, <botocore>)"),
    ),
    Case(
        "empty label value",
        GPU_NODES,
        {"labels": {"nvidia.com/gpu.present": ""}},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: labels.nvidia.com/gpu.present: '': has 0 characters, allowed are "
            "from 1 to 63 (EKS CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "label value too long",
        GPU_NODES,
        {"labels": {"pool": "x" * 64}},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: labels.pool: "
            "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx': has 64 characters, allowed are "
            "from 1 to 63 (EKS CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "required by the API alone",
        TEMPLATE,
        {"creditSpecification": {}},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: creditSpecification.cpuCredits: not given: required (EC2 "
            "CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "time that is none",
        TEMPLATE,
        {"instanceMarketOptions": {"marketType": "spot", "spotOptions": {"validUntil": "soon"}}},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: inputs: as a whole: Invalid type for parameter "
            "LaunchTemplateData.InstanceMarketOptions.SpotOptions.ValidUntil, value: soon, type: <class 'str'>, "
            "valid types: <class 'datetime.datetime'>, timestamp-string (EC2 CreateLaunchTemplate, <botocore>)"
        ),
    ),
    Case(
        "misspelt property",
        GPU_NODES,
        {"amiTypes": "AL2023_x86_64_NVIDIA"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: amiTypes: 'AL2023_x86_64_NVIDIA': no such property; did you mean "
            "amiType?; allowed are amiType, capacityType, clusterName, diskSize, forceUpdateVersion, "
            "instanceTypes, labels, launchTemplate, nodeGroupName, nodeGroupNamePrefix, nodeRepairConfig, "
            "nodeRoleArn, region, releaseVersion, remoteAccess, scalingConfig, subnetIds, tags, taints, "
            "updateConfig, version or warmPoolConfig (NodeGroupArgs, <pulumi_aws>)"
        ),
    ),
    Case(
        "misspelt nested property",
        GPU_NODES,
        {"scalingConfig.desiredsize": 2},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: scalingConfig.desiredsize: 2: no such property; did you mean "
            "desiredSize?; allowed are desiredSize, maxSize or minSize (NodeGroupScalingConfigArgs, <pulumi_aws>)"
        ),
    ),
    Case(
        "misspelt property in a list",
        TEMPLATE,
        {"networkInterfaces[3].networkCard": 3},
        (
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: networkInterfaces[3].networkCard: 3: no such property; "
            "did you mean networkCardIndex?; allowed are associateCarrierIpAddress, associatePublicIpAddress, "
            "connectionTrackingSpecification, deleteOnTermination, description, deviceIndex, enaQueueCount, "
            "enaSrdSpecification, interfaceType, ipv4AddressCount, ipv4Addresses, ipv4PrefixCount, ipv4Prefixes, "
            "ipv6AddressCount, ipv6Addresses, ipv6PrefixCount, ipv6Prefixes, networkCardIndex, networkInterfaceId, "
            "primaryIpv6, privateIpAddress, securityGroups or subnetId (LaunchTemplateNetworkInterfaceArgs, "
            "<pulumi_aws>)"
        ),
    ),
    Case(
        "missing property",
        SYSTEM_NODES,
        {"nodeRoleArn": DELETE},
        (
            "aws:eks/nodeGroup:NodeGroup::system: nodeRoleArn: not given: the provider requires it (NodeGroupArgs, "
            "<pulumi_aws>)"
        ),
    ),
    Case(
        "missing nested property",
        GPU_NODES,
        {"launchTemplate.version": DELETE},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: launchTemplate.version: not given: the provider requires it "
            "(NodeGroupLaunchTemplateArgs, <pulumi_aws>)"
        ),
    ),
    Case(
        "property that is not carried",
        ("RouteTable", "public"),
        {"propagatingVgws": ["vgw-1"]},
        (
            'aws:ec2/routeTable:RouteTable::public: propagatingVgws: ["vgw-1"]: the rehearsal\'s AWS stand-in does '
            "not know how the provider sends this property; add it to the calls of aws:ec2/routeTable:RouteTable "
            "under rehearsal/aws (EC2 CreateRouteTable, <botocore>)"
        ),
    ),
    Case(
        "another region",
        VPC,
        {"region": "us-west-2"},
        (
            "aws:ec2/vpc:Vpc::main: region: 'us-west-2': this rehearsal plays us-east-2 only; leave region to the "
            "provider (rehearsal)"
        ),
    ),
    Case(
        "reserved tag",
        VPC,
        {"tags": {"aws:team": "a"}},
        (
            'aws:ec2/vpc:Vpc::main: tags: {"aws:team": "a"}: aws:team: the prefix aws: is AWS\'s own (tag '
            "restrictions, EKS CreatePodIdentityAssociation and EC2 Tag)"
        ),
    ),
    Case(
        "too many tags",
        VPC,
        {"tags": {f"t{i}": "" for i in range(51)}},
        (
            'aws:ec2/vpc:Vpc::main: tags: {"t0": "", "t1": "", "t10": "", "t11": "", "t12": "", "t13": "", "t14": '
            '"", "t15": "", "t16": "", "t… (551 characters): at most 50 tags, these are 51 (tag restrictions, EKS '
            "CreatePodIdentityAssociation and EC2 Tag)"
        ),
    ),
    Case(
        "tag value too long",
        VPC,
        {"tags": {"team": "x" * 257}},
        (
            'aws:ec2/vpc:Vpc::main: tags: {"team": '
            '"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… (269 '
            "characters): team: a key has at most 127 characters, a value at most 256 (tag restrictions, EKS "
            "CreatePodIdentityAssociation and EC2 Tag)"
        ),
    ),
)


@pytest.mark.parametrize("case", _REFUSED, ids=lambda case: case.name)
def test_refused(case: Case) -> None:
    with pytest.raises(AwsRefusal) as refusal:
        case.create()
    assert in_words(str(refusal.value)) == case.message
