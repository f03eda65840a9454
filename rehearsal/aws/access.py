"""Who may do what in an EKS cluster: access entries, access policies, and Pod Identity for workloads."""

from __future__ import annotations

import re
from typing import Final

from rehearsal.aws import tokens
from rehearsal.aws.addons import check_pod_identity_role
from rehearsal.aws.cluster import cluster_of
from rehearsal.aws.documents import check_policy
from rehearsal.aws.draft import Draft
from rehearsal.aws.kind import Ending, Kind
from rehearsal.aws.request import Call
from rehearsal.aws.world import World
from serving.spelling import listed

_CREATE_ENTRY = Call("eks", "CreateAccessEntry")
_ASSOCIATE_POLICY = Call("eks", "AssociateAccessPolicy")
_CREATE_POD_IDENTITY = Call("eks", "CreatePodIdentityAssociation")

# "Valid values are" of CreateAccessEntryRequest (the model has no enum for it).
_ENTRY_TYPES: Final = (
    "STANDARD", "FARGATE_LINUX", "EC2_LINUX", "EC2_WINDOWS", "EC2", "HYBRID_LINUX", "HYPERPOD_LINUX",
)  # fmt: skip
_NODE_TYPES: Final = ("EC2_LINUX", "EC2_WINDOWS")
_PRINCIPAL: Final = re.compile(r"arn:aws:iam::\d{12}:(role|user)/.+")
_ACCESS_POLICY: Final = re.compile(r"arn:aws:eks::aws:cluster-access-policy/[A-Za-z0-9]+")


def _check_entry(draft: Draft, world: World) -> None:
    # An unknown type is taken for the default, under which nothing that follows is refused.
    kind = draft.text("type") or "STANDARD"
    if kind not in _ENTRY_TYPES:
        raise draft.refusal("type", f"must be {listed(_ENTRY_TYPES)}", _CREATE_ENTRY.cited)
    principal = draft.text("principalArn")
    if principal is not None and not _PRINCIPAL.fullmatch(principal):
        reason = "must be the ARN of an IAM role or user, arn:aws:iam::<account>:role/<name>, not of an STS session"
        raise draft.refusal("principalArn", reason, _CREATE_ENTRY.cited)
    if kind in _NODE_TYPES and draft.given("kubernetesGroups"):
        raise draft.refusal("kubernetesGroups", f"not for an entry of type {kind}", _CREATE_ENTRY.cited)
    cluster = cluster_of(draft, world)
    if cluster is None:
        return
    if cluster.text("accessConfig.authenticationMode") == "CONFIG_MAP":
        mode = f"{cluster.resource} has accessConfig.authenticationMode CONFIG_MAP"
        reason = f"{mode}; access entries need API or API_AND_CONFIG_MAP"
        raise draft.refusal("clusterName", reason, "EKS user guide, access entries")
    if principal and world.find(tokens.ACCESS_ENTRY, f"{cluster.id}:{principal}") is not None:
        reason = "ResourceInUseException: this principal has an access entry already"
        raise draft.refusal("principalArn", reason, _CREATE_ENTRY.cited)


def _entry(draft: Draft, world: World, entry_id: str) -> dict[str, object]:
    cluster, _, principal = entry_id.partition(":")
    _, _, kind_and_name = principal.rpartition(":")
    path = f"{cluster}/{kind_and_name.partition('/')[0]}/{world.account_id}/{kind_and_name.rpartition('/')[2]}"
    return {
        "accessEntryArn": world.arn("eks", f"access-entry/{path}/{world.made_up(draft, 'entry')}"),
        "type": draft.text("type") or "STANDARD",
        "userName": draft.text("userName") or principal,
        "kubernetesGroups": draft.items("kubernetesGroups"),
        "createdAt": world.now,
        "modifiedAt": world.now,
    }


def _check_policy_association(draft: Draft, world: World) -> None:
    arn = draft.text("policyArn")
    if arn is not None and not _ACCESS_POLICY.fullmatch(arn):
        reason = "must be arn:aws:eks::aws:cluster-access-policy/<name>, for example …/AmazonEKSClusterAdminPolicy"
        raise draft.refusal("policyArn", reason, _ASSOCIATE_POLICY.cited)
    if draft.text("accessScope.type") == "namespace" and draft.absent("accessScope.namespaces"):
        raise draft.refusal("accessScope.namespaces", "required with scope type namespace", _ASSOCIATE_POLICY.cited)
    cluster = cluster_of(draft, world)
    principal = draft.text("principalArn")
    if cluster is None or principal is None:
        return
    entry = world.find(tokens.ACCESS_ENTRY, f"{cluster.id}:{principal}")
    if entry is None:
        reason = (
            f"ResourceNotFoundException: {cluster.id} has no access entry for this principal yet; take it from the AccessEntry's "
            "principalArn output, so that the entry is created first"
        )
        raise draft.refusal("principalArn", reason, _ASSOCIATE_POLICY.cited)
    if entry.text("type") in _NODE_TYPES:
        reason = f"{entry.resource} is of type {entry.text('type')}, which takes no access policy"
        raise draft.refusal("principalArn", reason, _CREATE_ENTRY.cited)


def _check_pod_identity(draft: Draft, world: World) -> None:
    check_pod_identity_role(draft, world, "roleArn")
    check_policy(draft, "policy", "identity")
    if draft.given("policy") and not draft.unknown("disableSessionTags") and not draft.flag("disableSessionTags"):
        raise draft.refusal("policy", "needs disableSessionTags true", _CREATE_POD_IDENTITY.cited)
    cluster = cluster_of(draft, world)
    if cluster is None:
        return
    for other in world.of(tokens.POD_IDENTITY_ASSOCIATION):
        if all(other.text(name) == draft.text(name) for name in ("clusterName", "namespace", "serviceAccount")):
            reason = f"ResourceInUseException: {other.resource} has this namespace and service account already"
            raise draft.refusal("serviceAccount", reason, _CREATE_POD_IDENTITY.cited)


def _pod_identity(draft: Draft, world: World, association_id: str) -> dict[str, object]:
    cluster = draft.text("clusterName")
    return {
        "associationArn": world.arn("eks", f"podidentityassociation/{cluster}/{association_id}"),
        "associationId": association_id,
        "externalId": f"{world.region}/{world.account_id}/{cluster}/{association_id}"
        if draft.given("targetRoleArn")
        else "",
        "disableSessionTags": draft.flag("disableSessionTags"),
    }


KINDS = (
    Kind(
        tokens.ACCESS_ENTRY,
        (_CREATE_ENTRY,),
        lambda draft, _world: f"{draft.text('clusterName')}:{draft.text('principalArn')}",
        _entry,
        Ending("eks", "DeleteAccessEntry"),
        rules=(_check_entry,),
    ),
    Kind(
        tokens.ACCESS_POLICY_ASSOCIATION,
        (_ASSOCIATE_POLICY,),
        lambda draft, _world: "#".join(draft.text(name) or "" for name in ("clusterName", "principalArn", "policyArn")),
        lambda _draft, world, _id: {"associatedAt": world.now, "modifiedAt": world.now},
        Ending("eks", "DisassociateAccessPolicy"),
        rules=(_check_policy_association,),
    ),
    Kind(
        tokens.POD_IDENTITY_ASSOCIATION,
        (_CREATE_POD_IDENTITY,),
        lambda draft, world: f"a-{world.unused_hex(draft, 17)}",
        _pod_identity,
        Ending("eks", "DeletePodIdentityAssociation"),
        rules=(_check_pod_identity,),
    ),
)
