"""Rules of managed node groups."""

from __future__ import annotations

import pytest
from aws_account import ADDON, CLUSTER, DELETE, GPU_NODES, SUBNET, SYSTEM_NODES, TEMPLATE, Case, in_words

from rehearsal.aws import AwsRefusal

_REFUSED = (
    Case(
        "desired below minimum",
        SYSTEM_NODES,
        {"scalingConfig.desiredSize": 0},
        (
            "aws:eks/nodeGroup:NodeGroup::system: scalingConfig.desiredSize: 0: must not be below minSize 1 (EKS "
            "CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "desired above maximum",
        SYSTEM_NODES,
        {"scalingConfig.desiredSize": 4},
        (
            "aws:eks/nodeGroup:NodeGroup::system: scalingConfig.desiredSize: 4: must not be above maxSize 3 (EKS "
            "CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "update: both",
        GPU_NODES,
        {"updateConfig.maxUnavailablePercentage": 50},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: updateConfig.maxUnavailablePercentage: 50: give exactly one of "
            "maxUnavailable and maxUnavailablePercentage (EKS NodegroupUpdateConfig)"
        ),
    ),
    Case(
        "update: neither",
        GPU_NODES,
        {"updateConfig.maxUnavailable": DELETE},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: updateConfig.maxUnavailable: not given: give exactly one of "
            "maxUnavailable and maxUnavailablePercentage (EKS NodegroupUpdateConfig)"
        ),
    ),
    Case(
        "update: more than nodes",
        GPU_NODES,
        {"updateConfig.maxUnavailable": 3},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: updateConfig.maxUnavailable: 3: must not be above the group's "
            "nodes, scalingConfig.maxSize 2 (EKS NodegroupUpdateConfig)"
        ),
    ),
    Case(
        "update: more than a hundred",
        GPU_NODES,
        {"updateConfig.maxUnavailable": 101, "scalingConfig.maxSize": 200},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: updateConfig.maxUnavailable: 101: must be at most 100 (EKS "
            "NodegroupUpdateConfig)"
        ),
    ),
    Case(
        "repair override incomplete",
        GPU_NODES,
        {"nodeRepairConfig.nodeRepairConfigOverrides[0].nodeUnhealthyReason": DELETE},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: nodeRepairConfig.nodeRepairConfigOverrides[0].nodeUnhealthyReason: "
            "not given: the provider requires it (NodeGroupNodeRepairConfigNodeRepairConfigOverrideArgs, "
            "<pulumi_aws>)"
        ),
    ),
    Case(
        "repair action",
        GPU_NODES,
        {"nodeRepairConfig.nodeRepairConfigOverrides[0].repairAction": "Restart"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: nodeRepairConfig.nodeRepairConfigOverrides[0].repairAction: "
            "'Restart': must be Replace, Reboot or NoAction (EKS CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "repair wait",
        GPU_NODES,
        {"nodeRepairConfig.nodeRepairConfigOverrides[0].minRepairWaitTimeMins": 0},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: "
            "nodeRepairConfig.nodeRepairConfigOverrides[0].minRepairWaitTimeMins: 0: must be at least 1 (EKS "
            "CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "repair: count and percentage",
        GPU_NODES,
        {
            "nodeRepairConfig.maxParallelNodesRepairedCount": 1,
            "nodeRepairConfig.maxParallelNodesRepairedPercentage": 50,
        },
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: nodeRepairConfig.maxParallelNodesRepairedPercentage: 50: not "
            "together with maxParallelNodesRepairedCount (EKS NodeRepairConfig)"
        ),
    ),
    Case(
        "too many labels",
        GPU_NODES,
        {"labels": {f"l{x}": "v" for x in range(51)}},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: labels: {"l0": "v", "l1": "v", "l10": "v", "l11": "v", "l12": "v", '
            '"l13": "v", "l14": "v", "l15": "v", "l16"… (602 characters): a node group has at most 50 labels, '
            "these are 51 (EKS user guide, managed node groups)"
        ),
    ),
    Case(
        "too many taints",
        GPU_NODES,
        {"taints": [{"key": f"k{x}", "value": "v", "effect": "NO_SCHEDULE"} for x in range(51)]},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: taints: [{"effect": "NO_SCHEDULE", "key": "k0", "value": "v"}, '
            '{"effect": "NO_SCHEDULE", "key": "k1", "value… (2795 characters): a node group has at most 50 taints, '
            "these are 51 (EKS user guide, managed node groups)"
        ),
    ),
    Case(
        "label key",
        GPU_NODES,
        {"labels": {"nvidia.com/gpu/present": "true"}},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: labels: {"nvidia.com/gpu/present": "true"}: nvidia.com/gpu/present: '
            "a key is [prefix/]name, the name of letters, digits, -, _ and . with a letter or digit at both ends "
            "(Kubernetes label syntax)"
        ),
    ),
    Case(
        "label value",
        GPU_NODES,
        {"labels": {"pool": "b200 pool"}},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: labels: {"pool": "b200 pool"}: pool=b200 pool: a value is made of '
            "letters, digits, -, _ and . with a letter or digit at both ends (Kubernetes label syntax)"
        ),
    ),
    Case(
        "reserved label",
        GPU_NODES,
        {"labels": {"node-role.kubernetes.io/gpu": "true"}},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: labels: {"node-role.kubernetes.io/gpu": "true"}: '
            "node-role.kubernetes.io/gpu: Label cannot contain reserved prefixes [kubernetes.io/, k8s.io/, "
            "eks.amazonaws.com/] (EKS error text, aws/containers-roadmap#1451)"
        ),
    ),
    Case(
        "taint key",
        GPU_NODES,
        {"taints[0].key": "-gpu"},
        (
            'aws:eks/nodeGroup:NodeGroup::gpu: taints[0]: {"effect": "NO_SCHEDULE", "key": "-gpu", "value": '
            '"present"}: -gpu: a key is [prefix/]name, the name of letters, digits, -, _ and . with a letter or '
            "digit at both ends (Kubernetes label syntax)"
        ),
    ),
    Case(
        "group name taken",
        GPU_NODES,
        {"nodeGroupName": "<name of NodeGroup system>"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: nodeGroupName: '<name of NodeGroup system>': "
            "ResourceInUseException: NodeGroup already exists with this name; a replacement needs "
            "delete_before_replace (EKS CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "version of another cluster",
        GPU_NODES,
        {"version": "1.35"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: version: '1.35': must be the cluster's, 1.36 (EKS CreateNodegroup, "
            "<botocore>)"
        ),
    ),
    Case(
        "release of another version",
        GPU_NODES,
        {"releaseVersion": "1.35.6-20260714"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: releaseVersion: '1.35.6-20260714': must be an AMI release of the "
            "cluster's version, 1.36.<patch>-<yyyymmdd>, for example 1.36.2-20260714 (EKS user guide, optimized "
            "AMI versions)"
        ),
    ),
    Case(
        "release without a date",
        GPU_NODES,
        {"releaseVersion": "1.36.2"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: releaseVersion: '1.36.2': must be an AMI release of the cluster's "
            "version, 1.36.<patch>-<yyyymmdd>, for example 1.36.2-20260714 (EKS user guide, optimized AMI "
            "versions)"
        ),
    ),
    Case(
        "GPU machine without a GPU image",
        GPU_NODES,
        {"amiType": "AL2023_x86_64_STANDARD"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: amiType: 'AL2023_x86_64_STANDARD': p6-b200.48xlarge has GPUs and "
            "needs an image with the NVIDIA driver: AL2023_x86_64_NVIDIA, BOTTLEROCKET_x86_64_NVIDIA or "
            "BOTTLEROCKET_x86_64_NVIDIA_FIPS (EKS CreateNodegroup, <botocore>; EKS user guide, "
            "ml/ml-eks-optimized-ami)"
        ),
    ),
    Case(
        "GPU machine without an image",
        GPU_NODES,
        {"amiType": DELETE},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: amiType: not given: p6-b200.48xlarge has GPUs and needs an image "
            "with the NVIDIA driver: AL2023_x86_64_NVIDIA, BOTTLEROCKET_x86_64_NVIDIA or "
            "BOTTLEROCKET_x86_64_NVIDIA_FIPS (EKS CreateNodegroup, <botocore>; EKS user guide, "
            "ml/ml-eks-optimized-ami)"
        ),
    ),
    Case(
        "CPU machine with a GPU image",
        SYSTEM_NODES,
        {"amiType": "AL2023_x86_64_NVIDIA"},
        (
            "aws:eks/nodeGroup:NodeGroup::system: amiType: 'AL2023_x86_64_NVIDIA': m7i.large has no accelerator "
            "and is not a valid instance type for this image; take AL2023_x86_64_STANDARD (EKS CreateNodegroup, "
            "<botocore>)"
        ),
    ),
    Case(
        "machine unknown",
        SYSTEM_NODES,
        {"instanceTypes": ["m7i.larg"]},
        (
            "aws:eks/nodeGroup:NodeGroup::system: instanceTypes[0]: 'm7i.larg': is no instance type that the "
            "catalogue knows: m7i.2xlarge, m7i.large, m7i.xlarge, p5e.48xlarge, p5en.48xlarge, p6-b200.48xlarge or "
            "p6-b300.48xlarge; did you mean m7i.large? (serving/catalogue/accelerators.toml)"
        ),
    ),
    Case(
        "no machine",
        SYSTEM_NODES,
        {"instanceTypes": DELETE},
        (
            "aws:eks/nodeGroup:NodeGroup::system: instanceTypes: not given: name one, here or in the launch "
            "template: without it EKS takes t3.medium (EKS CreateNodegroup, <botocore>)"
        ),
    ),
    Case(
        "machine not in the region",
        GPU_NODES,
        message=(
            "aws:ec2/launchTemplate:LaunchTemplate::gpu: instanceType: 'p6-b300.48xlarge': p6-b300.48xlarge is not "
            "offered in us-east-2, only in ap-northeast-2, ap-south-2, ap-southeast-3, sa-east-1, us-east-1 or "
            "us-west-2 (EC2 DescribeInstanceTypeOfferings, serving/catalogue/accelerators.toml)"
        ),
        others={TEMPLATE: {"instanceType": "p6-b300.48xlarge", "networkInterfaces": DELETE}},
    ),
    Case(
        "machine not in the region, on the group",
        SYSTEM_NODES,
        {"instanceTypes": ["p6-b300.48xlarge"], "amiType": "AL2023_x86_64_NVIDIA"},
        (
            'aws:eks/nodeGroup:NodeGroup::system: instanceTypes: ["p6-b300.48xlarge"]: p6-b300.48xlarge is not '
            "offered in us-east-2, only in ap-northeast-2, ap-south-2, ap-southeast-3, sa-east-1, us-east-1 or "
            "us-west-2 (EC2 DescribeInstanceTypeOfferings, serving/catalogue/accelerators.toml)"
        ),
    ),
    Case(
        "machine not in the zone",
        GPU_NODES,
        message=(
            "aws:eks/nodeGroup:NodeGroup::gpu: subnetIds[0]: '<Subnet private-0>': "
            "aws:ec2/subnet:Subnet::private-0 is in use2-az4, where p6-b200.48xlarge is not offered; in us-east-2 "
            "it is in use2-az1, use2-az2 or use2-az3 (EC2 DescribeInstanceTypeOfferings, "
            "serving/catalogue/accelerators.toml)"
        ),
        others={SUBNET: {"availabilityZoneId": "use2-az4"}},
    ),
    Case(
        "subnet that is not there",
        GPU_NODES,
        {"subnetIds": ["subnet-00000000000000000"]},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: subnetIds[0]: 'subnet-00000000000000000': InvalidSubnetID.NotFound: "
            "there is no such Subnet in the rehearsed account yet; take the value from the resource's output, so "
            "that it is created first (AWS error code, region us-east-2)"
        ),
    ),
    Case(
        "role with another trust",
        GPU_NODES,
        {"nodeRoleArn": "arn:aws:iam::123456789012:role/<Role cluster>"},
        (
            "aws:eks/nodeGroup:NodeGroup::gpu: nodeRoleArn: 'arn:aws:iam::123456789012:role/<Role cluster>': the "
            "trust policy of aws:iam/role:Role::cluster does not allow sts:AssumeRole to ec2.amazonaws.com (EKS "
            "user guide, node IAM role)"
        ),
    ),
    Case(
        "role without the worker policy",
        SYSTEM_NODES,
        message=(
            "aws:eks/nodeGroup:NodeGroup::system: nodeRoleArn: 'arn:aws:iam::123456789012:role/<Role nodes>': "
            "NodeCreationFailure: aws:iam/role:Role::nodes has none of AmazonEKSWorkerNodePolicy or "
            "AmazonEKSWorkerNodeMinimalPolicy attached yet, so no node joins; attach it before the group "
            "(depends_on) (EKS user guide, node IAM role)"
        ),
        without=(("RolePolicyAttachment", "nodes-AmazonEKSWorkerNodePolicy"),),
    ),
    Case(
        "role without the registry",
        SYSTEM_NODES,
        message=(
            "aws:eks/nodeGroup:NodeGroup::system: nodeRoleArn: 'arn:aws:iam::123456789012:role/<Role nodes>': "
            "NodeCreationFailure: aws:iam/role:Role::nodes has none of AmazonEC2ContainerRegistryReadOnly or "
            "AmazonEC2ContainerRegistryPullOnly attached yet, so no node joins; attach it before the group "
            "(depends_on) (EKS user guide, node IAM role)"
        ),
        without=(("RolePolicyAttachment", "nodes-AmazonEC2ContainerRegistryReadOnly"),),
    ),
    Case(
        "role without the network plugin",
        SYSTEM_NODES,
        message=(
            "aws:eks/nodeGroup:NodeGroup::system: nodeRoleArn: 'arn:aws:iam::123456789012:role/<Role nodes>': "
            "NodeCreationFailure: aws:iam/role:Role::nodes has no AmazonEKS_CNI_Policy, and the vpc-cni add-on has "
            "no role of its own, so no node joins; attach it before the group (depends_on) (EKS user guide, node "
            "IAM role)"
        ),
        without=(("RolePolicyAttachment", "nodes-AmazonEKS_CNI_Policy"),),
    ),
    Case(
        "no network plugin",
        SYSTEM_NODES,
        message=(
            "aws:eks/nodeGroup:NodeGroup::system: clusterName: 'glm': NodeCreationFailure: "
            "aws:eks/cluster:Cluster::main has bootstrapSelfManagedAddons false and no vpc-cni add-on yet, so no "
            "node gets ready; create the add-on first (depends_on) (EKS user guide, managed node group errors)"
        ),
        without=(ADDON,),
    ),
    Case(
        "no cluster yet",
        SYSTEM_NODES,
        {"clusterName": "other"},
        (
            "aws:eks/nodeGroup:NodeGroup::system: clusterName: 'other': ResourceNotFoundException: there is no "
            "such Cluster in the rehearsed account yet; take the value from the resource's output, so that it is "
            "created first (AWS error code, region us-east-2)"
        ),
    ),
)

