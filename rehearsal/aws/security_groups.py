"""Security groups and their rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from rehearsal.aws import cidr, tokens
from rehearsal.aws.draft import Draft, as_list, as_table, joined
from rehearsal.aws.kind import Ending, Kind, Naming, Target, with_id
from rehearsal.aws.request import Call, Send, tag_specifications
from rehearsal.aws.world import Record, World
from serving.spelling import listed

Direction = Literal["ingress", "egress"]
# Direction, group, protocol, first and last port, and the other side.
RuleKey = tuple[str, str, str, int, int, str]

_IN_USE = "DependencyViolation: it has a dependent object"
# The model has no pattern for them: "Valid characters: a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*", up to 255.
_ALLOWED_TEXT: Final = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}")
# AWS treats protocol names and numbers as the same (EC2 IpPermission).
_PROTOCOL_NAMES: Final = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}

_PEERS: Final = ("cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId")


def _permission(table: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    return {member: table[name] for member, name in names.items() if name in table}


# --- Groups --------------------------------------------------------------------------------------------------------


def _inline_permissions(rules: object) -> object:
    """Return a group's inline rules as IpPermissions."""
    return [_inline_permission(as_table(rule)) for rule in as_list(rules)]


def _inline_permission(rule: Mapping[str, object]) -> dict[str, object]:
    permission = _permission(rule, {"IpProtocol": "protocol", "FromPort": "fromPort", "ToPort": "toPort"})
    for member, key, name in (
        ("IpRanges", "CidrIp", "cidrBlocks"),
        ("Ipv6Ranges", "CidrIpv6", "ipv6CidrBlocks"),
        ("PrefixListIds", "PrefixListId", "prefixListIds"),
        ("UserIdGroupPairs", "GroupId", "securityGroups"),
    ):
        if as_list(rule.get(name)):
            permission[member] = [{key: other} for other in as_list(rule.get(name))]
    return permission


_CREATE_GROUP = Call(
    "ec2", "CreateSecurityGroup", renames={"name": "GroupName", "tags": tag_specifications("security-group")}
)
_INLINE_INGRESS = Call(
    "ec2",
    "AuthorizeSecurityGroupIngress",
    renames={"ingress": Send("IpPermissions", _inline_permissions)},
    takes=frozenset({"ingress"}),
    subject="GroupId",
)
_INLINE_EGRESS = Call(
    "ec2",
    "AuthorizeSecurityGroupEgress",
    renames={"egress": Send("IpPermissions", _inline_permissions)},
    takes=frozenset({"egress"}),
    subject="GroupId",
)


def _check_group(draft: Draft, world: World) -> None:
    vpc = world.reference(draft, "vpcId", tokens.VPC)
    if draft.absent("vpcId"):
        raise draft.refusal("vpcId", "required: the rehearsed account has no default VPC", _CREATE_GROUP.cited)
    name = draft.text("name")
    for field in ("name", "description"):
        text = draft.text(field)
        if text is not None and not _ALLOWED_TEXT.fullmatch(text):
            reason = "allowed are 1 to 255 of a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*"
            raise draft.refusal(field, reason, _CREATE_GROUP.cited)
    if name is not None and name.startswith("sg-"):
        raise draft.refusal("name", "must not begin with sg-", _CREATE_GROUP.cited)
    for direction in ("ingress", "egress"):
        for index, _ in enumerate(draft.items(direction)):
            _check_inline_rule(draft, f"{direction}[{index}]")
    groups = [group for group in world.of(tokens.SECURITY_GROUP) if vpc is not None and group.text("vpcId") == vpc.id]
    twin = next((group for group in groups if group.text("name").casefold() == (name or "").casefold()), None)
    if twin is not None:
        reason = f"InvalidGroup.Duplicate: it is the name of {twin.resource} in the same VPC"
        raise draft.refusal("name", reason, _CREATE_GROUP.cited)


def _check_inline_rule(draft: Draft, path: str) -> None:
    for name in ("cidrBlocks", "ipv6CidrBlocks"):
        for index, _ in enumerate(draft.items(joined(path, name))):
            cidr.any_version(draft, f"{joined(path, name)}[{index}]")
    _check_ports(draft, path, "protocol")


