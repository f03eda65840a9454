from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pulumi
import pytest
import yaml

from components.eks_cluster import ADDONS, EksCluster, EksClusterArgs
from components.network import Network, NetworkArgs
from serving.config import EksClusterConfig
from tests.graph.harness import CLUSTER_CA, CLUSTER_ENDPOINT, CLUSTER_SECURITY_GROUP, UNKNOWN, Run, run
from tests.graph.stacks import ADMIN, CLUSTER_NAME, cluster_program, plan

CLUSTER = "aws:eks/cluster:Cluster"
ADDON = "aws:eks/addon:Addon"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
CLUSTER_ARN = f"arn:aws:eks:us-east-1:123456789012:cluster/{CLUSTER_NAME}"
NODE_ATTACHMENTS = {
    "RolePolicyAttachment eks-node-AmazonEKSWorkerNodePolicy",
    "RolePolicyAttachment eks-node-AmazonEC2ContainerRegistryPullOnly",
    "RolePolicyAttachment eks-node-AmazonSSMManagedInstanceCore",
}


def cluster(*, preview: bool = False, **config: Any) -> Run:
    return _run(json.dumps(config, sort_keys=True), preview)


@cache
def _run(config: str, preview: bool) -> Run:
    """Run each program once: a run is only read, and the same program registers the same."""
    return run(cluster_program(**json.loads(config)), preview=preview)


def test_urns() -> None:
    made = "glm-on-gpus:eks_cluster:EksCluster$"
    owned = [urn for urn in cluster(adminRoleArns={"platform": ADMIN}).urns if ":network:" not in urn]
    assert owned == [
        f"{made}aws:cloudwatch/logGroup:LogGroup::eks-logs",
        f"{made}aws:ec2/launchTemplate:LaunchTemplate::eks-system",
        f"{made}aws:eks/accessEntry:AccessEntry::eks-admin-platform",
        f"{made}aws:eks/accessPolicyAssociation:AccessPolicyAssociation::eks-admin-platform",
        f"{made}aws:eks/addon:Addon::eks-coredns",
        f"{made}aws:eks/addon:Addon::eks-eks-node-monitoring-agent",
        f"{made}aws:eks/addon:Addon::eks-eks-pod-identity-agent",
        f"{made}aws:eks/addon:Addon::eks-kube-proxy",
        f"{made}aws:eks/addon:Addon::eks-vpc-cni",
        f"{made}aws:eks/cluster:Cluster::eks-cluster",
        f"{made}aws:eks/nodeGroup:NodeGroup::eks-system",
        f"{made}aws:iam/role:Role::eks-control-plane",
        f"{made}aws:iam/role:Role::eks-node",
        f"{made}aws:iam/role:Role::eks-vpc-cni",
        f"{made}aws:iam/rolePolicy:RolePolicy::eks-control-plane-secrets",
        f"{made}aws:iam/rolePolicyAttachment:RolePolicyAttachment::eks-control-plane-AmazonEKSClusterPolicy",
        f"{made}aws:iam/rolePolicyAttachment:RolePolicyAttachment::eks-node-AmazonEC2ContainerRegistryPullOnly",
        f"{made}aws:iam/rolePolicyAttachment:RolePolicyAttachment::eks-node-AmazonEKSWorkerNodePolicy",
        f"{made}aws:iam/rolePolicyAttachment:RolePolicyAttachment::eks-node-AmazonSSMManagedInstanceCore",
        f"{made}aws:iam/rolePolicyAttachment:RolePolicyAttachment::eks-vpc-cni-AmazonEKS_CNI_Policy",
        f"{made}aws:kms/key:Key::eks-secrets",
        f"{made}pulumi:providers:kubernetes::eks-provider",
        "pulumi:pulumi:Stack$glm-on-gpus:eks_cluster:EksCluster::eks",
    ]


# --- the control plane ---------------------------------------------------------------------------------------------------


def test_the_cluster() -> None:
    result = cluster(publicAccessCidrs=["203.0.113.0/24"])
    row = result.one(CLUSTER)
    assert row.inputs == {
        "name": CLUSTER_NAME,
        "version": "1.36",
        "roleArn": "arn:aws:iam::123456789012:role/eks-control-plane",
        "vpcConfig": {
            "subnetIds": ["net-private-use1-az6-id", "net-private-use1-az2-id"],
            "endpointPrivateAccess": True,
            "endpointPublicAccess": True,
            "publicAccessCidrs": ["203.0.113.0/24"],
        },
        "accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": True},
        "bootstrapSelfManagedAddons": False,
        "encryptionConfig": {
            "provider": {"keyArn": "arn:aws:kms:us-east-1:123456789012:key/eks-secrets"},
            "resources": ["secrets"],
        },
        "enabledClusterLogTypes": ["api", "audit", "authenticator", "controllerManager", "scheduler"],
        "upgradePolicy": {"supportType": "STANDARD"},
        "deletionProtection": False,
    }
    assert row.delete_before_replace
    waits_for = {
        "LogGroup eks-logs",
        "RolePolicyAttachment eks-control-plane-AmazonEKSClusterPolicy",
        "RolePolicy eks-control-plane-secrets",
    }
    assert waits_for <= result.dependencies(row)