ACCEPTED = (
    Case(
        "nothing to start with",
        GPU_NODES,
        {
            "scalingConfig": {"minSize": 0, "desiredSize": 0, "maxSize": 1},
            "updateConfig": {"maxUnavailablePercentage": 50},
        },
    ),
    Case("Bottlerocket", GPU_NODES, {"amiType": "BOTTLEROCKET_x86_64_NVIDIA"}),
    Case("version of the cluster", GPU_NODES, {"version": "1.36"}),
    Case("fifty labels", GPU_NODES, {"labels": {f"l{x}": "v" for x in range(50)}}),
    Case("taint without a value", GPU_NODES, {"taints": [{"key": "gpu", "effect": "NO_EXECUTE"}]}),
    Case(
        "minimal worker policies",
        SYSTEM_NODES,
        others={
            ("RolePolicyAttachment", "nodes-AmazonEKSWorkerNodePolicy"): {
                "policyArn": "arn:aws:iam::aws:policy/AmazonEKSWorkerNodeMinimalPolicy"
            },
            ("RolePolicyAttachment", "nodes-AmazonEC2ContainerRegistryReadOnly"): {
                "policyArn": "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly"
            },
        },
    ),
    Case(
        "network plugin with a role of its own",
        SYSTEM_NODES,
        others={
            ADDON: {
                "podIdentityAssociations": [
                    {"serviceAccount": "aws-node", "roleArn": "arn:aws:iam::123456789012:role/<Role weights>"}
                ]
            }
        },
        without=(("RolePolicyAttachment", "nodes-AmazonEKS_CNI_Policy"),),
    ),
    Case(
        "self-managed network plugin",
        SYSTEM_NODES,
        others={CLUSTER: {"bootstrapSelfManagedAddons": True}},
        without=(ADDON,),
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
