"""A real `pulumi_aws` program, run once against the stand-in, and what it registered, for tests to replay with a change.

The inputs come from the SDK itself, so that the property names in these tests are the provider's. Ids are the same in
every run, so a recorded resource can be created again in a new stand-in without Pulumi.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any, cast

import pulumi
import pulumi_aws as aws
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks, mocks, set_mocks

from rehearsal.aws import AwsStandIn
from rehearsal.event_loops import event_loops

REGION = "us-east-2"
ZONES = ("use2-az1", "use2-az2")
ADMIN = "arn:aws:iam::123456789012:role/admin"
RESERVATION = "cr-0123456789abcdef0"

_to_the_end = cast("Callable[[Callable[[], None]], Callable[[], None]]", pulumi.runtime.test)


@dataclass(frozen=True)
class Registered:
    """One resource as the program registered it, and what the stand-in answered."""

    token: str
    name: str
    inputs: dict[str, Any]
    id: str | None
    outputs: dict[str, Any]


@dataclass
class Recorder(Mocks):
    """Pulumi's mocks, answered by a stand-in."""

    stand_in: AwsStandIn
    preview: bool
    registered: list[Registered] = field(default_factory=list[Registered])

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        inputs = cast("dict[str, Any]", args.inputs)
        resource_id, outputs = self.stand_in.create(args.typ, args.name, inputs, preview=self.preview)
        self.registered.append(Registered(args.typ, args.name, copy.deepcopy(inputs), resource_id, outputs))
        return resource_id, outputs

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        return self.stand_in.invoke(args.token, args.args)


def run(program: Callable[[], None], *, preview: bool = False, region: str = REGION) -> Recorder:
    """Run a program to its end against a new stand-in."""
    recorder = Recorder(AwsStandIn(region), preview)

    @_to_the_end
    def inner() -> None:
        set_mocks(recorder, project="test", stack="test", preview=preview, monitor=mocks.MockMonitor(recorder))
        program()

    with event_loops(1), warnings.catch_warnings():
        # pulumi_aws warns about its own deprecated modules while they are imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        inner()
    return recorder


# --- The program ---------------------------------------------------------------------------------------------------


def trust(service: str, *actions: str) -> str:
    """Return a trust policy for a service."""
    allowed = {"Effect": "Allow", "Principal": {"Service": service}, "Action": list(actions or ("sts:AssumeRole",))}
    return json.dumps({"Version": "2012-10-17", "Statement": [allowed]})


def user_data(node_config: str, *, boundary: str = "BOUNDARY") -> str:
    """Return user data in base64: MIME multipart with a NodeConfig part."""
    part = f"--{boundary}\nContent-Type: application/node.eks.aws\n\n{node_config}\n--{boundary}--\n"
    head = f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{boundary}"\n\n'
    return base64.b64encode((head + part).encode()).decode()


NODE_CONFIG = """\
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  instance:
    localStorage:
      strategy: RAID0
"""

