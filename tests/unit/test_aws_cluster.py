"""Rules of EKS clusters, add-ons, access entries and Pod Identity."""

from __future__ import annotations

import pytest
from aws_account import (
    ADDON,
    CLUSTER,
    DELETE,
    ENTRY,
    ENTRY_POLICY,
    POD_IDENTITY,
    VPC,
    Case,
    in_words,
    trust,
)

from rehearsal.aws import AwsRefusal

_REFUSED = (
    Case(
        "version unknown",
        CLUSTER,
        {"version": "1.33"},
        (
            "aws:eks/cluster:Cluster::main: version: '1.33': unsupported Kubernetes version; the catalogue has "
            "1.34, 1.35 or 1.36 (serving/catalogue/kubernetes.toml, EKS user guide, versions)"
        ),
    ),
    Case(
        "version absent",
        CLUSTER,
        {"version": DELETE},
        (
            "aws:eks/cluster:Cluster::main: version: not given: give it: what EKS would choose is not known here; "
            "the catalogue has 1.34, 1.35 or 1.36 (EKS CreateCluster, <botocore>)"
        ),
    ),
    Case(
        "role with another trust",
        CLUSTER,
        {"roleArn": "arn:aws:iam::123456789012:role/<Role nodes>"},
        (
            "aws:eks/cluster:Cluster::main: roleArn: 'arn:aws:iam::123456789012:role/<Role nodes>': the trust "
            "policy of aws:iam/role:Role::nodes does not allow sts:AssumeRole to eks.amazonaws.com (EKS user "
            "guide, cluster IAM role)"
        ),
    ),
    Case(
        "role that is not there",
        CLUSTER,
        {"roleArn": "arn:aws:iam::123456789012:role/gone"},
        (
            "aws:eks/cluster:Cluster::main: roleArn: 'arn:aws:iam::123456789012:role/gone': NoSuchEntity: there is "
            "no such Role in the rehearsed account yet; take the value from the resource's output, so that it is "
            "created first (AWS error code, region us-east-2)"
        ),
    ),
    Case(
        "one subnet",
        CLUSTER,
        {"vpcConfig.subnetIds": ["<Subnet private-0>"]},
        (
            'aws:eks/cluster:Cluster::main: vpcConfig.subnetIds: ["<Subnet private-0>"]: at least two subnets are '
            "required (EKS CreateCluster, <botocore>)"
        ),
    ),
    Case(
        "subnets in one zone",
        CLUSTER,
        {"vpcConfig.subnetIds": ["<Subnet private-0>", "<Subnet public-0>"]},
        (
            'aws:eks/cluster:Cluster::main: vpcConfig.subnetIds: ["<Subnet private-0>", "<Subnet public-0>"]: '
            "Subnets specified must be in at least two different AZs; all are in use2-az1 (EKS error text, "
            "CreateCluster)"
        ),
    ),
    Case(
        "no endpoint",
        CLUSTER,
        {"vpcConfig.endpointPublicAccess": False, "vpcConfig.endpointPrivateAccess": False},
        (
            "aws:eks/cluster:Cluster::main: vpcConfig.endpointPublicAccess: false: Private and public endpoint "
            "access cannot both be disabled (EKS error text, CreateCluster)"
        ),
    ),
    Case(
        "private range for the public endpoint",
        CLUSTER,
        {"vpcConfig.publicAccessCidrs": ["10.0.0.0/16"]},
        (
            "aws:eks/cluster:Cluster::main: vpcConfig.publicAccessCidrs[0]: '10.0.0.0/16': The following CIDRs are "
            "not allowed in publicAccessCidrs: private addresses never reach a public endpoint (EKS error text, "
            "CreateCluster)"
        ),
    ),
    Case(
        "bad range for the public endpoint",
        CLUSTER,
        {"vpcConfig.publicAccessCidrs": ["203.0.113.7"]},
        (
            "aws:eks/cluster:Cluster::main: vpcConfig.publicAccessCidrs[0]: '203.0.113.7': must be a CIDR block "
            "with its prefix length, such as 10.0.0.0/16 (the provider's check of CIDR blocks)"
        ),
    ),
    Case(
        "private endpoint without DNS",
        CLUSTER,
        message=(
            "aws:eks/cluster:Cluster::main: vpcConfig.endpointPrivateAccess: true: needs enableDnsSupport and "
            "enableDnsHostnames on aws:ec2/vpc:Vpc::main (EKS user guide, cluster endpoint access)"
        ),
        others={VPC: {"enableDnsHostnames": False}},
    ),
    Case(
        "services over the VPC",
        CLUSTER,
        {"kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.0.64.0/20"}},
        (
            "aws:eks/cluster:Cluster::main: kubernetesNetworkConfig.serviceIpv4Cidr: '10.0.64.0/20': overlaps "
            "10.0.0.0/16, the range of aws:ec2/vpc:Vpc::main (EKS CreateCluster, <botocore>)"
        ),
    ),
    Case(
        "services outside private ranges",
        CLUSTER,
        {"kubernetesNetworkConfig": {"serviceIpv4Cidr": "100.64.0.0/16"}},
        (
            "aws:eks/cluster:Cluster::main: kubernetesNetworkConfig.serviceIpv4Cidr: '100.64.0.0/16': must be "
            "inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 (EKS CreateCluster, <botocore>)"
        ),
    ),
    Case(
        "services range too small",
        CLUSTER,
        {"kubernetesNetworkConfig": {"serviceIpv4Cidr": "172.20.0.0/25"}},
        (
            "aws:eks/cluster:Cluster::main: kubernetesNetworkConfig.serviceIpv4Cidr: '172.20.0.0/25': must be "
            "between a /24 and a /12 (EKS CreateCluster, <botocore>)"
        ),
    ),
    Case(
        "encryption of something else",
        CLUSTER,
        {"encryptionConfig.resources": ["configmaps"]},
        (
            "aws:eks/cluster:Cluster::main: encryptionConfig.resources[0]: 'configmaps': the only supported value "
            "is secrets (EKS CreateCluster, <botocore>)"
        ),
    ),
    Case(
        "encryption with no key",
        CLUSTER,
        {"encryptionConfig.provider.keyArn": "arn:aws:kms:us-east-2:123456789012:key/gone"},
        (
            "aws:eks/cluster:Cluster::main: encryptionConfig.provider.keyArn: "
            "'arn:aws:kms:us-east-2:123456789012:key/gone': NotFoundException: there is no such Key in the "
            "rehearsed account yet; take the value from the resource's output, so that it is created first (AWS "
            "error code, region us-east-2)"
        ),
    ),
    Case(
        "unknown security group",
        CLUSTER,
        {"vpcConfig.securityGroupIds": ["sg-00000000000000000"]},
        (
            "aws:eks/cluster:Cluster::main: vpcConfig.securityGroupIds[0]: 'sg-00000000000000000': "
            "InvalidGroup.NotFound: there is no such SecurityGroup in the rehearsed account yet; take the value "
            "from the resource's output, so that it is created first (AWS error code, region us-east-2)"
        ),
    ),
    Case(
        "add-on unknown",
        ADDON,
        {"addonName": "vpccni"},
        (
            "aws:eks/addon:Addon::vpc-cni: addonName: 'vpccni': is no add-on of EKS known here; known are vpc-cni, "
            "coredns, kube-proxy, aws-ebs-csi-driver, aws-efs-csi-driver, aws-fsx-csi-driver, "
            "aws-mountpoint-s3-csi-driver, eks-node-monitoring-agent, eks-pod-identity-agent, metrics-server, "
            "snapshot-controller or amazon-cloudwatch-observability; did you mean vpc-cni? (EKS user guide, "
            "add-ons)"
        ),
    ),
    Case(
        "add-on version",
        ADDON,
        {"addonVersion": "latest"},
        (
            "aws:eks/addon:Addon::vpc-cni: addonVersion: 'latest': must be a version that DescribeAddonVersions "
            "returns, in the form v1.2.3-eksbuild.4 (EKS CreateAddon, <botocore>)"
        ),
    ),
    Case(
        "add-on values that are no JSON",
        ADDON,
        {"configurationValues": "enableNetworkPolicy: true"},
        (
            "aws:eks/addon:Addon::vpc-cni: configurationValues: 'enableNetworkPolicy: true': is not JSON: "
            "Expecting value at line 1, column 1 (EKS CreateAddon, <botocore>)"
        ),
    ),
    Case(
        "add-on value that must be text",
        ADDON,
        {"configurationValues": '{"enableNetworkPolicy": true}'},
        (
            "aws:eks/addon:Addon::vpc-cni: configurationValues: '{\"enableNetworkPolicy\": true}': "
            "enableNetworkPolicy must be a string, 'true' instead of true (configuration schema of vpc-cni, "
            "aws/amazon-vpc-cni-k8s#3059)"
        ),
    ),
    Case(
        "add-on variable that must be text",
        ADDON,
        {"configurationValues": '{"env": {"WARM_IP_TARGET": 2}}'},
        (
            'aws:eks/addon:Addon::vpc-cni: configurationValues: \'{"env": {"WARM_IP_TARGET": 2}}\': '
            "env.WARM_IP_TARGET must be a string, '2' instead of 2 (configuration schema of vpc-cni, "
            "aws/amazon-vpc-cni-k8s#3059)"
        ),
    ),
    Case(
        "add-on conflicts",
        ADDON,
        {"resolveConflictsOnCreate": "PRESERVE"},
        (
            "aws:eks/addon:Addon::vpc-cni: resolveConflictsOnCreate: 'PRESERVE': must be NONE or OVERWRITE on "
            "creation (pulumi_aws.eks.Addon)"
        ),
    ),
    Case(
        "add-on beside the self-managed one",
        ADDON,
        {"resolveConflictsOnCreate": "NONE"},
        (
            "aws:eks/addon:Addon::vpc-cni: resolveConflictsOnCreate: 'NONE': conflicts with the self-managed "
            "vpc-cni that EKS puts into a new cluster: set it to OVERWRITE, or bootstrapSelfManagedAddons to false "
            "on aws:eks/cluster:Cluster::main (EKS CreateAddon, <botocore>; EKS user guide, add-ons)"
        ),
        others={CLUSTER: {"bootstrapSelfManagedAddons": True}},
    ),
    Case(
        "add-on conflicts on update",
        ADDON,
        {"resolveConflictsOnUpdate": "KEEP"},
        (
            "aws:eks/addon:Addon::vpc-cni: resolveConflictsOnUpdate: 'KEEP': must be OVERWRITE, NONE or PRESERVE "
            "(EKS UpdateAddon, <botocore>)"
        ),
    ),
    Case(
        "add-on role without session tags",
        ADDON,
        {
            "podIdentityAssociations": [
                {"serviceAccount": "aws-node", "roleArn": "arn:aws:iam::123456789012:role/<Role nodes>"}
            ]
        },
        (
            "aws:eks/addon:Addon::vpc-cni: podIdentityAssociations[0].roleArn: "
            "'arn:aws:iam::123456789012:role/<Role nodes>': the trust policy of aws:iam/role:Role::nodes does not "
            "allow sts:AssumeRole and sts:TagSession to pods.eks.amazonaws.com (EKS user guide, Pod Identity role)"
        ),
    ),
    Case(
        "add-on of no cluster",
        ADDON,
        {"clusterName": "other"},
        (
            "aws:eks/addon:Addon::vpc-cni: clusterName: 'other': ResourceNotFoundException: there is no such "
            "Cluster in the rehearsed account yet; take the value from the resource's output, so that it is "
            "created first (AWS error code, region us-east-2)"
        ),
    ),
    Case(
        "entry type",
        ENTRY,
        {"type": "ADMIN"},
        (
            "aws:eks/accessEntry:AccessEntry::admin: type: 'ADMIN': must be STANDARD, FARGATE_LINUX, EC2_LINUX, "
            "EC2_WINDOWS, EC2, HYBRID_LINUX or HYPERPOD_LINUX (EKS CreateAccessEntry, <botocore>)"
        ),
    ),
    Case(
        "entry of a session",
        ENTRY,
        {"principalArn": "arn:aws:sts::123456789012:assumed-role/admin/me"},
        (
            "aws:eks/accessEntry:AccessEntry::admin: principalArn: "
            "'arn:aws:sts::123456789012:assumed-role/admin/me': must be the ARN of an IAM role or user, "
            "arn:aws:iam::<account>:role/<name>, not of an STS session (EKS CreateAccessEntry, <botocore>)"
        ),
    ),
    Case(
        "entry of nodes with groups",
        ENTRY,
        {"type": "EC2_LINUX", "kubernetesGroups": ["viewers"]},
        (
            'aws:eks/accessEntry:AccessEntry::admin: kubernetesGroups: ["viewers"]: not for an entry of type '
            "EC2_LINUX (EKS CreateAccessEntry, <botocore>)"
        ),
    ),
    Case(
        "entry without the API",
        ENTRY,
        message=(
            "aws:eks/accessEntry:AccessEntry::admin: clusterName: 'glm': aws:eks/cluster:Cluster::main has "
            "accessConfig.authenticationMode CONFIG_MAP; access entries need API or API_AND_CONFIG_MAP (EKS user "
            "guide, access entries)"
        ),
        others={CLUSTER: {"accessConfig.authenticationMode": "CONFIG_MAP"}},
    ),
    Case(
        "entry with the API's default",
        ENTRY,
        message=(
            "aws:eks/accessEntry:AccessEntry::admin: clusterName: 'glm': aws:eks/cluster:Cluster::main has "
            "accessConfig.authenticationMode CONFIG_MAP; access entries need API or API_AND_CONFIG_MAP (EKS user "
            "guide, access entries)"
        ),
        others={CLUSTER: {"accessConfig": DELETE}},
    ),
    Case(
        "access policy of IAM",
        ENTRY_POLICY,
        {"policyArn": "arn:aws:iam::aws:policy/AmazonEKSClusterAdminPolicy"},
        (
            "aws:eks/accessPolicyAssociation:AccessPolicyAssociation::admin: policyArn: "
            "'arn:aws:iam::aws:policy/AmazonEKSClusterAdminPolicy': must be "
            "arn:aws:eks::aws:cluster-access-policy/<name>, for example …/AmazonEKSClusterAdminPolicy (EKS "
            "AssociateAccessPolicy, <botocore>)"
        ),
    ),
    Case(
        "access policy in no namespace",
        ENTRY_POLICY,
        {"accessScope.type": "namespace"},
        (
            "aws:eks/accessPolicyAssociation:AccessPolicyAssociation::admin: accessScope.namespaces: not given: "
            "required with scope type namespace (EKS AssociateAccessPolicy, <botocore>)"
        ),
    ),
    Case(
        "access policy without an entry",
        ENTRY_POLICY,
        {"principalArn": "arn:aws:iam::123456789012:role/other"},
        (
            "aws:eks/accessPolicyAssociation:AccessPolicyAssociation::admin: principalArn: "
            "'arn:aws:iam::123456789012:role/other': ResourceNotFoundException: glm has no access entry for this "
            "principal yet; take it from the AccessEntry's principalArn output, so that the entry is created first "
            "(EKS AssociateAccessPolicy, <botocore>)"
        ),
    ),
    Case(
        "access policy for nodes",
        ENTRY_POLICY,
        message=(
            "aws:eks/accessPolicyAssociation:AccessPolicyAssociation::admin: principalArn: "
            "'arn:aws:iam::123456789012:role/admin': aws:eks/accessEntry:AccessEntry::admin is of type EC2_LINUX, "
            "which takes no access policy (EKS CreateAccessEntry, <botocore>)"
        ),
        others={ENTRY: {"type": "EC2_LINUX"}},
    ),
    Case(
        "pod identity without session tags",
        POD_IDENTITY,
        message=(
            "aws:eks/podIdentityAssociation:PodIdentityAssociation::weights: roleArn: "
            "'arn:aws:iam::123456789012:role/<Role weights>': the trust policy of aws:iam/role:Role::weights does "
            "not allow sts:TagSession to pods.eks.amazonaws.com (EKS user guide, Pod Identity role)"
        ),
        others={("Role", "weights"): {"assumeRolePolicy": trust("pods.eks.amazonaws.com")}},
    ),
    Case(
        "pod identity policy with session tags",
        POD_IDENTITY,
        {"policy": '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}'},
        (
            "aws:eks/podIdentityAssociation:PodIdentityAssociation::weights: policy: "
            '\'{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}\': needs '
            "disableSessionTags true (EKS CreatePodIdentityAssociation, <botocore>)"
        ),
    ),
)

