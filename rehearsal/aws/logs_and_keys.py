"""KMS keys and aliases, CloudWatch log groups, VPC flow logs."""

from __future__ import annotations

from typing import Final

from rehearsal.aws import tokens
from rehearsal.aws.documents import as_policy_text, check_policy, check_trust
from rehearsal.aws.draft import Draft
from rehearsal.aws.kind import Ending, Kind, Naming, with_id
from rehearsal.aws.request import Call, Send, tag_specifications
from rehearsal.aws.world import World
from serving.spelling import listed

# --- KMS -----------------------------------------------------------------------------------------------------------

_CREATE_KEY = Call(
    "kms",
    "CreateKey",
    # Terraform kept the name that KMS gave up in favour of KeySpec.
    renames={"customerMasterKeySpec": "KeySpec", "policy": Send("Policy", as_policy_text)},
)
# With `enableKeyRotation: false` the provider sends no EnableKeyRotation; its rule is in `_check_key`.
_ENABLE_ROTATION = Call("kms", "EnableKeyRotation", takes=frozenset({"rotationPeriodInDays"}), subject="KeyId")
_SCHEDULE_DELETION = Call(
    "kms",
    "ScheduleKeyDeletion",
    renames={"deletionWindowInDays": "PendingWindowInDays"},
    takes=frozenset({"deletionWindowInDays"}),
    subject="KeyId",
)
_CREATE_ALIAS = Call("kms", "CreateAlias", renames={"name": "AliasName"})


def _check_key(draft: Draft, _world: World) -> None:
    check_policy(draft, "policy", "resource")
    window = draft.number("deletionWindowInDays")
    if window is not None and not 7 <= window <= 30:
        raise draft.refusal("deletionWindowInDays", "must be from 7 to 30 days", _SCHEDULE_DELETION.cited)
    if (
        draft.given("rotationPeriodInDays")
        and not draft.unknown("enableKeyRotation")
        and not draft.flag("enableKeyRotation")
    ):
        raise draft.refusal("rotationPeriodInDays", "needs enableKeyRotation", _ENABLE_ROTATION.cited)
    spec = draft.text("customerMasterKeySpec")
    if draft.flag("enableKeyRotation") and spec not in {None, "SYMMETRIC_DEFAULT"}:
        raise draft.refusal("enableKeyRotation", f"only for symmetric keys, not for {spec}", _ENABLE_ROTATION.cited)


def _key(draft: Draft, world: World, key_id: str) -> dict[str, object]:
    return {
        "arn": world.arn("kms", f"key/{key_id}"),
        "keyId": key_id,
        "keyUsage": draft.text("keyUsage") or "ENCRYPT_DECRYPT",
        "customerMasterKeySpec": draft.text("customerMasterKeySpec") or "SYMMETRIC_DEFAULT",
        "multiRegion": draft.flag("multiRegion"),
        "isEnabled": draft.flag("isEnabled", True),
        "enableKeyRotation": draft.flag("enableKeyRotation"),
        "rotationPeriodInDays": draft.number("rotationPeriodInDays") or 365,
        "policy": as_policy_text(draft.at("policy")) or "",
        "description": draft.text("description") or "",
    }


def _key_id(draft: Draft, world: World) -> str:
    digits = world.unused_hex(draft, 32)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _check_alias(draft: Draft, world: World) -> None:
    name = draft.text("name")
    if name is not None and (not name.startswith("alias/") or name.startswith("alias/aws/")):
        reason = "must begin with alias/, and not with alias/aws/, which AWS keeps for its own keys"
        raise draft.refusal("name", reason, _CREATE_ALIAS.cited)
    twin = world.find(tokens.ALIAS, name) if name is not None else None
    if twin is not None:
        raise draft.refusal("name", f"AlreadyExistsException: it is the name of {twin.resource}", _CREATE_ALIAS.cited)
    target = draft.text("targetKeyId") or ""
    world.reference(draft, "targetKeyId", tokens.KEY, "arn" if target.startswith("arn:") else "id")


def _alias(draft: Draft, world: World, name: str) -> dict[str, object]:
    target = draft.text("targetKeyId") or ""
    key = world.find(tokens.KEY, target) or world.with_output(tokens.KEY, "arn", target)
    return {"arn": world.arn("kms", name), "targetKeyArn": key.text("arn") if key else ""}


# --- CloudWatch Logs -----------------------------------------------------------------------------------------------