def _group(_draft: Draft, world: World, group_id: str) -> dict[str, object]:
    return {"arn": world.arn("ec2", f"security-group/{group_id}"), "ownerId": world.account_id}


def _group_holds(record: Record, _world: World) -> Iterable[Target]:
    yield (tokens.VPC, record.text("vpcId"))


# --- Rules ---------------------------------------------------------------------------------------------------------


def _rule_permission(draft: Draft) -> dict[str, object]:
    """Return one rule as IpPermissions."""
    inputs = draft.inputs
    permission = _permission(inputs, {"IpProtocol": "ipProtocol", "FromPort": "fromPort", "ToPort": "toPort"})
    described = _permission(inputs, {"Description": "description"})
    for member, key, name in (
        ("IpRanges", "CidrIp", "cidrIpv4"),
        ("Ipv6Ranges", "CidrIpv6", "cidrIpv6"),
        ("PrefixListIds", "PrefixListId", "prefixListId"),
        ("UserIdGroupPairs", "GroupId", "referencedSecurityGroupId"),
    ):
        if name in inputs:
            permission[member] = [{key: inputs[name], **described}]
    return {"IpPermissions": [permission]}


def _authorize(operation: str) -> Call:
    return Call(
        "ec2",
        operation,
        renames={"securityGroupId": "GroupId", "tags": tag_specifications("security-group-rule")},
        fixed=_rule_permission,
    )


_TOKENS: Final[Mapping[Direction, str]] = {"ingress": tokens.INGRESS_RULE, "egress": tokens.EGRESS_RULE}
_AUTHORIZE: Final[Mapping[Direction, Call]] = {
    "ingress": _authorize("AuthorizeSecurityGroupIngress"),
    "egress": _authorize("AuthorizeSecurityGroupEgress"),
}


def _check_rule(draft: Draft, world: World, direction: Direction) -> None:
    call = _AUTHORIZE[direction]
    given = [name for name in _PEERS if draft.given(name)]
    to_blame = draft.not_one_of(_PEERS)
    if to_blame is not None:
        reason = f"a rule has exactly one of {listed(_PEERS)}; given are {' and '.join(given) or 'none'}"
        raise draft.refusal(to_blame, reason, call.cited)
    for name in _PEERS[:2]:
        cidr.any_version(draft, name)
    _check_ports(draft, "", "ipProtocol")
    group_id = security_group(draft, world, "securityGroupId")
    security_group(draft, world, "referencedSecurityGroupId")
    key = _key(direction, group_id or "", draft.inputs)
    twin = (
        next((name for name, known in _rules_of(world, group_id).items() if known == key), None) if group_id else None
    )
    if twin is not None:
        reason = f"InvalidPermission.Duplicate: the same rule is there already, from {twin}"
        raise draft.refusal(given[0], reason, call.cited)


def _check_ports(draft: Draft, path: str, protocol_name: str) -> None:
    """Refuse ports that do not go with the protocol (EC2 IpPermission, and the provider's note on `-1`)."""
    source = "EC2 IpPermission"
    protocol = draft.text(joined(path, protocol_name))
    protocol = _PROTOCOL_NAMES.get(protocol or "", protocol)
    first, last = joined(path, "fromPort"), joined(path, "toPort")
    if protocol == "-1" and (draft.number(first) or draft.number(last)):
        raise draft.refusal(first, "leave the ports out: protocol -1 means every port", source)
    if protocol in {"tcp", "udp", "icmp"}:
        for field in (first, last):
            if draft.absent(field):
                raise draft.refusal(field, f"required for protocol {protocol}", source)
    low, high = draft.number(first), draft.number(last)
    if protocol in {"tcp", "udp"} and low is not None and high is not None and not 0 <= low <= high <= 65535:
        raise draft.refusal(first, f"fromPort {low} to toPort {high} is no port range within 0 to 65535", source)