ACCEPTED = (
    Case("public endpoint for all the world", CLUSTER, {"vpcConfig.publicAccessCidrs": DELETE}),
    Case("private endpoint only", CLUSTER, {"vpcConfig.endpointPublicAccess": False}),
    Case("extended support", CLUSTER, {"version": "1.34", "upgradePolicy.supportType": "EXTENDED"}),
    Case("services beside the VPC", CLUSTER, {"kubernetesNetworkConfig": {"serviceIpv4Cidr": "172.20.0.0/16"}}),
    Case(
        "key of another account",
        CLUSTER,
        {"encryptionConfig.provider.keyArn": "arn:aws:kms:us-east-2:210987654321:key/other"},
    ),
    Case(
        "add-on over the self-managed one",
        ADDON,
        {"addonVersion": "v1.23.1-eksbuild.1"},
        others={CLUSTER: {"bootstrapSelfManagedAddons": True}},
    ),
    Case(
        "add-on with a role",
        ADDON,
        {
            "podIdentityAssociations": [
                {"serviceAccount": "aws-node", "roleArn": "arn:aws:iam::123456789012:role/<Role weights>"}
            ]
        },
    ),
    Case("entry of nodes", ENTRY, {"type": "EC2_LINUX"}),
    Case("entry with groups", ENTRY, {"kubernetesGroups": ["viewers"]}),
    Case(
        "access policy in a namespace", ENTRY_POLICY, {"accessScope": {"type": "namespace", "namespaces": ["serving"]}}
    ),
    Case(
        "pod identity with a policy",
        POD_IDENTITY,
        {
            "disableSessionTags": True,
            "policy": '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}',
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