_CREATE_LOG_GROUP = Call("logs", "CreateLogGroup", renames={"name": "logGroupName"})
_PUT_RETENTION = Call(
    "logs",
    "PutRetentionPolicy",
    takes=frozenset({"retentionInDays"}),
    fixed=lambda draft: {"logGroupName": draft.at("name")},
)
# "Possible values are" of PutRetentionPolicy (the model has no enum for it); 0 is the provider's word for ever.
_RETENTION_DAYS: Final = (
    0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip


def _check_log_group(draft: Draft, world: World) -> None:
    days = draft.number("retentionInDays")
    if days is not None and days not in _RETENTION_DAYS:
        allowed = listed([str(known) for known in _RETENTION_DAYS])
        raise draft.refusal("retentionInDays", f"must be {allowed}", _PUT_RETENTION.cited)
    name = draft.text("name")
    if name is None:
        return
    if name.startswith("aws/"):
        raise draft.refusal("name", "must not begin with aws/", _CREATE_LOG_GROUP.cited)
    if world.find(tokens.LOG_GROUP, name) is not None:
        raise draft.refusal("name", "ResourceAlreadyExistsException: it exists already", _CREATE_LOG_GROUP.cited)
    for cluster in world.of(tokens.CLUSTER):
        if name == f"/aws/eks/{cluster.id}/cluster" and cluster.texts("enabledClusterLogTypes"):
            reason = (
                f"ResourceAlreadyExistsException: {cluster.resource} made it for its logs; create it before the cluster"
            )
            raise draft.refusal("name", reason, "EKS user guide, control plane logs")


def _log_group(draft: Draft, world: World, name: str) -> dict[str, object]:
    return {
        "arn": world.arn("logs", f"log-group:{name}"),
        "logGroupClass": draft.text("logGroupClass") or "STANDARD",
        "retentionInDays": draft.number("retentionInDays") or 0,
    }


# --- Flow logs -----------------------------------------------------------------------------------------------------

# Which property names what is watched -> how CreateFlowLogs calls its type.
_WATCHED: Final = {
    "vpcId": "VPC",
    "subnetId": "Subnet",
    "eniId": "NetworkInterface",
    "transitGatewayId": "TransitGateway",
    "transitGatewayAttachmentId": "TransitGatewayAttachment",
    "regionalNatGatewayId": "RegionalNatGateway",
}


def _watched(draft: Draft) -> dict[str, object]:
    field = next((name for name in _WATCHED if draft.given(name)), None)
    return {} if field is None else {"ResourceIds": [draft.at(field)], "ResourceType": _WATCHED[field]}


_CREATE_FLOW_LOGS = Call(
    "ec2",
    "CreateFlowLogs",
    renames={"iamRoleArn": "DeliverLogsPermissionArn", "tags": tag_specifications("vpc-flow-log")},
    fixed=_watched,
)


def _check_flow_log(draft: Draft, world: World) -> None:
    given = [name for name in _WATCHED if draft.given(name)]
    to_blame = draft.not_one_of(list(_WATCHED))
    if to_blame is not None:
        reason = f"a flow log watches exactly one of {listed(_WATCHED)}; given are {' and '.join(given) or 'none'}"
        raise draft.refusal(to_blame, reason, _CREATE_FLOW_LOGS.cited)
    world.reference(draft, "vpcId", tokens.VPC)
    world.reference(draft, "subnetId", tokens.SUBNET)
    if draft.number("maxAggregationInterval") not in {None, 60, 600}:
        raise draft.refusal("maxAggregationInterval", "must be 60 or 600 seconds", _CREATE_FLOW_LOGS.cited)
    if draft.absent("trafficType") and given[0] in {"vpcId", "subnetId", "eniId"}:
        raise draft.refusal("trafficType", f"required for {_WATCHED[given[0]]}", _CREATE_FLOW_LOGS.cited)
    if draft.text("logDestinationType") in {None, "cloud-watch-logs"} and not draft.unknown("logDestinationType"):
        _check_delivery(draft, world)


def _check_delivery(draft: Draft, world: World) -> None:
    if draft.absent("iamRoleArn"):
        raise draft.refusal("iamRoleArn", "required where the destination is a log group", _CREATE_FLOW_LOGS.cited)
    destination = draft.text("logDestination")
    if destination is not None and not destination.startswith("arn:aws:logs:"):
        raise draft.refusal("logDestination", "must be the ARN of a log group", _CREATE_FLOW_LOGS.cited)
    world.reference(draft, "logDestination", tokens.LOG_GROUP, "arn")
    role = world.reference(draft, "iamRoleArn", tokens.ROLE, "arn")
    if role is not None:
        source = "VPC user guide, flow logs to CloudWatch Logs"
        check_trust(draft, "iamRoleArn", role, "vpc-flow-logs.amazonaws.com", ["sts:AssumeRole"], source=source)


def _flow_log(draft: Draft, world: World, flow_log_id: str) -> dict[str, object]:
    return {
        "arn": world.arn("ec2", f"vpc-flow-log/{flow_log_id}"),
        "logDestinationType": draft.text("logDestinationType") or "cloud-watch-logs",
        "maxAggregationInterval": draft.number("maxAggregationInterval") or 600,
        "logFormat": draft.text("logFormat") or "",
    }


KINDS = (
    Kind(
        tokens.KEY,
        (_CREATE_KEY, _ENABLE_ROTATION, _SCHEDULE_DELETION),
        _key_id,
        _key,
        Ending("kms", "ScheduleKeyDeletion"),
        rules=(_check_key,),
        local=frozenset({"enableKeyRotation", "isEnabled"}),
    ),
    Kind(
        tokens.ALIAS,
        (_CREATE_ALIAS,),
        lambda draft, _world: draft.text("name") or "",
        _alias,
        Ending("kms", "DeleteAlias"),
        rules=(_check_alias,),
        local=frozenset({"namePrefix"}),
        naming=Naming(before="alias/"),
    ),
    Kind(
        tokens.LOG_GROUP,
        (_CREATE_LOG_GROUP, _PUT_RETENTION),
        lambda draft, _world: draft.text("name") or "",
        _log_group,
        Ending("logs", "DeleteLogGroup"),
        rules=(_check_log_group,),
        local=frozenset({"namePrefix", "skipDestroy"}),
        naming=Naming(),
    ),
    Kind(
        tokens.FLOW_LOG,
        (_CREATE_FLOW_LOGS,),
        with_id("fl"),
        _flow_log,
        Ending("ec2", "DeleteFlowLogs"),
        rules=(_check_flow_log,),
        # What is watched goes into ResourceIds and ResourceType.
        local=frozenset(_WATCHED),
    ),
)