def _key(direction: Direction, group_id: str, rule: Mapping[str, object]) -> RuleKey:
    protocol = str(rule.get("ipProtocol"))
    protocol = _PROTOCOL_NAMES.get(protocol, protocol)
    ports = [rule.get(name) for name in ("fromPort", "toPort")]
    low, high = (port if isinstance(port, int) else -1 for port in ports)
    peer = next((str(rule[name]) for name in _PEERS if name in rule), "")
    return (direction, group_id, protocol, low, high, peer)


def _rules_of(world: World, group_id: str) -> dict[str, RuleKey]:
    """Return a group's rules by where they come from, with those that EKS gives a cluster's own group."""
    found: dict[str, RuleKey] = {}
    for cluster in world.of(tokens.CLUSTER):
        if cluster.text("vpcConfig.clusterSecurityGroupId") == group_id:
            # EKS user guide, security group requirements; the self-outbound rule exists from 1.33 on (for EFA).
            everything = ("-1", -1, -1)
            found[f"EKS (all from the group itself, {cluster.id})"] = ("ingress", group_id, *everything, group_id)
            found[f"EKS (all to the group itself, {cluster.id})"] = ("egress", group_id, *everything, group_id)
            found[f"EKS (all outbound, {cluster.id})"] = ("egress", group_id, *everything, "0.0.0.0/0")
    for direction, token in _TOKENS.items():
        for rule in world.of(token):
            if rule.text("securityGroupId") == group_id:
                found[rule.resource] = _key(direction, group_id, rule.inputs)
    return found


def _rule(draft: Draft, world: World, rule_id: str) -> dict[str, object]:
    return {
        "arn": world.arn("ec2", f"security-group-rule/{rule_id}"),
        "securityGroupRuleId": rule_id,
        **{name: draft.inputs[name] for name in ("fromPort", "toPort") if name in draft.inputs},
    }


def _rule_holds(record: Record, _world: World) -> Iterable[Target]:
    # "…is referenced by another security group in the same VPC" (EC2 DeleteSecurityGroup); its own rules go with a group.
    other = record.text("referencedSecurityGroupId")
    if other and other != record.text("securityGroupId"):
        yield (tokens.SECURITY_GROUP, other)


# --- For other resources -------------------------------------------------------------------------------------------


def security_group(draft: Draft, world: World, field: str) -> str | None:
    """Return the id of the security group that a property refers to, None where it is not known.

    Besides the program's own groups there are those that AWS makes: a VPC's default group and an EKS cluster's.
    """
    wanted = draft.text(field)
    made_by_aws = [cluster.text("vpcConfig.clusterSecurityGroupId") for cluster in world.of(tokens.CLUSTER)]
    made_by_aws += [vpc.text("defaultSecurityGroupId") for vpc in world.of(tokens.VPC)]
    if wanted is not None and wanted in made_by_aws:
        return wanted
    found = world.reference(draft, field, tokens.SECURITY_GROUP)
    return found.id if found is not None else None


def check_security_groups(draft: Draft, world: World, field: str) -> None:
    """Refuse a list of security groups of which one does not exist."""
    for index, _ in enumerate(draft.items(field)):
        security_group(draft, world, f"{field}[{index}]")


def _rule_kind(direction: Direction) -> Kind:
    return Kind(
        _TOKENS[direction],
        (_AUTHORIZE[direction],),
        with_id("sgr"),
        _rule,
        Ending("ec2", f"RevokeSecurityGroup{direction.title()}"),
        rules=(lambda draft, world: _check_rule(draft, world, direction),),
        # They are the parts of the one IpPermission.
        local=frozenset({*_PEERS, "ipProtocol", "fromPort", "toPort", "description"}),
        holds=_rule_holds,
    )


KINDS = (
    Kind(
        tokens.SECURITY_GROUP,
        (_CREATE_GROUP, _INLINE_INGRESS, _INLINE_EGRESS),
        with_id("sg"),
        _group,
        Ending("ec2", "DeleteSecurityGroup", _IN_USE),
        rules=(_check_group,),
        local=frozenset({"namePrefix", "revokeRulesOnDelete"}),
        naming=Naming(),
        defaults={"description": "Managed by Pulumi"},
        holds=_group_holds,
    ),
    _rule_kind("ingress"),
    _rule_kind("egress"),
)
