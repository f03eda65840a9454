"""EKS managed node groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rehearsal.aws import tokens
from rehearsal.aws.addons import addon
from rehearsal.aws.cluster import cluster_of
from rehearsal.aws.documents import check_trust
from rehearsal.aws.draft import Draft, as_table
from rehearsal.aws.identity import policies_of
from rehearsal.aws.kind import Changing, Ending, Kind, Naming, Target
from rehearsal.aws.machines import Machine, machine
from rehearsal.aws.node_template import (
    check_block_gives_machines,
    check_capacity,
    check_machine,
    check_template,
    security_group_fields,
    template_of,
)
from rehearsal.aws.request import Call
from rehearsal.aws.world import Record, World
from serving import catalogue
from serving.spelling import listed

_CREATE = Call(
    "eks",
    "CreateNodegroup",
    # The older names of the API.
    renames={"nodeRoleArn": "nodeRole", "subnetIds": "subnets"},
)
_SCALE = Call("eks", "UpdateNodegroupConfig")
_ROLE_GUIDE: Final = "EKS user guide, node IAM role"
_MOST_LABELS_OR_TAINTS: Final = 50
_MOST_UNAVAILABLE: Final = 100
_GPU_IMAGES: Final = ("AL2023_x86_64_NVIDIA", "BOTTLEROCKET_x86_64_NVIDIA", "BOTTLEROCKET_x86_64_NVIDIA_FIPS")
# Images for accelerators that a machine without GPUs does not have.
_ACCELERATOR_IMAGE: Final = re.compile(r".*_(NVIDIA|NVIDIA_FIPS|NEURON|GPU)")
# "If you don't specify an instance type in a launch template or for instanceTypes, then t3.medium is used."
_DEFAULT_INSTANCE_TYPE: Final = "t3.medium"

_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_RESERVED_PREFIXES: Final = ("kubernetes.io/", "k8s.io/", "eks.amazonaws.com/")
_KUBERNETES_EFFECTS: Final = {
    "NO_SCHEDULE": "NoSchedule",
    "NO_EXECUTE": "NoExecute",
    "PREFER_NO_SCHEDULE": "PreferNoSchedule",
}


@dataclass(frozen=True)
class NodeGroup:
    """A node group as the rehearsal turns it into nodes. `efa_interfaces` are those of its launch template.

    `taints` are (key, value, effect) with the effect as Kubernetes spells it, NoSchedule.
    """

    name: str
    cluster_name: str
    instance_type: str
    desired_size: int
    labels: dict[str, str]
    taints: list[tuple[str, str, str]]
    availability_zone_ids: list[str]
    capacity_type: str
    launch_template_id: str | None
    efa_interfaces: int


# --- The group's own properties ------------------------------------------------------------------------------------


def _check_sizes(draft: Draft, _world: World) -> None:
    least, wanted, most = (draft.number(f"scalingConfig.{name}Size") for name in ("min", "desired", "max"))
    if least is not None and wanted is not None and wanted < least:
        raise draft.refusal("scalingConfig.desiredSize", f"must not be below minSize {least}", _CREATE.cited)
    if most is not None and wanted is not None and wanted > most:
        raise draft.refusal("scalingConfig.desiredSize", f"must not be above maxSize {most}", _CREATE.cited)
    if least is not None and most is not None and least > most:
        raise draft.refusal("scalingConfig.minSize", f"must not be above maxSize {most}", _CREATE.cited)


def _check_update(draft: Draft, _world: World) -> None:
    if draft.absent("updateConfig"):
        return
    number, percentage = "updateConfig.maxUnavailable", "updateConfig.maxUnavailablePercentage"
    to_blame = draft.not_one_of((number, percentage))
    if to_blame is not None:
        reason = "give exactly one of maxUnavailable and maxUnavailablePercentage"
        raise draft.refusal(to_blame, reason, "EKS NodegroupUpdateConfig")
    unavailable, most = draft.number(number), draft.number("scalingConfig.maxSize")
    if unavailable is not None and unavailable > _MOST_UNAVAILABLE:
        raise draft.refusal(number, f"must be at most {_MOST_UNAVAILABLE}", "EKS NodegroupUpdateConfig")
    if unavailable is not None and most is not None and unavailable > most:
        reason = f"must not be above the group's nodes, scalingConfig.maxSize {most}"
        raise draft.refusal(number, reason, "EKS NodegroupUpdateConfig")


def _check_repair(draft: Draft, _world: World) -> None:
    for what in ("maxParallelNodesRepaired", "maxUnhealthyNodeThreshold"):
        number, percentage = f"nodeRepairConfig.{what}Count", f"nodeRepairConfig.{what}Percentage"
        if draft.given(number) and draft.given(percentage):
            raise draft.refusal(percentage, f"not together with {what}Count", "EKS NodeRepairConfig")


def _check_labels_and_taints(draft: Draft, _world: World) -> None:
    for field in ("labels", "taints"):
        number = len(draft.table("labels") if field == "labels" else draft.items("taints"))
        if number > _MOST_LABELS_OR_TAINTS:
            reason = f"a node group has at most {_MOST_LABELS_OR_TAINTS} {field}, these are {number}"
            raise draft.refusal(field, reason, "EKS user guide, managed node groups")
    for key, value in draft.table("labels").items():
        _check_pair(draft, "labels", key, value)
        if any(prefix in key for prefix in _RESERVED_PREFIXES):
            reason = f"{key}: Label cannot contain reserved prefixes [{', '.join(_RESERVED_PREFIXES)}]"
            raise draft.refusal("labels", reason, "EKS error text, aws/containers-roadmap#1451")
    for index, taint in enumerate(draft.items("taints")):
        key, value = (as_table(taint).get(name) for name in ("key", "value"))
        _check_pair(draft, f"taints[{index}]", key, value)


def _check_pair(draft: Draft, field: str, key: object, value: object) -> None:
    source = "Kubernetes label syntax"
    if isinstance(key, str):
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
            reason = f"{key}: a key is [prefix/]name, the name of letters, digits, -, _ and . with a letter or digit at both ends"
            raise draft.refusal(field, reason, source)
    if isinstance(value, str) and value and not _NAME.fullmatch(value):
        reason = f"{key}={value}: a value is made of letters, digits, -, _ and . with a letter or digit at both ends"
        raise draft.refusal(field, reason, source)


def _check_block(draft: Draft, world: World) -> None:
    check_block_gives_machines(draft, world, template_of(draft, world))


# --- With the cluster ----------------------------------------------------------------------------------------------


def _check_cluster(draft: Draft, world: World) -> None:
    cluster = cluster_of(draft, world)
    if cluster is None:
        return
    _check_name(draft, world, cluster)
    _check_versions(draft, cluster)
    _check_node_role(draft, world, cluster)
    subnets = _check_subnets(draft, world, cluster)
    template = template_of(draft, world)
    if template is not None:
        check_template(draft, world, template, cluster)
    kind = _machine(draft, template)
    zones = sorted({subnet.text("availabilityZoneId") for subnet in subnets})
    if template is not None:
        check_machine(template, kind)
    _check_image(draft, template, kind)
    check_capacity(draft, world, template, kind, zones)
    _check_offering(draft, world, template, kind, subnets)


def _check_name(draft: Draft, world: World, cluster: Record) -> None:
    name = draft.text("nodeGroupName")
    if world.find(tokens.NODE_GROUP, f"{cluster.id}:{name}") is not None:
        reason = (
            "ResourceInUseException: NodeGroup already exists with this name; a replacement needs delete_before_replace"
        )
        raise draft.refusal("nodeGroupName", reason, _CREATE.cited)


def _check_versions(draft: Draft, cluster: Record) -> None:
    minor = cluster.text("version")
    if draft.text("version") not in {None, minor}:
        raise draft.refusal("version", f"must be the cluster's, {minor}", _CREATE.cited)
    release = draft.text("releaseVersion")
    if release is not None and not re.fullmatch(rf"{re.escape(minor)}\.\d+-\d{{8}}", release):
        known = catalogue.kubernetes_version(minor).ami_release_version
        example = f", for example {known}" if known else ""
        reason = f"must be an AMI release of the cluster's version, {minor}.<patch>-<yyyymmdd>{example}"
        raise draft.refusal("releaseVersion", reason, "EKS user guide, optimized AMI versions")


def _check_node_role(draft: Draft, world: World, cluster: Record) -> None:
    """Refuse a role with which no node joins: EKS would wait for the nodes and then fail with NodeCreationFailure."""
    role = world.reference(draft, "nodeRoleArn", tokens.ROLE, "arn")
    if role is None:
        return
    check_trust(draft, "nodeRoleArn", role, "ec2.amazonaws.com", ["sts:AssumeRole"], source=_ROLE_GUIDE)
    policies = policies_of(world, role)
    needed = (
        ("AmazonEKSWorkerNodePolicy", "AmazonEKSWorkerNodeMinimalPolicy"),
        ("AmazonEC2ContainerRegistryReadOnly", "AmazonEC2ContainerRegistryPullOnly"),
    )
    for alternatives in needed:
        if not policies & set(alternatives):
            _refuse_role(draft, role, f"has none of {listed(alternatives)} attached yet")
    if "AmazonEKS_CNI_Policy" not in policies and not _network_plugin_has_a_role(world, cluster):
        _refuse_role(draft, role, "has no AmazonEKS_CNI_Policy, and the vpc-cni add-on has no role of its own")
    if addon(world, cluster, "vpc-cni") is None and not cluster.flag("bootstrapSelfManagedAddons", True):
        reason = (
            f"NodeCreationFailure: {cluster.resource} has bootstrapSelfManagedAddons false and no vpc-cni add-on yet, so no "
            "node gets ready; create the add-on first (depends_on)"
        )
        raise draft.refusal("clusterName", reason, "EKS user guide, managed node group errors")


def _refuse_role(draft: Draft, role: Record, problem: str) -> None:
    reason = (
        f"NodeCreationFailure: {role.resource} {problem}, so no node joins; attach it before the group (depends_on)"
    )
    raise draft.refusal("nodeRoleArn", reason, _ROLE_GUIDE)


def _network_plugin_has_a_role(world: World, cluster: Record) -> bool:
    plugin = addon(world, cluster, "vpc-cni")
    if plugin is not None and (plugin.text("serviceAccountRoleArn") or plugin.outputs.get("podIdentityAssociations")):
        return True
    return any(
        association.text("clusterName") == cluster.id and association.text("serviceAccount") == "aws-node"
        for association in world.of(tokens.POD_IDENTITY_ASSOCIATION)
    )


def _check_subnets(draft: Draft, world: World, cluster: Record) -> list[Record]:
    subnets = world.references(draft, "subnetIds", tokens.SUBNET)
    for index, subnet in enumerate(subnets):
        if subnet.text("vpcId") != cluster.text("vpcConfig.vpcId"):
            reason = f"Ec2SubnetInvalidConfiguration: {subnet.resource} is in another VPC than {cluster.resource}"
            raise draft.refusal(f"subnetIds[{index}]", reason, _CREATE.cited)
    return subnets


def _machine(draft: Draft, template: Record | None) -> Machine:
    if template is not None and template.text("instanceType"):
        return machine(template.draft(), "instanceType", template.text("instanceType"))
    kinds = [machine(draft, f"instanceTypes[{index}]", name) for index, name in enumerate(draft.texts("instanceTypes"))]
    if not kinds:
        reason = f"name one, here or in the launch template: without it EKS takes {_DEFAULT_INSTANCE_TYPE}"
        raise draft.refusal("instanceTypes", reason, _CREATE.cited)
    return kinds[0]


def _check_image(draft: Draft, template: Record | None, kind: Machine) -> None:
    if template is not None and template.text("imageId"):
        return
    image = draft.text("amiType")
    if kind.gpus and image not in _GPU_IMAGES:
        reason = f"{kind.name} has GPUs and needs an image with the NVIDIA driver: {listed(_GPU_IMAGES)}"
        raise draft.refusal("amiType", reason, f"{_CREATE.cited}; EKS user guide, ml/ml-eks-optimized-ami")
    if not kind.gpus and image is not None and _ACCELERATOR_IMAGE.fullmatch(image):
        reason = f"{kind.name} has no accelerator and is not a valid instance type for this image; take AL2023_x86_64_STANDARD"
        raise draft.refusal("amiType", reason, _CREATE.cited)


def _check_offering(draft: Draft, world: World, template: Record | None, kind: Machine, subnets: list[Record]) -> None:
    source = "EC2 DescribeInstanceTypeOfferings, serving/catalogue/accelerators.toml"
    if kind.regions is not None and world.region not in kind.regions:
        reason = f"{kind.name} is not offered in {world.region}, only in {listed(kind.regions)}"
        if template is not None and template.text("instanceType"):
            raise template.draft().refusal("instanceType", reason, source)
        raise draft.refusal("instanceTypes", reason, source)
    for index, subnet in enumerate(subnets):
        zone = subnet.text("availabilityZoneId")
        if kind.zones is not None and zone not in kind.zones:
            offered = [known for known in kind.zones if catalogue.region_of_zone(known) == world.region]
            where = f"{subnet.resource} is in {zone}, where {kind.name} is not offered"
            reason = f"{where}; in {world.region} it is in {listed(offered)}"
            raise draft.refusal(f"subnetIds[{index}]", reason, source)


# --- Outputs -------------------------------------------------------------------------------------------------------


def _node_group(draft: Draft, world: World, group_id: str) -> dict[str, object]:
    cluster_name, _, name = group_id.partition(":")
    cluster = world.find(tokens.CLUSTER, cluster_name)
    version = cluster.text("version") if cluster else ""
    template = template_of(draft, world)
    unique = world.made_up(draft, "group")
    return {
        "arn": world.arn("eks", f"nodegroup/{cluster_name}/{name}/{unique}"),
        "status": "ACTIVE",
        "resources": [{"autoscalingGroups": [{"name": f"eks-{name}-{unique}"}], "remoteAccessSecurityGroupId": ""}],
        "amiType": draft.text("amiType")
        or ("CUSTOM" if template and template.text("imageId") else "AL2023_x86_64_STANDARD"),
        "capacityType": draft.text("capacityType") or "ON_DEMAND",
        # EKS leaves the list empty where the type is in the template.
        "instanceTypes": draft.texts("instanceTypes"),
        "diskSize": draft.number("diskSize") or (0 if template else 20),
        "version": version,
        "releaseVersion": draft.text("releaseVersion")
        or catalogue.kubernetes_version(version).ami_release_version
        or "",
    }


def as_node_group(record: Record, world: World) -> NodeGroup:
    """Return a node group that exists as the rehearsal turns it into nodes."""
    draft = record.draft()
    template = template_of(draft, world)
    subnets = world.references(draft, "subnetIds", tokens.SUBNET)
    return NodeGroup(
        name=record.text("nodeGroupName"),
        cluster_name=record.text("clusterName"),
        instance_type=_machine(draft, template).name,
        desired_size=draft.number("scalingConfig.desiredSize") or 0,
        labels={key: str(value) for key, value in draft.table("labels").items()},
        taints=[_kubernetes_taint(as_table(taint)) for taint in draft.items("taints")],
        availability_zone_ids=sorted({subnet.text("availabilityZoneId") for subnet in subnets}),
        capacity_type=record.text("capacityType"),
        launch_template_id=template.id if template else None,
        efa_interfaces=_efa_interfaces(template) if template else 0,
    )


def _efa_interfaces(template: Record) -> int:
    of_template = template.draft()
    kinds = (
        of_template.text(f"networkInterfaces[{index}].interfaceType")
        for index, _ in enumerate(of_template.items("networkInterfaces"))
    )
    return sum(kind in {"efa", "efa-only"} for kind in kinds)


def _kubernetes_taint(taint: Mapping[str, object]) -> tuple[str, str, str]:
    return str(taint["key"]), str(taint.get("value") or ""), _KUBERNETES_EFFECTS[str(taint["effect"])]


def _holds(record: Record, world: World) -> Iterable[Target]:
    draft = record.draft()
    yield (tokens.CLUSTER, record.text("clusterName"))
    yield from ((tokens.SUBNET, subnet) for subnet in draft.texts("subnetIds"))
    template = template_of(draft, world)
    of_template = template.draft() if template else None
    groups = draft.texts("remoteAccess.sourceSecurityGroupIds")
    if of_template is not None:
        groups = [group for field in security_group_fields(of_template) for group in of_template.texts(field)]
        placement = of_template.text("placement.groupName")
        yield from [(tokens.PLACEMENT_GROUP, placement)] if placement else []
    yield from ((tokens.SECURITY_GROUP, group) for group in groups)


KINDS = (
    Kind(
        tokens.NODE_GROUP,
        (_CREATE,),
        lambda draft, _world: f"{draft.text('clusterName')}:{draft.text('nodeGroupName')}",
        _node_group,
        Ending("eks", "DeleteNodegroup"),
        rules=(_check_sizes, _check_update, _check_repair, _check_labels_and_taints, _check_cluster),
        # `forceUpdateVersion` belongs to UpdateNodegroupVersion.
        local=frozenset({"nodeGroupNamePrefix", "forceUpdateVersion"}),
        naming=Naming("nodeGroupName", "nodeGroupNamePrefix"),
        changing=Changing(
            _SCALE,
            names=frozenset({"clusterName", "nodeGroupName"}),
            properties=frozenset({"scalingConfig"}),
            rules=(_check_sizes, _check_block),
        ),
        holds=_holds,
    ),
)