def test_without_named_networks_the_endpoint_is_private() -> None:
    assert cluster().one(CLUSTER).inputs["vpcConfig"] == {
        "subnetIds": ["net-private-use1-az6-id", "net-private-use1-az2-id"],
        "endpointPrivateAccess": True,
        "endpointPublicAccess": False,
    }


def test_a_third_zone_is_for_nodes_and_not_for_the_control_plane() -> None:
    result = cluster(availabilityZoneIds=["use1-az6", "use1-az2", "use1-az4"])
    first_two = ["net-private-use1-az6-id", "net-private-use1-az2-id"]
    assert result.one(CLUSTER).inputs["vpcConfig"]["subnetIds"] == first_two
    assert result.one(NODE_GROUP).inputs["subnetIds"] == [*first_two, "net-private-use1-az4-id"]


@pytest.mark.parametrize("on", [True, False])
def test_deletion_protection_is_pulumis_and_awss(on: bool) -> None:
    result = cluster(deletionProtection=on)
    assert result.one(CLUSTER).inputs["deletionProtection"] is on
    assert {row.label for row in result.resources if row.protect} == (
        {"Cluster eks-cluster", "Key eks-secrets"} if on else set[str]()
    )


def test_log_group_and_key() -> None:
    result = cluster()
    assert result.one("aws:cloudwatch/logGroup:LogGroup").inputs == {
        "name": f"/aws/eks/{CLUSTER_NAME}/cluster",
        "retentionInDays": 90,
    }
    assert result.one("aws:kms/key:Key").inputs == {
        "description": f"Encrypts the Kubernetes Secrets of {CLUSTER_NAME}",
        "enableKeyRotation": True,
        "deletionWindowInDays": 30,
    }
    policy = result.one("aws:iam/rolePolicy:RolePolicy").inputs
    assert policy["role"] == "eks-control-plane-1a2b3c4"
    assert json.loads(policy["policy"])["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ListGrants", "kms:DescribeKey"],
            "Resource": "arn:aws:kms:us-east-1:123456789012:key/eks-secrets",
        }
    ]


def test_administrators() -> None:
    other = "arn:aws:iam::123456789012:role/on-call"
    result = cluster(adminRoleArns={"platform": ADMIN, "on-call": other})
    entries = {row.name: row.inputs for row in result.of("aws:eks/accessEntry:AccessEntry")}
    assert entries == {
        f"eks-admin-{name}": {"clusterName": CLUSTER_NAME, "principalArn": arn, "type": "STANDARD"}
        for name, arn in (("platform", ADMIN), ("on-call", other))
    }
    policies = {row.name: row for row in result.of("aws:eks/accessPolicyAssociation:AccessPolicyAssociation")}
    assert {name: row.inputs for name, row in policies.items()} == {
        name: {
            "clusterName": CLUSTER_NAME,
            "principalArn": entry["principalArn"],
            "policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy",
            "accessScope": {"type": "cluster"},
        }
        for name, entry in entries.items()
    }
    assert all(f"AccessEntry {name}" in result.dependencies(row) for name, row in policies.items())


def test_roles() -> None:
    result = cluster()
    trust = {row.name: json.loads(row.inputs["assumeRolePolicy"]) for row in result.of("aws:iam/role:Role")}
    assert trust == {
        "eks-control-plane": allows("eks.amazonaws.com", "sts:AssumeRole"),
        "eks-node": allows("ec2.amazonaws.com", "sts:AssumeRole"),
        "eks-vpc-cni": allows("pods.eks.amazonaws.com", "sts:AssumeRole", "sts:TagSession"),
    }
    attachments = result.of("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    assert sorted((row.inputs["role"], row.inputs["policyArn"]) for row in attachments) == [
        (f"{role}-1a2b3c4", f"arn:aws:iam::aws:policy/{policy}")
        for role, policy in (
            ("eks-control-plane", "AmazonEKSClusterPolicy"),
            ("eks-node", "AmazonEC2ContainerRegistryPullOnly"),
            ("eks-node", "AmazonEKSWorkerNodePolicy"),
            ("eks-node", "AmazonSSMManagedInstanceCore"),
            ("eks-vpc-cni", "AmazonEKS_CNI_Policy"),
        )
    ]


