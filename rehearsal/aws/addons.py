"""EKS add-ons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from rehearsal.aws import tokens
from rehearsal.aws.cluster import cluster_of
from rehearsal.aws.documents import check_json, check_trust
from rehearsal.aws.draft import Draft, as_table, joined, shown
from rehearsal.aws.kind import Ending, Kind
from rehearsal.aws.request import Call
from rehearsal.aws.world import Record, World
from serving.spelling import did_you_mean, listed

_CREATE = Call("eks", "CreateAddon", renames={"resolveConflictsOnCreate": "resolveConflicts"})
# Not sent on creation, but the provider would send it with the next change: its value must be one that UpdateAddon takes.
_UPDATE = Call(
    "eks",
    "UpdateAddon",
    renames={"resolveConflictsOnUpdate": "resolveConflicts"},
    takes=frozenset({"resolveConflictsOnUpdate"}),
    fixed=lambda draft: {"clusterName": draft.at("clusterName"), "addonName": draft.at("addonName")},
)

# EKS user guide, add-ons.
_NAMES: Final = (
    "vpc-cni",
    "coredns",
    "kube-proxy",
    "aws-ebs-csi-driver",
    "aws-efs-csi-driver",
    "aws-fsx-csi-driver",
    "aws-mountpoint-s3-csi-driver",
    "eks-node-monitoring-agent",
    "eks-pod-identity-agent",
    "metrics-server",
    "snapshot-controller",
    "amazon-cloudwatch-observability",
)
# What EKS installs by itself unless bootstrapSelfManagedAddons is false (CreateClusterRequest).
_SELF_MANAGED: Final = ("vpc-cni", "coredns", "kube-proxy")
POD_IDENTITY_SERVICE: Final = "pods.eks.amazonaws.com"
POD_IDENTITY_ACTIONS: Final = ("sts:AssumeRole", "sts:TagSession")


def _check_name(draft: Draft, world: World) -> None:
    name = draft.text("addonName")
    if name is None:
        return
    if name not in _NAMES:
        reason = f"is no add-on of EKS known here; known are {listed(_NAMES)}{did_you_mean(name, _NAMES)}"
        raise draft.refusal("addonName", reason, "EKS user guide, add-ons")
    cluster = cluster_of(draft, world)
    if cluster is None:
        return
    if world.find(tokens.ADDON, f"{cluster.id}:{name}") is not None:
        raise draft.refusal("addonName", "ResourceInUseException: Addon already exists", _CREATE.cited)
    replaces = draft.text("resolveConflictsOnCreate") == "OVERWRITE"
    if name in _SELF_MANAGED and cluster.flag("bootstrapSelfManagedAddons", True) and not replaces:
        reason = (
            f"conflicts with the self-managed {name} that EKS puts into a new cluster: set it to OVERWRITE, or "
            f"bootstrapSelfManagedAddons to false on {cluster.resource}"
        )
        raise draft.refusal("resolveConflictsOnCreate", reason, f"{_CREATE.cited}; EKS user guide, add-ons")


def _check_values(draft: Draft, _world: World) -> None:
    version = draft.text("addonVersion")
    if version is not None and not re.fullmatch(r"v\d+\.\d+\.\d+-eksbuild\.\d+", version):
        reason = "must be a version that DescribeAddonVersions returns, in the form v1.2.3-eksbuild.4"
        raise draft.refusal("addonVersion", reason, _CREATE.cited)
    if draft.text("resolveConflictsOnCreate") == "PRESERVE":
        raise draft.refusal("resolveConflictsOnCreate", "must be NONE or OVERWRITE on creation", "pulumi_aws.eks.Addon")
    values = check_json(draft, "configurationValues", _CREATE.cited)
    if draft.text("addonName") == "vpc-cni":
        _check_vpc_cni(draft, values)


def _check_vpc_cni(draft: Draft, values: Mapping[str, object]) -> None:
    """Refuse values that are not text where the add-on's schema wants text, `"true"` in quotes included."""
    texts = {"enableNetworkPolicy": values.get("enableNetworkPolicy")}
    texts |= {joined("env", key): value for key, value in as_table(values.get("env")).items()}
    for path, value in texts.items():
        if value is not None and not isinstance(value, str):
            reason = f"{path} must be a string, {shown(str(value).lower())} instead of {shown(value)}"
            raise draft.refusal(
                "configurationValues", reason, "configuration schema of vpc-cni, aws/amazon-vpc-cni-k8s#3059"
            )


def _check_roles(draft: Draft, world: World) -> None:
    world.reference(draft, "serviceAccountRoleArn", tokens.ROLE, "arn")
    for index, _ in enumerate(draft.items("podIdentityAssociations")):
        check_pod_identity_role(draft, world, f"podIdentityAssociations[{index}].roleArn")


def check_pod_identity_role(draft: Draft, world: World, field: str) -> None:
    """Refuse a role that the Pod Identity agent cannot assume."""
    role = world.reference(draft, field, tokens.ROLE, "arn")
    if role is not None:
        source = "EKS user guide, Pod Identity role"
        check_trust(draft, field, role, POD_IDENTITY_SERVICE, POD_IDENTITY_ACTIONS, source=source)


def _addon(draft: Draft, world: World, addon_id: str) -> dict[str, object]:
    cluster, _, name = addon_id.partition(":")
    return {
        "arn": world.arn("eks", f"addon/{cluster}/{name}/{world.made_up(draft, 'addon')}"),
        # Without a version EKS takes its default, which nobody here knows: zero says so in the right form.
        "addonVersion": draft.text("addonVersion") or "v0.0.0-eksbuild.0",
        "configurationValues": draft.text("configurationValues") or "",
        "createdAt": world.now,
        "modifiedAt": world.now,
    }


def addon(world: World, cluster: Record, name: str) -> Record | None:
    """Return a cluster's add-on by name, if it is there."""
    return world.find(tokens.ADDON, f"{cluster.id}:{name}")


KINDS = (
    Kind(
        tokens.ADDON,
        (_CREATE, _UPDATE),
        lambda draft, _world: f"{draft.text('clusterName')}:{draft.text('addonName')}",
        _addon,
        Ending("eks", "DeleteAddon"),
        rules=(_check_name, _check_values, _check_roles),
        # `preserve` goes into DeleteAddon.
        local=frozenset({"preserve"}),
    ),
)
