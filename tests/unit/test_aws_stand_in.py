"""The AWS stand-in as a whole: a real program in preview and update, its outputs, deletion, and what it does not know."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest
import test_aws_cluster
import test_aws_identity
import test_aws_launch_template
import test_aws_network
import test_aws_node_group
from aws_account import (
    ADMIN,
    CLUSTER,
    GPU_NODES,
    REGION,
    TEMPLATE,
    account,
    changed,
    in_words,
    platform,
    recorded,
    resource,
    run,
    trust,
)
from botocore.loaders import Loader
from botocore.model import ServiceModel
from pulumi.runtime import rpc

from rehearsal.aws import FACTS_AS_OF, AwsRefusal, AwsStandIn, NodeGroup, tokens
from rehearsal.aws.check import check_request, compiled
from rehearsal.aws.draft import UNKNOWN, Draft, plain
from rehearsal.aws.pulumi_types import PropertyType, _class_of, described, inputs_of
from rehearsal.aws.request import requests_for
from rehearsal.aws.stand_in import _kinds
from serving import catalogue

_ALL_TOKENS = tuple(value for name, value in vars(tokens).items() if name.isupper())


def _outputs_of(token: str) -> frozenset[str]:
    """Return every property that a program can read from a resource of a type, inputs included."""
    return frozenset(described(_class_of(token, "_{}State")).nested)


# --- A real program ------------------------------------------------------------------------------------------------


def test_every_type_is_in_the_program() -> None:
    assert {row.token for row in recorded()} == set(_ALL_TOKENS) == set(_kinds())


@pytest.mark.parametrize("token", _ALL_TOKENS)
def test_every_computed_output_is_there(token: str) -> None:
    computed = _outputs_of(token) - set(inputs_of(token).nested)
    for row in recorded():
        if row.token == token:
            assert row.id
            assert computed - set(row.outputs) == set()


_HEX = r"[0-9a-f]{17}"
_OUTPUTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Vpc", "main", {"id": f"vpc-{_HEX}", "arn": f"arn:aws:ec2:us-east-2:123456789012:vpc/vpc-{_HEX}"}),
    ("Subnet", "private-1", {"id": f"subnet-{_HEX}", "availabilityZone": "us-east-2b", "ownerId": r"\d{12}"}),
    ("InternetGateway", "main", {"id": f"igw-{_HEX}"}),
    ("Eip", "nat-0", {"id": f"eipalloc-{_HEX}", "publicIp": r"198\.51\.100\.\d+"}),
    ("NatGateway", "nat-0", {"id": f"nat-{_HEX}", "publicIp": r"198\.51\.100\.\d+", "privateIp": r"10\.0\.0\.4"}),
    ("RouteTable", "public", {"id": f"rtb-{_HEX}"}),
    ("Route", "public", {"id": f"rtb-{_HEX}_0.0.0.0/0", "state": "active"}),
    ("RouteTableAssociation", "public-0", {"id": f"rtbassoc-{_HEX}"}),
    ("VpcEndpoint", "s3", {"id": f"vpce-{_HEX}", "vpcEndpointType": "Gateway", "state": "available"}),
    ("SecurityGroup", "efa", {"id": f"sg-{_HEX}", "name": r"efa-[0-9a-f]{7}", "region": REGION}),
    ("SecurityGroupIngressRule", "efa", {"id": f"sgr-{_HEX}", "securityGroupRuleId": f"sgr-{_HEX}"}),
    ("SecurityGroupEgressRule", "efa", {"arn": f"arn:aws:ec2:us-east-2:123456789012:security-group-rule/sgr-{_HEX}"}),
    ("LaunchTemplate", "gpu", {"id": f"lt-{_HEX}", "latestVersion": "1", "name": r"gpu-[0-9a-f]{7}"}),
    (
        "PlacementGroup",
        "gpu",
        {
            "id": r"gpu-[0-9a-f]{7}",
            "placementGroupId": f"pg-{_HEX}",
            "arn": r"arn:aws:ec2:us-east-2:123456789012:placement-group/gpu-[0-9a-f]{7}",
        },
    ),
    ("FlowLog", "main", {"id": f"fl-{_HEX}", "logDestinationType": "cloud-watch-logs"}),
    ("Role", "nodes", {"id": r"nodes-[0-9a-f]{7}", "arn": r"arn:aws:iam::123456789012:role/nodes-[0-9a-f]{7}"}),
    (
        "RolePolicyAttachment",
        "nodes-AmazonEKS_CNI_Policy",
        {"id": r"nodes-[0-9a-f]{7}/arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"},
    ),
    ("RolePolicy", "weights", {"id": r"weights-[0-9a-f]{7}:weights-[0-9a-f]{7}"}),
    ("OpenIdConnectProvider", "main", {"url": r"oidc\.eks\.us-east-2\.amazonaws\.com/id/[0-9A-F]{32}"}),
    (
        "Key",
        "secrets",
        {"keyId": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "arn": r"arn:aws:kms:us-east-2:.*:key/.*"},
    ),
    ("Alias", "secrets", {"id": "alias/secrets", "targetKeyArn": r"arn:aws:kms:us-east-2:.*:key/.*"}),
    (
        "LogGroup",
        "flow-logs",
        {"id": r"flow-logs-[0-9a-f]{7}", "arn": r"arn:aws:logs:us-east-2:123456789012:log-group:.*"},
    ),
    (
        "Cluster",
        "main",
        {
            "id": "glm",
            "arn": "arn:aws:eks:us-east-2:123456789012:cluster/glm",
            "endpoint": r"https://[0-9A-F]{32}\.gr7\.us-east-2\.eks\.amazonaws\.com",
            "certificateAuthority.data": r"[A-Za-z0-9+/]+=*",
            "identities.0.oidcs.0.issuer": r"https://oidc\.eks\.us-east-2\.amazonaws\.com/id/[0-9A-F]{32}",
            "vpcConfig.clusterSecurityGroupId": f"sg-{_HEX}",
            "vpcConfig.vpcId": f"vpc-{_HEX}",
            "status": "ACTIVE",
        },
    ),
    ("Addon", "vpc-cni", {"id": "glm:vpc-cni", "addonVersion": r"v\d+\.\d+\.\d+-eksbuild\.\d+"}),
    (
        "NodeGroup",
        "gpu",
        {
            "id": r"glm:gpu-[0-9a-f]{7}",
            "nodeGroupName": r"gpu-[0-9a-f]{7}",
            "arn": r"arn:aws:eks:us-east-2:123456789012:nodegroup/glm/gpu-[0-9a-f]{7}/[0-9a-f]{32}",
            "resources.0.autoscalingGroups.0.name": r"eks-gpu-.*",
            "status": "ACTIVE",
            "version": "1.36",
        },
    ),
    ("AccessEntry", "admin", {"id": f"glm:{ADMIN}", "accessEntryArn": r"arn:aws:eks:.*:access-entry/glm/role/.*"}),
    ("AccessPolicyAssociation", "admin", {"id": rf"glm#{ADMIN}#arn:aws:eks::aws:cluster-access-policy/.*"}),
    ("PodIdentityAssociation", "weights", {"id": r"a-[0-9a-f]{17}", "associationId": r"a-[0-9a-f]{17}"}),
)


@pytest.mark.parametrize(("token", "name", "expected"), _OUTPUTS, ids=lambda value: str(value)[:40])
def test_outputs_have_the_forms_of_aws(token: str, name: str, expected: dict[str, str]) -> None:
    row = resource(token, name)
    for path, pattern in expected.items():
        value: Any = {**row.outputs, "id": row.id}
        for step in path.split("."):
            value = value[int(step)] if step.isdigit() else value[step]
        assert re.fullmatch(pattern, str(value)), (path, value)


def test_every_type_has_its_outputs_looked_at() -> None:
    assert {token for token, _, _ in _OUTPUTS} == {token.rpartition(":")[2] for token in _ALL_TOKENS}


def test_node_groups_are_what_the_inputs_say() -> None:
    stand_in = account()
    groups = {group.name.rpartition("-")[0]: group for group in stand_in.node_groups}
    assert groups["gpu"] == NodeGroup(
        name=str(resource(*GPU_NODES).outputs["nodeGroupName"]),
        cluster_name="glm",
        instance_type="p6-b200.48xlarge",
        desired_size=2,
        labels={"nvidia.com/gpu.present": "true"},
        taints=[("nvidia.com/gpu", "present", "NoSchedule")],
        availability_zone_ids=["use2-az1"],
        capacity_type="CAPACITY_BLOCK",
        launch_template_id=resource(*TEMPLATE).id,
        efa_interfaces=8,
    )
    assert groups["system"].instance_type == "m7i.large"
    assert groups["system"].availability_zone_ids == ["use2-az1", "use2-az2"]
    assert groups["system"].capacity_type == "ON_DEMAND"
    assert groups["system"].launch_template_id is None
    assert groups["system"].efa_interfaces == 0
    assert groups["system"].taints == []


def test_a_real_api_server_can_stand_for_the_cluster() -> None:
    stand_in = AwsStandIn(REGION, cluster_endpoint="https://127.0.0.1:6443", cluster_ca="Y2E=")
    outputs: dict[str, Any] = {}
    for row in recorded():
        _, answer = stand_in.create(row.token, row.name, row.inputs, preview=False)
        outputs |= answer if row.token == tokens.CLUSTER else {}
        if outputs:
            break
    assert outputs["endpoint"] == "https://127.0.0.1:6443"
    assert outputs["certificateAuthority"] == {"data": "Y2E="}


def test_ids_are_the_same_in_every_run_and_differ_between_resources() -> None:
    again = {(row.token, row.name): row.id for row in run(platform).registered}
    assert again == {(row.token, row.name): row.id for row in recorded()}
    assert len({(token, resource_id) for (token, _), resource_id in again.items()}) == len(again)


def test_two_resources_of_one_name_get_two_ids() -> None:
    stand_in = AwsStandIn(REGION)
    ids = [stand_in.create(tokens.EIP, "nat", {"domain": "vpc"}, preview=False)[0] for _ in range(3)]
    assert len(set(ids)) == 3


# --- Preview -------------------------------------------------------------------------------------------------------


def test_a_preview_creates_nothing_and_leaves_what_aws_computes_unknown() -> None:
    preview = run(platform, preview=True)
    assert {(row.token, row.name) for row in preview.registered} == {(row.token, row.name) for row in recorded()}
    assert preview.stand_in.remaining() == []
    for row in preview.registered:
        assert row.id is None
        assert set(row.outputs) & (_outputs_of(row.token) - set(inputs_of(row.token).nested)) == set()


def test_a_preview_says_that_what_is_inside_an_input_object_is_unknown() -> None:
    def program() -> None:
        cluster = aws.eks.Cluster(
            "main",
            version="1.36",
            role_arn="arn:aws:iam::123456789012:role/cluster",
            vpc_config=aws.eks.ClusterVpcConfigArgs(subnet_ids=["subnet-1", "subnet-2"]),
        )
        group = cluster.vpc_config.apply(lambda config: str(config.cluster_security_group_id))
        aws.ec2.LaunchTemplate("gpu", vpc_security_group_ids=[group])

    preview = run(program, preview=True)
    template = next(row for row in preview.registered if row.token == tokens.LAUNCH_TEMPLATE)
    assert plain(template.inputs)[0] == {"vpcSecurityGroupIds": [UNKNOWN]}


def _openly(value: object) -> object:
    return value


@pytest.mark.parametrize("wrap", [_openly, rpc.wrap_rpc_secret], ids=["plain", "secret"])
def test_a_preview_fills_objects_with_unknown_values(wrap: Callable[[object], object]) -> None:
    cluster = resource(*CLUSTER)
    inputs = changed(cluster.inputs, {"vpcConfig": wrap(cluster.inputs["vpcConfig"])})
    _, outputs = AwsStandIn(REGION).create(cluster.token, cluster.name, inputs, preview=True)
    inside = {"clusterSecurityGroupId": rpc.UNKNOWN, "vpcId": rpc.UNKNOWN}
    assert outputs["vpcConfig"] == wrap({**cluster.inputs["vpcConfig"], **inside})


def test_a_preview_knows_the_name_that_the_provider_makes_up() -> None:
    preview = run(lambda: _keep(aws.iam.Role("nodes", assume_role_policy=trust("ec2.amazonaws.com"))), preview=True)
    assert preview.registered[0].outputs["name"] == resource("Role", "nodes").outputs["name"]


def _keep(_resource: pulumi.Resource) -> None:
    """Make a statement of a constructor."""


_UNKNOWNS = (
    # what is unknown, what is wrong beside it, and what the preview says
    (
        {"scalingConfig": {"minSize": 4, "desiredSize": rpc.UNKNOWN, "maxSize": 3}},
        "scalingConfig.minSize: 4: must not be above maxSize 3 (EKS CreateNodegroup, <botocore>)",
    ),
    (
        {"labels": rpc.UNKNOWN, "amiType": "AL2023"},
        "amiType: 'AL2023': must be AL2_x86_64, AL2_x86_64_GPU, AL2_ARM_64, CUSTOM, BOTTLEROCKET_ARM_64, "
        "BOTTLEROCKET_x86_64, BOTTLEROCKET_ARM_64_FIPS, BOTTLEROCKET_x86_64_FIPS, BOTTLEROCKET_ARM_64_NVIDIA, "
        "BOTTLEROCKET_x86_64_NVIDIA, BOTTLEROCKET_ARM_64_NVIDIA_FIPS, BOTTLEROCKET_x86_64_NVIDIA_FIPS, "
        "WINDOWS_CORE_2019_x86_64, WINDOWS_FULL_2019_x86_64, WINDOWS_CORE_2022_x86_64, WINDOWS_FULL_2022_x86_64, "
        "WINDOWS_CORE_2025_x86_64, WINDOWS_FULL_2025_x86_64, AL2023_x86_64_STANDARD, AL2023_ARM_64_STANDARD, "
        "AL2023_x86_64_NEURON, AL2023_x86_64_NVIDIA or AL2023_ARM_64_NVIDIA "
        "(EKS CreateNodegroup, <botocore>)",
    ),
    (
        {"subnetIds": [rpc.UNKNOWN], "taints": [{"key": "gpu", "value": rpc.UNKNOWN, "effect": "NoSchedule"}]},
        "taints[0].effect: 'NoSchedule': must be NO_SCHEDULE, NO_EXECUTE or PREFER_NO_SCHEDULE; did you mean NO_SCHEDULE? "
        "(EKS CreateNodegroup, <botocore>)",
    ),
    (
        {"launchTemplate": {"id": rpc.UNKNOWN}},
        "launchTemplate.version: not given: the provider requires it (NodeGroupLaunchTemplateArgs, <pulumi_aws>)",
    ),
)


@pytest.mark.parametrize(("changes", "message"), _UNKNOWNS)
def test_a_preview_refuses_what_is_known_to_be_wrong(changes: dict[str, Any], message: str) -> None:
    group = resource(*GPU_NODES)
    with pytest.raises(AwsRefusal) as refusal:
        AwsStandIn(REGION).create(group.token, group.name, changed(group.inputs, changes), preview=True)
    assert in_words(str(refusal.value)) == f"{group.token}::gpu: {message}"


def test_any_value_may_be_unknown() -> None:
    """A part of valid inputs, whichever, may be unknown in a preview without being refused for it."""
    # Both forms in which Pulumi says so.
    forms = itertools.cycle([pulumi.UNKNOWN, rpc.UNKNOWN])
    tried: set[tuple[str, str]] = set()  # the tables vary a few values of the same resources again and again
    for token, name, inputs in _valid_inputs():
        paths = [path for path in _every_path(inputs) if (token, path) not in tried]
        tried |= {(token, path) for path in paths}
        for path, unknown in zip(paths, forms, strict=False):
            some = changed(inputs, {path: unknown})
            resource_id, outputs = AwsStandIn(REGION).create(token, name, some, preview=True)
            assert resource_id is None
            given = {key: value for key, value in some.items() if key != "vpcConfig"}
            assert {key: outputs[key] for key in given} == given


def _valid_inputs() -> list[tuple[str, str, dict[str, Any]]]:
    """Return the inputs of the platform, and of every variation that the tables say AWS accepts."""
    found = [(row.token, row.name, row.inputs) for row in recorded()]
    tables = (test_aws_network, test_aws_identity, test_aws_cluster, test_aws_launch_template, test_aws_node_group)
    for case in (case for table in tables for case in table.ACCEPTED):
        _, row = case.create()
        found.append((row.token, row.name, row.inputs))
    return found


def _every_path(value: Any, path: str = "") -> list[str]:
    paths = [path] if path else []
    if isinstance(value, dict):
        # A key with a dot in it (a label) is no step of a path.
        for key, item in value.items():
            paths += _every_path(item, f"{path}.{key}" if path else key) if "." not in key else []
    if isinstance(value, list):
        for index, item in enumerate(value):
            paths += _every_path(item, f"{path}[{index}]")
    return paths


# --- Secrets -------------------------------------------------------------------------------------------------------


def test_a_secret_is_checked_but_neither_shown_nor_unwrapped() -> None:
    group = resource("LogGroup", "cluster")
    stand_in = AwsStandIn(REGION)
    inputs = changed(group.inputs, {"name": rpc.wrap_rpc_secret("my logs!")})
    with pytest.raises(AwsRefusal) as refusal:
        stand_in.create(group.token, group.name, inputs, preview=False)
    assert in_words(str(refusal.value)) == (
        f"{group.token}::cluster: name: [secret]: must match [\\.\\-_/#A-Za-z0-9]+ (CloudWatch Logs CreateLogGroup, <botocore>)"
    )
    inputs = changed(group.inputs, {"name": rpc.wrap_rpc_secret("logs")})
    _, outputs = stand_in.create(group.token, group.name, inputs, preview=False)
    assert outputs["name"] == rpc.wrap_rpc_secret("logs")


def test_secrets_inside_a_map_are_not_shown() -> None:
    role = resource("Role", "nodes")
    inputs = changed(role.inputs, {"tags": rpc.wrap_rpc_secret({"team": "s3cret!"})})
    with pytest.raises(AwsRefusal, match=r": tags: \[secret\]: must match"):
        AwsStandIn(REGION).create(role.token, role.name, inputs, preview=False)


# --- Deletion ------------------------------------------------------------------------------------------------------


def test_everything_goes_in_reverse_order_and_nothing_remains() -> None:
    stand_in = account()
    assert len(stand_in.remaining()) == len(recorded())
    for row in reversed(recorded()):
        stand_in.delete(row.token, str(row.id))
    assert stand_in.remaining() == []
    assert stand_in.node_groups == []


_TOO_EARLY = (
    (
        ("Vpc", "main"),
        "DependencyViolation: it has dependencies and cannot be deleted; delete "
        "aws:ec2/internetGateway:InternetGateway::main (<InternetGateway main>), "
        "aws:ec2/routeTable:RouteTable::private-0 (<RouteTable private-0>), "
        "aws:ec2/routeTable:RouteTable::private-1 (<RouteTable private-1>), "
        "aws:ec2/routeTable:RouteTable::public (<RouteTable public>), "
        "aws:ec2/securityGroup:SecurityGroup::efa (<SecurityGroup efa>), "
        "aws:ec2/subnet:Subnet::private-0 (<Subnet private-0>), aws:ec2/subnet:Subnet::private-1 (<Subnet private-1>), "
        "aws:ec2/subnet:Subnet::public-0 (<Subnet public-0>), aws:ec2/subnet:Subnet::public-1 (<Subnet public-1>) or "
        "aws:ec2/vpcEndpoint:VpcEndpoint::s3 (<VpcEndpoint s3>) first (EC2 DeleteVpc, <botocore>)",
    ),
    (
        ("Subnet", "public-0"),
        "DependencyViolation: it has dependencies and cannot be deleted; delete aws:ec2/natGateway:NatGateway::nat-0 "
        "(<NatGateway nat-0>) first (EC2 DeleteSubnet, <botocore>)",
    ),
    (
        ("Subnet", "private-1"),
        "DependencyViolation: it has dependencies and cannot be deleted; delete aws:eks/cluster:Cluster::main (glm) or "
        "aws:eks/nodeGroup:NodeGroup::system (glm:<name of NodeGroup system>) first (EC2 DeleteSubnet, <botocore>)",
    ),
    (
        ("InternetGateway", "main"),
        "DependencyViolation: its VPC has mapped public addresses; delete aws:ec2/natGateway:NatGateway::nat-0 "
        "(<NatGateway nat-0>) or aws:ec2/natGateway:NatGateway::nat-1 (<NatGateway nat-1>) first "
        "(EC2 DetachInternetGateway, <botocore>)",
    ),
    (
        ("Eip", "nat-1"),
        "InvalidIPAddress.InUse: it is associated; delete aws:ec2/natGateway:NatGateway::nat-1 (<NatGateway nat-1>) first "
        "(EC2 ReleaseAddress, <botocore>)",
    ),
    (
        ("RouteTable", "private-0"),
        "DependencyViolation: it has dependencies and cannot be deleted; delete "
        "aws:ec2/routeTableAssociation:RouteTableAssociation::private-0 (<RouteTableAssociation private-0>) first "
        "(EC2 DeleteRouteTable, <botocore>)",
    ),
    (
        ("SecurityGroup", "efa"),
        "DependencyViolation: it has a dependent object; delete aws:eks/nodeGroup:NodeGroup::gpu (glm:<name of NodeGroup gpu>) "
        "first (EC2 DeleteSecurityGroup, <botocore>)",
    ),
    (
        ("Role", "weights"),
        "DeleteConflict: it still has policies, which must be detached or deleted first; delete "
        "aws:iam/rolePolicy:RolePolicy::weights (<Role weights>:<RolePolicy weights>) first (IAM DeleteRole, <botocore>)",
    ),
    (
        ("Cluster", "main"),
        "ResourceInUseException: Cluster has nodegroups attached; delete aws:eks/nodeGroup:NodeGroup::gpu "
        "(glm:<name of NodeGroup gpu>) or aws:eks/nodeGroup:NodeGroup::system (glm:<name of NodeGroup system>) first "
        "(EKS DeleteCluster, <botocore>)",
    ),
)


@pytest.mark.parametrize(("key", "message"), _TOO_EARLY, ids=[" ".join(key) for key, _ in _TOO_EARLY])
def test_nothing_goes_while_something_needs_it(key: tuple[str, str], message: str) -> None:
    row = resource(*key)
    stand_in = account()
    before = stand_in.remaining()
    with pytest.raises(AwsRefusal) as refusal:
        stand_in.delete(row.token, str(row.id))
    said = in_words(str(refusal.value)).replace(
        f"{resource('RolePolicy', 'weights').outputs['name']}", "<RolePolicy weights>"
    )
    assert said == f"{row.token}::{row.name}: id: '{in_words(str(row.id))}': {message}"
    assert stand_in.remaining() == before


def test_a_cluster_takes_its_parts_along() -> None:
    stand_in = account()
    for name in ("gpu", "system"):
        stand_in.delete(tokens.NODE_GROUP, str(resource("NodeGroup", name).id))
    stand_in.delete(tokens.CLUSTER, "glm")
    assert [text for text in stand_in.remaining() if "aws:eks/" in text] == []
    # The engine deletes them afterwards all the same; AWS says that they are gone, and the provider is content.
    stand_in.delete(tokens.ADDON, "glm:vpc-cni")


def test_deletion_protection_holds_until_it_is_lifted() -> None:
    stand_in = account(changes={CLUSTER: {"deletionProtection": True}})
    for name in ("gpu", "system"):
        stand_in.delete(tokens.NODE_GROUP, str(resource("NodeGroup", name).id))
    with pytest.raises(AwsRefusal) as refusal:
        stand_in.delete(tokens.CLUSTER, "glm")
    assert in_words(str(refusal.value)) == (
        "aws:eks/cluster:Cluster::main: deletionProtection: true: InvalidRequestException: deletion protection is on; switch it "
        "off before the resource is destroyed (EKS DeleteCluster, <botocore>)"
    )
    assert stand_in.lift_deletion_protection() == ["aws:eks/cluster:Cluster::main"]
    stand_in.delete(tokens.CLUSTER, "glm")
    assert not any("Cluster::main" in text for text in stand_in.remaining())


def test_what_never_was_cannot_be_deleted() -> None:
    with pytest.raises(AwsRefusal) as refusal:
        AwsStandIn(REGION).delete(tokens.VPC, "vpc-1")
    assert str(refusal.value) == "aws:ec2/vpc:Vpc: id: 'vpc-1': there is no such resource to delete (rehearsal/aws)"


# --- What it does not know -----------------------------------------------------------------------------------------

_ELSEWHERE: tuple[tuple[str, Callable[[], object], str], ...] = (
    (
        "type",
        lambda: AwsStandIn(REGION).create("aws:ec2/vpc:VPC", "main", {}, preview=True),
        "aws:ec2/vpc:VPC::main: type: 'aws:ec2/vpc:VPC': the rehearsal's AWS stand-in does not know this resource type; did you "
        "mean aws:ec2/vpc:Vpc?; it knows 28, and a new one is a Kind in the KINDS of a module of rehearsal/aws "
        "(rehearsal/aws/stand_in.py)",
    ),
    (
        "function",
        lambda: AwsStandIn(REGION).invoke("aws:index/getCallerIdentity:getCallerIdentity", {}),
        "aws:index/getCallerIdentity:getCallerIdentity: arguments: {}: the program makes no provider invokes, so that a preview "
        "needs no account; take the value from configuration (rehearsal/aws)",
    ),
    (
        "region",
        lambda: AwsStandIn("us-east2"),
        "AwsStandIn: region: 'us-east2': is no region that the catalogue knows: ap-northeast-1, ap-northeast-2, ap-south-1, "
        "ap-south-2, ap-southeast-2, ap-southeast-3, eu-north-1, eu-south-2, eu-west-2, eu-west-3, me-central-1, sa-east-1, "
        "us-east-1, us-east-2, us-west-1 or us-west-2; did you mean us-east-2? (serving/catalogue/accelerators.toml)",
    ),
)


@pytest.mark.parametrize(("_what", "ask", "message"), _ELSEWHERE, ids=[what for what, _, _ in _ELSEWHERE])
def test_what_it_does_not_know(_what: str, ask: Callable[[], object], message: str) -> None:
    with pytest.raises(AwsRefusal) as refusal:
        ask()
    assert str(refusal.value) == message


def test_a_refusal_says_where_it_stands() -> None:
    with pytest.raises(AwsRefusal) as refusal:
        AwsStandIn(REGION).create(tokens.VPC, "main", {"cidrBlock": "10.0.0.0/8"}, preview=False)
    assert refusal.value.resource == "aws:ec2/vpc:Vpc::main"
    assert refusal.value.field == "cidrBlock"
    assert refusal.value.reason == "must be between a /28 and a /16"


def test_a_refused_resource_does_not_exist() -> None:
    stand_in = AwsStandIn(REGION)
    with pytest.raises(AwsRefusal):
        stand_in.create(tokens.VPC, "main", {"cidrBlock": "10.0.0.0/8"}, preview=False)
    assert stand_in.remaining() == []


# --- The day of the rehearsal --------------------------------------------------------------------------------------

_SUPPORT = (
    ("1.34", FACTS_AS_OF, "STANDARD", None),
    ("1.34", "2026-12-02", "STANDARD", None),
    ("1.34", "2026-12-03", "STANDARD", "2026-12-02"),
    ("1.34", "2026-12-03", "EXTENDED", None),
    # An end that is known to the month lasts through the month.
    ("1.36", "2027-08-31", "STANDARD", None),
    ("1.36", "2027-09-01", "STANDARD", "2027-08"),
)


@pytest.mark.parametrize(("version", "as_of", "support", "ended"), _SUPPORT)
def test_support_ends(version: str, as_of: str, support: str, ended: str | None) -> None:
    cluster = resource(*CLUSTER)
    inputs = changed(cluster.inputs, {"version": version, "upgradePolicy.supportType": support})
    stand_in = AwsStandIn(REGION, as_of=as_of)
    if ended is None:
        stand_in.create(cluster.token, cluster.name, inputs, preview=True)
        return
    with pytest.raises(AwsRefusal) as refusal:
        stand_in.create(cluster.token, cluster.name, inputs, preview=True)
    assert str(refusal.value) == (
        f"aws:eks/cluster:Cluster::main: version: '{version}': standard support ended {ended} and upgradePolicy.supportType is "
        f"STANDARD; take a later version or EXTENDED (rehearsed as of {as_of}) (EKS user guide, versions)"
    )


# --- Threads -------------------------------------------------------------------------------------------------------


def test_resources_may_come_from_many_threads() -> None:
    stand_in = AwsStandIn(REGION)

    def create(index: int) -> str | None:
        return stand_in.create(tokens.EIP, f"nat-{index % 5}", {"domain": "vpc"}, preview=False)[0]

    with ThreadPoolExecutor(max_workers=8) as pool:
        ids = list(pool.map(create, range(40)))
    assert len(set(ids)) == 40 == len(stand_in.remaining())


# --- The tables behind it ------------------------------------------------------------------------------------------


def test_every_pattern_of_the_operations_can_be_checked() -> None:
    """No pattern of a request that the stand-in makes may be one that Python cannot compile."""
    calls = {(call.service, call.operation) for kind in _kinds().values() for call in kind.calls}
    loader = Loader()
    patterns: set[str] = set()

    def collect(shape: Any, seen: set[str]) -> None:
        if shape.name in seen:
            return
        seen.add(shape.name)
        patterns.update(filter(None, [shape.metadata.get("pattern")]))
        parts = {"structure": ["members"], "list": ["member"], "map": ["key", "value"]}.get(shape.type_name, [])
        for part in parts:
            inner = getattr(shape, part)
            for item in inner.values() if part == "members" else [inner]:
                collect(item, seen)

    for service, operation in sorted(calls):
        model = ServiceModel(loader.load_service_model(service, "service-2"), service)
        collect(model.operation_model(operation).input_shape, set())
    assert len(patterns) > 10
    for pattern in patterns:
        compiled(pattern)
    with pytest.raises(ValueError, match="Unicode category"):
        compiled(r"\p{Sc}+")


def test_every_operation_is_in_botocore() -> None:
    loader = Loader()
    for kind in _kinds().values():
        for service, operation in [(call.service, call.operation) for call in kind.calls] + [
            (kind.ending.service, kind.ending.operation)
        ]:
            assert operation in loader.load_service_model(service, "service-2")["operations"], (kind.token, operation)


def test_zone_ids_of_the_catalogue_are_zones_of_their_region() -> None:
    for kind in catalogue.instance_types().values():
        for zone in kind.availability_zone_ids:
            region = catalogue.region_of_zone(zone)
            assert region is not None
            vpc = AwsStandIn(region)
            vpc_id, _ = vpc.create(tokens.VPC, "main", {"cidrBlock": "10.0.0.0/16"}, preview=False)
            inputs = {"vpcId": vpc_id, "cidrBlock": "10.0.0.0/24", "availabilityZoneId": zone}
            _, outputs = vpc.create(tokens.SUBNET, zone, inputs, preview=False)
            assert str(outputs["availabilityZone"]).startswith(region)


# What the provider would take and the stand-in refuses: a virtual gateway's routes, which nobody needs here, and what is an
# output of AWS although the provider's schema lists it among the inputs.
_NOT_CARRIED = {
    tokens.ROUTE_TABLE: {"propagatingVgws"},
    tokens.CLUSTER: {"vpcConfig.clusterSecurityGroupId", "vpcConfig.vpcId", "kubernetesNetworkConfig.serviceIpv6Cidr"},
}


@pytest.mark.parametrize("token", _ALL_TOKENS)
def test_every_property_of_the_provider_is_carried(token: str) -> None:
    """Each property, alone at its place and with all others unknown, finds a member of a request."""
    kind = _kinds()[token]
    local = kind.local | {"region"}
    others = {name: UNKNOWN for name in inputs_of(token).nested if name not in local | _NOT_CARRIED.get(token, set())}
    refused: set[str] = set()
    for path in _paths(inputs_of(token)):
        inputs = {**others, **_at(path.split("."))}
        draft = Draft(token, "any", inputs, frozenset(), preview=True)
        try:
            for request in requests_for(draft, kind.calls, local, UNKNOWN):
                check_request(draft, request)
        except AwsRefusal as refusal:
            # Its siblings may be required beside it.
            refused |= {path} if refusal.reason != "required" else set()
    assert refused == _NOT_CARRIED.get(token, set())


def _paths(kind: PropertyType) -> list[str]:
    paths: list[str] = []
    for name, inner in kind.nested.items():
        paths += [name] if inner is None else [f"{name}.{path}" for path in _paths(described(inner))]
    return paths


def _at(steps: list[str]) -> dict[str, object]:
    return {steps[0]: _at(steps[1:]) if len(steps) > 1 else UNKNOWN}


def test_the_request_carries_what_the_program_says() -> None:
    """The request for the launch template, whole: the place where most names differ between provider and API."""
    template = resource(*TEMPLATE)
    inputs, secrets = plain({**template.inputs, "name": "gpu"})
    assert isinstance(inputs, dict)
    kind = _kinds()[template.token]
    draft = Draft(template.token, template.name, inputs, secrets, preview=False)
    [request] = requests_for(draft, kind.calls, kind.local, "lt-1")
    data: Any = request.params.pop("LaunchTemplateData")
    assert request.params == {
        "LaunchTemplateName": "gpu",
        "TagSpecifications": [{"ResourceType": "launch-template", "Tags": [{"Key": "team", "Value": "serving"}]}],
    }
    group = resource(*CLUSTER).outputs["vpcConfig"]["clusterSecurityGroupId"]
    efa = resource("SecurityGroup", "efa").id
    interfaces = data.pop("NetworkInterfaces")
    assert interfaces[1] == {
        "InterfaceType": "efa-only",
        "NetworkCardIndex": 0,
        "DeviceIndex": 1,
        "Groups": [group, efa],
    }
    assert data == {
        "InstanceType": "p6-b200.48xlarge",
        "UserData": template.inputs["userData"],
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {"VolumeSize": 100, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True},
            }
        ],
        "InstanceMarketOptions": {"MarketType": "capacity-block"},
        "CapacityReservationSpecification": {
            "CapacityReservationTarget": {"CapacityReservationId": "cr-0123456789abcdef0"}
        },
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "gpu"}]}],
    }