_READ_BUCKET = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::models/*"}


def platform() -> None:
    """A cluster with a system node group and a pool of 8xB200 machines in a Capacity Block: every type that there is."""
    vpc = aws.ec2.Vpc("main", cidr_block="10.0.0.0/16", enable_dns_hostnames=True, tags={"team": "serving"})
    gateway = aws.ec2.InternetGateway("main", vpc_id=vpc.id)
    public = aws.ec2.RouteTable("public", vpc_id=vpc.id)
    aws.ec2.Route("public", route_table_id=public.id, destination_cidr_block="0.0.0.0/0", gateway_id=gateway.id)
    private_ids: list[pulumi.Output[str]] = []
    tables: list[pulumi.Output[str]] = []
    for index, zone in enumerate(ZONES):
        outside = aws.ec2.Subnet(
            f"public-{index}",
            vpc_id=vpc.id,
            cidr_block=f"10.0.{index}.0/24",
            availability_zone_id=zone,
            map_public_ip_on_launch=True,
        )
        inside = aws.ec2.Subnet(
            f"private-{index}", vpc_id=vpc.id, cidr_block=f"10.0.{128 + 32 * index}.0/19", availability_zone_id=zone
        )
        aws.ec2.RouteTableAssociation(f"public-{index}", route_table_id=public.id, subnet_id=outside.id)
        address = aws.ec2.Eip(f"nat-{index}", domain="vpc")
        nat = aws.ec2.NatGateway(
            f"nat-{index}",
            allocation_id=address.id,
            subnet_id=outside.id,
            opts=pulumi.ResourceOptions(depends_on=[gateway]),
        )
        table = aws.ec2.RouteTable(
            f"private-{index}",
            vpc_id=vpc.id,
            routes=[aws.ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", nat_gateway_id=nat.id)],
        )
        aws.ec2.RouteTableAssociation(f"private-{index}", route_table_id=table.id, subnet_id=inside.id)
        private_ids.append(inside.id)
        tables.append(table.id)
    aws.ec2.VpcEndpoint("s3", vpc_id=vpc.id, service_name=f"com.amazonaws.{REGION}.s3", route_table_ids=tables)
    _flow_log(vpc)
    _cluster(private_ids)


def _flow_log(vpc: aws.ec2.Vpc) -> None:
    role = aws.iam.Role("flow-logs", assume_role_policy=trust("vpc-flow-logs.amazonaws.com"))
    write = {"Effect": "Allow", "Action": ["logs:PutLogEvents"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [write]})
    aws.iam.RolePolicy("flow-logs", role=role.name, policy=policy)
    logs = aws.cloudwatch.LogGroup("flow-logs", retention_in_days=30)
    aws.ec2.FlowLog(
        "main", vpc_id=vpc.id, traffic_type="REJECT", log_destination=logs.arn, iam_role_arn=role.arn, tags={"a": "b"}
    )


def _cluster(subnets: list[pulumi.Output[str]]) -> None:
    key = aws.kms.Key("secrets", enable_key_rotation=True, rotation_period_in_days=365, deletion_window_in_days=7)
    aws.kms.Alias("secrets", name="alias/secrets", target_key_id=key.id)
    logs = aws.cloudwatch.LogGroup("cluster", name="/aws/eks/glm/cluster", retention_in_days=90)
    role = aws.iam.Role("cluster", assume_role_policy=trust("eks.amazonaws.com"))
    attached = _attach(role, "cluster", "AmazonEKSClusterPolicy")
    cluster = aws.eks.Cluster(
        "main",
        name="glm",
        version="1.36",
        role_arn=role.arn,
        vpc_config=aws.eks.ClusterVpcConfigArgs(
            subnet_ids=subnets, endpoint_private_access=True, public_access_cidrs=["203.0.113.0/24"]
        ),
        access_config=aws.eks.ClusterAccessConfigArgs(
            authentication_mode="API", bootstrap_cluster_creator_admin_permissions=False
        ),
        upgrade_policy=aws.eks.ClusterUpgradePolicyArgs(support_type="STANDARD"),
        encryption_config=aws.eks.ClusterEncryptionConfigArgs(
            provider=aws.eks.ClusterEncryptionConfigProviderArgs(key_arn=key.arn), resources=["secrets"]
        ),
        enabled_cluster_log_types=["api", "audit"],
        bootstrap_self_managed_addons=False,
        opts=pulumi.ResourceOptions(depends_on=[*attached, logs]),
    )
    aws.iam.OpenIdConnectProvider(
        "main", url=cluster.identities[0].oidcs[0].issuer, client_id_lists=["sts.amazonaws.com"]
    )
    entry = aws.eks.AccessEntry("admin", cluster_name=cluster.name, principal_arn=ADMIN)
    aws.eks.AccessPolicyAssociation(
        "admin",
        cluster_name=cluster.name,
        principal_arn=entry.principal_arn,
        policy_arn="arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy",
        access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
    )
    _workload_identity(cluster)
    _nodes(cluster, subnets)


def _attach(role: aws.iam.Role, name: str, *policies: str) -> list[pulumi.Resource]:
    return [
        aws.iam.RolePolicyAttachment(f"{name}-{policy}", role=role.name, policy_arn=f"arn:aws:iam::aws:policy/{policy}")
        for policy in policies
    ]


def _workload_identity(cluster: aws.eks.Cluster) -> None:
    role = aws.iam.Role(
        "weights", assume_role_policy=trust("pods.eks.amazonaws.com", "sts:AssumeRole", "sts:TagSession")
    )
    policy = json.dumps({"Version": "2012-10-17", "Statement": [_READ_BUCKET]})
    aws.iam.RolePolicy("weights", role=role.name, policy=policy)
    aws.eks.PodIdentityAssociation(
        "weights", cluster_name=cluster.name, namespace="serving", service_account="vllm", role_arn=role.arn
    )


def _nodes(cluster: aws.eks.Cluster, subnets: list[pulumi.Output[str]]) -> None:
    role = aws.iam.Role("nodes", assume_role_policy=trust("ec2.amazonaws.com"))
    policies = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryReadOnly", "AmazonEKS_CNI_Policy")
    attached = _attach(role, "nodes", *policies)
    network = aws.eks.Addon(
        "vpc-cni",
        cluster_name=cluster.name,
        addon_name="vpc-cni",
        configuration_values=json.dumps({"enableNetworkPolicy": "true"}),
        resolve_conflicts_on_create="OVERWRITE",
        resolve_conflicts_on_update="PRESERVE",
    )
    after = pulumi.ResourceOptions(depends_on=[*attached, network])
    aws.eks.NodeGroup(
        "system",
        cluster_name=cluster.name,
        node_role_arn=role.arn,
        subnet_ids=subnets,
        instance_types=["m7i.large"],
        scaling_config=aws.eks.NodeGroupScalingConfigArgs(min_size=1, desired_size=2, max_size=3),
        opts=after,
    )
    group = _security_group(cluster)
    aws.ec2.PlacementGroup("gpu", strategy="cluster")
    template = _template(cluster, group)
    aws.eks.NodeGroup(
        "gpu",
        cluster_name=cluster.name,
        node_role_arn=role.arn,
        subnet_ids=[subnets[0]],
        ami_type="AL2023_x86_64_NVIDIA",
        release_version="1.36.2-20260714",
        capacity_type="CAPACITY_BLOCK",
        launch_template=aws.eks.NodeGroupLaunchTemplateArgs(id=template.id, version=template.latest_version.apply(str)),
        labels={"nvidia.com/gpu.present": "true"},
        taints=[aws.eks.NodeGroupTaintArgs(key="nvidia.com/gpu", value="present", effect="NO_SCHEDULE")],
        scaling_config=aws.eks.NodeGroupScalingConfigArgs(min_size=0, desired_size=2, max_size=2),
        update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1, update_strategy="MINIMAL"),
        node_repair_config=aws.eks.NodeGroupNodeRepairConfigArgs(
            enabled=True,
            node_repair_config_overrides=[
                aws.eks.NodeGroupNodeRepairConfigNodeRepairConfigOverrideArgs(
                    node_monitoring_condition="AcceleratedHardwareReady",
                    node_unhealthy_reason="NvidiaXID31Error",
                    min_repair_wait_time_mins=10,
                    repair_action="NoAction",
                )
            ],
        ),
        opts=after,
    )


def _security_group(cluster: aws.eks.Cluster) -> aws.ec2.SecurityGroup:
    """A group for EFA: all from and to itself."""
    group = aws.ec2.SecurityGroup("efa", vpc_id=cluster.vpc_config.vpc_id, description="EFA between nodes")
    aws.vpc.SecurityGroupIngressRule(
        "efa", security_group_id=group.id, ip_protocol="-1", referenced_security_group_id=group.id
    )
    aws.vpc.SecurityGroupEgressRule(
        "efa", security_group_id=group.id, ip_protocol="-1", referenced_security_group_id=group.id
    )
    return group


def _template(cluster: aws.eks.Cluster, group: aws.ec2.SecurityGroup) -> aws.ec2.LaunchTemplate:
    groups = [cast("pulumi.Output[str]", cluster.vpc_config.cluster_security_group_id), group.id]
    places = [("interface", 0, 0), ("efa-only", 0, 1), *(("efa-only", card, 0) for card in range(1, 8))]
    return aws.ec2.LaunchTemplate(
        "gpu",
        instance_type="p6-b200.48xlarge",
        user_data=user_data(NODE_CONFIG),
        metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
            http_tokens="required", http_put_response_hop_limit=1
        ),
        block_device_mappings=[
            aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
                device_name="/dev/xvda",
                ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                    volume_size=100, volume_type="gp3", encrypted="true", delete_on_termination="true"
                ),
            )
        ],
        network_interfaces=[
            aws.ec2.LaunchTemplateNetworkInterfaceArgs(
                interface_type=kind, network_card_index=card, device_index=device, security_groups=groups
            )
            for kind, card, device in places
        ],
        instance_market_options=aws.ec2.LaunchTemplateInstanceMarketOptionsArgs(market_type="capacity-block"),
        capacity_reservation_specification=aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs(
            capacity_reservation_target=aws.ec2.LaunchTemplateCapacityReservationSpecificationCapacityReservationTargetArgs(
                capacity_reservation_id=RESERVATION
            )
        ),
        tag_specifications=[
            aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type="instance", tags={"Name": "gpu"}),
        ],
        tags={"team": "serving"},
    )


# --- Replaying it --------------------------------------------------------------------------------------------------


@cache
def recorded() -> tuple[Registered, ...]:
    """Return what `platform` registers, in an order in which it can be created."""
    return tuple(run(platform).registered)


def resource(token: str, name: str) -> Registered:
    """Return one recorded resource, by the end of its type's token (`NodeGroup`) and its name."""
    return next(row for row in recorded() if row.token.endswith(f":{token}") and row.name == name)


Key = tuple[str, str]

DELETE = object()


def changed(inputs: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs with values replaced, added or (DELETE) taken away at paths such as `a.b[0].c`."""
    tree: Any = copy.deepcopy(dict(inputs))
    for path, value in changes.items():
        steps = [int(step[1:-1]) if step.startswith("[") else step for step in re.findall(r"[^.\[\]]+|\[\d+\]", path)]
        place = tree
        for step in steps[:-1]:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
        if value is DELETE:
            del place[steps[-1]]
        elif isinstance(place, list) and steps[-1] == len(place):
            place.append(value)
        else:
            place[steps[-1]] = value
    return tree


def account(
    *,
    until: Registered | None = None,
    changes: Mapping[Key, Mapping[str, Any]] | None = None,
    without: frozenset[Key] = frozenset(),
) -> AwsStandIn:
    """Return a stand-in with the recorded resources before one of them, some changed, some left out.

    Resources are named by the end of their type and their name: `("Role", "nodes")`.
    """
    touched = {*(changes or {}), *without}
    rows = list(recorded())
    wanted = rows[: rows.index(until) if until else None]
    alike = next((at for at, row in enumerate(wanted) if _key(row) in touched), len(wanted))
    stand_in = _untouched(alike)
    for row in wanted[alike:]:
        if _key(row) not in without:
            inputs = changed(row.inputs, (changes or {}).get(_key(row), {}))
            stand_in.create(row.token, row.name, inputs, preview=False)
    return stand_in


def _key(row: Registered) -> Key:
    return row.token.rpartition(":")[2], row.name


def _untouched(number: int) -> AwsStandIn:
    """Return a stand-in of one's own with so many of the recorded resources. What it holds is immutable."""
    stand_in = AwsStandIn(REGION)
    made = _made(number)
    stand_in._world.records.update(made._world.records)
    stand_in._node_groups.update(made._node_groups)
    return stand_in


@cache
def _made(number: int) -> AwsStandIn:
    if number == 0:
        return AwsStandIn(REGION)
    stand_in = _untouched(number - 1)
    row = recorded()[number - 1]
    stand_in.create(row.token, row.name, row.inputs, preview=False)
    return stand_in


# --- Tables of cases -----------------------------------------------------------------------------------------------

VPC: Key = ("Vpc", "main")
SUBNET: Key = ("Subnet", "private-0")
ROUTE: Key = ("Route", "public")
NAT: Key = ("NatGateway", "nat-0")
ENDPOINT: Key = ("VpcEndpoint", "s3")
INGRESS: Key = ("SecurityGroupIngressRule", "efa")
GROUP: Key = ("SecurityGroup", "efa")
FLOW_LOG: Key = ("FlowLog", "main")
NODE_ROLE: Key = ("Role", "nodes")
KEY: Key = ("Key", "secrets")
ALIAS: Key = ("Alias", "secrets")
CLUSTER_LOGS: Key = ("LogGroup", "cluster")
CLUSTER: Key = ("Cluster", "main")
ADDON: Key = ("Addon", "vpc-cni")
ENTRY: Key = ("AccessEntry", "admin")
ENTRY_POLICY: Key = ("AccessPolicyAssociation", "admin")
POD_IDENTITY: Key = ("PodIdentityAssociation", "weights")
PLACEMENT: Key = ("PlacementGroup", "gpu")
TEMPLATE: Key = ("LaunchTemplate", "gpu")
GPU_NODES: Key = ("NodeGroup", "gpu")
SYSTEM_NODES: Key = ("NodeGroup", "system")

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A change to one resource of the platform, and to others before it, and what the stand-in says to that.

    In all of it, `<Type name>` stands for a resource's generated id, `<name of Type name>` for its generated name, `<cluster
    group>` for the security group that EKS makes, `<botocore>` and `<pulumi_aws>` for the versions.
    """

    name: str
    target: Key
    changes: Changes = field(default_factory=dict[str, Any])
    message: str = ""
    others: Mapping[Key, Changes] = field(default_factory=dict[Key, Changes])
    without: tuple[Key, ...] = ()

    def create(self) -> tuple[AwsStandIn, Registered]:
        """Create the resource as changed, after all that comes before it."""
        row = resource(*self.target)
        others = {key: _filled(changes) for key, changes in self.others.items()}
        stand_in = account(until=row, changes=others, without=frozenset(self.without))
        inputs = changed(row.inputs, _filled(self.changes))
        resource_id, outputs = stand_in.create(row.token, row.name, inputs, preview=False)
        return stand_in, Registered(row.token, row.name, inputs, resource_id, outputs)


@cache
def _placeholders() -> dict[str, str]:
    """Return what stands for what: placeholder -> generated text."""
    words = {f"<{name}>": f"{name} {version(name)}" for name in ("botocore", "pulumi_aws")}
    words["<cluster group>"] = str(resource(*CLUSTER).outputs["vpcConfig"]["clusterSecurityGroupId"])
    for row in recorded():
        kind = row.token.rpartition(":")[2]
        if row.id is not None and re.fullmatch(r"[\w-]+-[0-9a-f]{7,}", row.id):
            words[f"<{kind} {row.name}>"] = row.id
        elif (name := row.outputs.get("nodeGroupName")) is not None:
            words[f"<name of {kind} {row.name}>"] = name
        if kind == "LaunchTemplate":
            words[f"<name of {kind} {row.name}>"] = row.outputs["name"]
    return words


def _filled(value: Any) -> Any:
    """Return a value with its placeholders replaced by generated ids."""
    if isinstance(value, str):
        for word, text in _placeholders().items():
            value = value.replace(word, text)
        return value
    if isinstance(value, Mapping):
        return {key: _filled(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return [_filled(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def in_words(text: str) -> str:
    """Return a refusal with generated ids and versions replaced by placeholders."""
    for word, generated in sorted(_placeholders().items(), key=lambda pair: len(pair[1]), reverse=True):
        text = text.replace(generated, word)
    return text