def allows(service: str, *actions: str) -> dict[str, object]:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": list(actions)}
    return {"Version": "2012-10-17", "Statement": [statement]}


# --- add-ons and system nodes --------------------------------------------------------------------------------------------

CNI_ROLE = "arn:aws:iam::123456789012:role/eks-vpc-cni"
DCGM_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def test_addons() -> None:
    result = cluster(addonVersions={"vpc-cni": "v1.23.1-eksbuild.1", "coredns": "v1.14.2-eksbuild.4"})
    addons = {row.inputs["addonName"]: addon_settings(row.inputs) for row in result.of(ADDON)}
    assert addons == {
        "coredns": {"addonVersion": "v1.14.2-eksbuild.4"},
        "eks-node-monitoring-agent": {"configurationValues": {"dcgmAgent": {"tolerations": [DCGM_TOLERATION]}}},
        "eks-pod-identity-agent": {},
        "kube-proxy": {},
        "vpc-cni": {
            "addonVersion": "v1.23.1-eksbuild.1",
            "configurationValues": {"enableNetworkPolicy": "true"},
            "podIdentityAssociations": [{"roleArn": CNI_ROLE, "serviceAccount": "aws-node"}],
        },
    }
    assert set(ADDONS) == set(addons)


def addon_settings(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Check what all add-ons share and return the rest, the configuration parsed."""
    rest = dict(inputs)
    rest.pop("addonName")
    assert rest.pop("clusterName") == CLUSTER_NAME
    assert rest.pop("resolveConflictsOnCreate") == rest.pop("resolveConflictsOnUpdate") == "OVERWRITE"
    if "configurationValues" in rest:
        rest["configurationValues"] = json.loads(rest["configurationValues"])
    return rest


def test_nodes_come_after_what_makes_them_ready() -> None:
    result = cluster()
    before_cni = result.dependencies(result.one(ADDON, "eks-vpc-cni"))
    assert {"Addon eks-eks-pod-identity-agent", "RolePolicyAttachment eks-vpc-cni-AmazonEKS_CNI_Policy"} <= before_cni
    before_nodes = result.dependencies(result.one(NODE_GROUP))
    addons = {"Addon eks-eks-pod-identity-agent", "Addon eks-vpc-cni", "Addon eks-kube-proxy"}
    way_out = {"Route net-private-use1-az6", "Route net-private-use1-az2"}
    assert addons | NODE_ATTACHMENTS | way_out <= before_nodes
    for addon in ("eks-coredns", "eks-eks-node-monitoring-agent"):
        assert "NodeGroup eks-system" in result.dependencies(result.one(ADDON, addon))


def test_system_nodes() -> None:
    result = cluster(systemInstanceType="m7i.xlarge", systemNodes=3, kubernetesVersion="1.35")
    assert result.one(NODE_GROUP).inputs == {
        "clusterName": CLUSTER_NAME,
        "nodeRoleArn": "arn:aws:iam::123456789012:role/eks-node",
        "subnetIds": ["net-private-use1-az6-id", "net-private-use1-az2-id"],
        "amiType": "AL2023_x86_64_STANDARD",
        "capacityType": "ON_DEMAND",
        "version": "1.35",
        "releaseVersion": "1.35.6-20260714",
        "launchTemplate": {"id": "eks-system-id", "version": "7"},
        "labels": {"glm-on-gpus/node-pool": "system"},
        "scalingConfig": {"minSize": 3, "maxSize": 3, "desiredSize": 3},
        "updateConfig": {"maxUnavailable": 1},
        "nodeRepairConfig": {"enabled": True},
    }
    tags = {"Name": f"{CLUSTER_NAME}-system"}
    assert result.one("aws:ec2/launchTemplate:LaunchTemplate").inputs == {
        "instanceType": "m7i.xlarge",
        "metadataOptions": {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1},
        "blockDeviceMappings": [
            {
                "deviceName": "/dev/xvda",
                "ebs": {"volumeSize": 50, "volumeType": "gp3", "encrypted": "true", "deleteOnTermination": "true"},
            }
        ],
        "vpcSecurityGroupIds": [CLUSTER_SECURITY_GROUP],
        "tagSpecifications": [
            {"resourceType": kind, "tags": tags} for kind in ("instance", "volume", "network-interface")
        ],
    }


# --- access for Pulumi and people ----------------------------------------------------------------------------------------


def test_kubeconfig_asks_the_aws_cli_and_is_secret() -> None:
    exported = cluster().exports["kubeconfig"]
    assert exported.secret
    assert yaml.safe_load(exported.value) == {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": CLUSTER_NAME,
                "cluster": {"server": CLUSTER_ENDPOINT, "certificate-authority-data": CLUSTER_CA},
            }
        ],
        "users": [
            {
                "name": CLUSTER_NAME,
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1beta1",
                        "command": "aws",
                        "args": ["eks", "get-token", "--cluster-name", CLUSTER_NAME, "--region", "us-east-1"],
                    }
                },
            }
        ],
        "contexts": [{"name": CLUSTER_NAME, "context": {"cluster": CLUSTER_NAME, "user": CLUSTER_NAME}}],
        "current-context": CLUSTER_NAME,
    }


def test_provider_is_the_cluster_whatever_its_kubeconfig_says() -> None:
    result = cluster(adminRoleArns={"platform": ADMIN})
    provider = result.one("pulumi:providers:kubernetes")
    assert provider.secret_inputs == {"kubeconfig"}
    assert {key: value for key, value in provider.inputs.items() if key != "kubeconfig"} == {
        "clusterIdentifier": CLUSTER_ARN,
        "enableServerSideApply": "true",
    }
    waits_for = {
        "Addon eks-coredns",
        "NodeGroup eks-system",
        "AccessPolicyAssociation eks-admin-platform",
        "Route net-private-use1-az6",
    }
    assert waits_for <= result.dependencies(provider)


def test_what_policies_see() -> None:
    result = cluster(adminRoleArns={"platform": ADMIN}, addonVersions={"coredns": "v1.14.2-eksbuild.4"})
    component = result.one("glm-on-gpus:eks_cluster:EksCluster")
    assert component.inputs == {
        "clusterName": CLUSTER_NAME,
        "region": "us-east-1",
        "kubernetesVersion": "1.36",
        "publicAccessCidrs": [],
        "adminRoleArns": {"platform": ADMIN},
        "addonVersions": {"coredns": "v1.14.2-eksbuild.4"},
        "systemInstanceType": "m7i.large",
        "systemNodes": 2,
        "deletionProtection": False,
    }
    outputs = dict(result.component_outputs[component.urn])
    assert outputs.pop("kubeconfig") == result.exports["kubeconfig"].value
    assert outputs == {
        "clusterName": CLUSTER_NAME,
        "nodeRoleArn": "arn:aws:iam::123456789012:role/eks-node",
        "clusterSecurityGroupId": CLUSTER_SECURITY_GROUP,
    }


def test_a_preview_registers_the_same() -> None:
    preview = cluster(preview=True, adminRoleArns={"platform": ADMIN})
    assert preview.urns == cluster(adminRoleArns={"platform": ADMIN}).urns
    assert preview.exports["kubeconfig"].value is UNKNOWN
    assert preview.exports["kubeconfig"].secret
    assert preview.exports["clusterSecurityGroupId"].value is UNKNOWN
    assert preview.one("pulumi:providers:kubernetes").inputs["clusterIdentifier"] is UNKNOWN
    assert preview.one(NODE_GROUP).inputs["launchTemplate"] == {"id": UNKNOWN, "version": UNKNOWN}


# --- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (
            {"vpccni": "v1.23.1-eksbuild.1"},
            "cluster.addonVersions: 'vpccni' is not installed by this stack; allowed are coredns, eks-node-monitoring-agent, "
            "eks-pod-identity-agent, kube-proxy or vpc-cni; did you mean vpc-cni?",
        ),
        (
            {"coredns": "v1.14.2-eksbuild.4", "aws-ebs-csi-driver": "v1.60.0-eksbuild.1"},
            "cluster.addonVersions: 'aws-ebs-csi-driver' is not installed by this stack; allowed are coredns, "
            "eks-node-monitoring-agent, eks-pod-identity-agent, kube-proxy or vpc-cni",
        ),
    ],
)
def test_versions_of_addons_that_are_not_installed(versions: dict[str, str], message: str) -> None:
    with pytest.raises(pulumi.RunError) as refusal:
        cluster(addonVersions=versions)
    assert str(refusal.value) == message


def test_a_name_that_eks_refuses() -> None:
    def program() -> None:
        config = plan().cluster
        assert isinstance(config, EksClusterConfig)
        network = Network("net", NetworkArgs(config.vpc_cidr, config.availability_zone_ids, "a.b", "us-east-1"))
        EksCluster("eks", EksClusterArgs(config, "glm-on-gpus-dev.eu", "us-east-1", network))

    with pytest.raises(pulumi.RunError) as refusal:
        run(program)
    assert str(refusal.value) == (
        "stack: 'glm-on-gpus-dev.eu' cannot be the name of an EKS cluster; expected letters, digits, hyphens and underscores, at "
        "most 100; rename the stack with pulumi stack rename"
    )
