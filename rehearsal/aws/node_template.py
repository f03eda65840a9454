"""What EKS refuses when a node group uses a launch template (EKS user guide, nodes/launch-templates)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rehearsal.aws import tokens
from rehearsal.aws.draft import Draft, joined
from rehearsal.aws.interfaces import check_interfaces
from rehearsal.aws.launch_template import PREFERENCE, TARGET_GROUP, TARGET_ID
from rehearsal.aws.machines import Machine
from rehearsal.aws.security_groups import security_group
from rehearsal.aws.user_data import check_is_mime
from rehearsal.aws.world import BlockState, Record, World

GUIDE: Final = "EKS user guide, nodes/launch-templates"
_CAPACITY_BLOCKS: Final = "EKS user guide, ml/capacity-blocks-mng"
_NODE_GROUPS: Final = "EKS user guide, ml/ml-node-groups"
_MARKET: Final = "instanceMarketOptions.marketType"

# property of the template -> what to do instead
_FORBIDDEN: Final = {
    "iamInstanceProfile": "EKS makes the instance profile from the node group's nodeRoleArn",
    "instanceInitiatedShutdownBehavior": "EKS sets the shutdown behaviour",
    "hibernationOptions": "EKS sets the hibernation behaviour",
}
_NOT_WITH_TEMPLATE: Final = {
    "diskSize": "set blockDeviceMappings in the launch template",
    "remoteAccess": "set keyName and security groups in the launch template",
}
_NOT_WITH_CUSTOM_IMAGE: Final = ("releaseVersion", "version")


def template_of(draft: Draft, world: World) -> Record | None:
    """Return the launch template of a node group, None if it has none or that is not known."""
    if not draft.given("launchTemplate") or draft.preview:
        return None
    if draft.given("launchTemplate.id") == draft.given("launchTemplate.name"):
        raise draft.refusal("launchTemplate.id", "give either the id or the name of the template", GUIDE)
    field = "launchTemplate.id" if draft.given("launchTemplate.id") else "launchTemplate.name"
    record = world.reference(draft, field, tokens.LAUNCH_TEMPLATE, field.rpartition(".")[2])
    version = draft.text("launchTemplate.version") or str(draft.number("launchTemplate.version") or "")
    # A template of a rehearsal was created once: it has one version.
    if record is not None and version not in {"", "1", "$Latest", "$Default"}:
        reason = f"InvalidLaunchTemplateId.VersionNotFound: the latest version of {record.resource} is 1"
        raise draft.refusal("launchTemplate.version", reason, "EC2 error code")
    return record


def check_template(draft: Draft, world: World, template: Record, cluster: Record) -> None:
    """Refuse a template that EKS does not take for a node group, or that does not go with the group's own properties."""
    for field, instead in _NOT_WITH_TEMPLATE.items():
        if draft.given(field):
            raise draft.refusal(field, f"not together with a launch template: {instead}", GUIDE)
    _check_forbidden(template.draft())
    _check_one_instance_type(draft, template)
    _check_image(draft, template)
    _check_metadata(template.draft())
    _check_security_groups(template.draft(), world, cluster)
    if not template.text("imageId"):
        check_is_mime(template.draft())


def _check_forbidden(template: Draft) -> None:
    for field, instead in _FORBIDDEN.items():
        if template.given(field):
            raise template.refusal(field, f"not in the launch template of a node group: {instead}", GUIDE)
    for index, _ in enumerate(template.items("networkInterfaces")):
        field = f"networkInterfaces[{index}].subnetId"
        if template.given(field):
            raise template.refusal(field, "not in the launch template of a node group: the group has subnetIds", GUIDE)


def _check_one_instance_type(draft: Draft, template: Record) -> None:
    if template.text("instanceType") and draft.given("instanceTypes"):
        reason = f"{template.resource} has instanceType {template.text('instanceType')}: give it in one of the two, never in both"
        raise draft.refusal("instanceTypes", reason, GUIDE)


def _check_image(draft: Draft, template: Record) -> None:
    if not template.text("imageId"):
        if draft.text("amiType") == "CUSTOM":
            raise draft.refusal("amiType", f"{template.resource} has no imageId, which CUSTOM needs", GUIDE)
        return
    if draft.text("amiType") not in {None, "CUSTOM"}:
        raise draft.refusal("amiType", f"{template.resource} has an imageId: leave amiType out", GUIDE)
    for field in _NOT_WITH_CUSTOM_IMAGE:
        if draft.given(field):
            raise draft.refusal(field, f"{template.resource} has an imageId: leave {field} out", GUIDE)


def _check_metadata(template: Draft) -> None:
    if template.text("metadataOptions.httpTokens") == "optional":
        reason = "must be required: a node that answers IMDSv1 hands its role to every pod"
        raise template.refusal("metadataOptions.httpTokens", reason, GUIDE)


def _check_security_groups(template: Draft, world: World, cluster: Record) -> None:
    """Refuse groups without the cluster's own: once any group is given, EKS no longer adds it, and no node joins."""
    own = cluster.text("vpcConfig.clusterSecurityGroupId")
    for field in security_group_fields(template):
        if field != "vpcSecurityGroupIds" and not template.items(field):
            raise template.refusal(field, "every network interface of a node needs security groups", GUIDE)
        groups = [security_group(template, world, f"{field}[{index}]") for index, _ in enumerate(template.items(field))]
        if own not in groups:
            reason = (
                f"must contain {own}, the cluster's own group (vpcConfig.clusterSecurityGroupId of {cluster.resource})"
            )
            raise template.refusal(field, f"{reason}: EKS adds it only where no group is given", GUIDE)


def security_group_fields(template: Draft) -> list[str]:
    """Return where a template's security groups are: at each interface, or at the top."""
    interfaces = template.items("networkInterfaces")
    if interfaces:
        return [joined(f"networkInterfaces[{index}]", "securityGroups") for index, _ in enumerate(interfaces)]
    return ["vpcSecurityGroupIds"] if template.given("vpcSecurityGroupIds") else []


def check_machine(template: Record, kind: Machine) -> None:
    """Refuse interfaces that the instance type cannot have, where only the node group names the type."""
    check_interfaces(template.draft(), kind)


# --- Capacity ------------------------------------------------------------------------------------------------------


def check_capacity(draft: Draft, world: World, template: Record | None, kind: Machine, zones: list[str]) -> None:
    """Refuse a purchase option of which the group and the template tell different stories."""
    market = template.text(_MARKET) if template else ""
    if draft.text("capacityType") == "CAPACITY_BLOCK" or market == "capacity-block":
        _check_capacity_block(draft, template, kind, zones)
        check_block_gives_machines(draft, world, template)
        return
    if template is None:
        return
    if market and market != "on-demand":
        reason = (
            "the market type (purchasing) option is not valid for a node group: set capacityType on the group, or "
            "capacity-block for a Capacity Block"
        )
        raise template.draft().refusal(_MARKET, reason, _CAPACITY_BLOCKS)
    reserved = next((field for field in (TARGET_ID, TARGET_GROUP) if template.text(field)), None)
    if template.text(PREFERENCE) == "capacity-reservations-only":
        reserved = PREFERENCE
    if reserved is not None and draft.text("capacityType") not in {None, "ON_DEMAND"}:
        reason = f"must be ON_DEMAND: {template.resource} uses an on-demand capacity reservation ({reserved})"
        raise draft.refusal("capacityType", reason, "EKS user guide, ml/ml-node-groups")


def _check_capacity_block(draft: Draft, template: Record | None, kind: Machine, zones: list[str]) -> None:
    invalid = "market type (purchasing) option is not valid"
    needs = "a Capacity Block takes three settings together"
    if template is None:
        reason = f"{needs}; the group has no launch template for {_MARKET} and capacityReservationTarget"
        raise draft.refusal("launchTemplate", reason, _CAPACITY_BLOCKS)
    of_template = template.draft()
    if draft.text("capacityType") != "CAPACITY_BLOCK":
        reason = f"{invalid}: {needs}; {template.resource} has {_MARKET} capacity-block, so capacityType must be CAPACITY_BLOCK"
        raise draft.refusal("capacityType", reason, _CAPACITY_BLOCKS)
    if template.text(_MARKET) != "capacity-block":
        reason = f"{invalid}: {needs}; {draft.resource} has capacityType CAPACITY_BLOCK, so it must be capacity-block"
        raise of_template.refusal(_MARKET, reason, _CAPACITY_BLOCKS)
    if not template.text(TARGET_ID):
        reason = f"{needs}; it must be the id of the block, cr-…"
        raise of_template.refusal(TARGET_ID, reason, _CAPACITY_BLOCKS)
    if not template.text("instanceType"):
        raise of_template.refusal(
            "instanceType", "a Capacity Block needs the instance type in the template", _CAPACITY_BLOCKS
        )
    if kind.gpus == 0:
        raise of_template.refusal(
            "instanceType", "Capacity Blocks are for GPU instance types", "EC2 user guide, capacity-blocks"
        )
    if len(zones) > 1:
        reason = f"only the subnet in the block's zone may be given; these are in {' and '.join(zones)}"
        raise draft.refusal("subnetIds", reason, _CAPACITY_BLOCKS)


_NO_MACHINES: Final[Mapping[BlockState, str]] = {
    "scheduled": "has not started",
    "expired": "has ended",
}


def check_block_gives_machines(draft: Draft, world: World, template: Record | None) -> None:
    """Refuse machines of a Capacity Block outside of its time.

    EKS itself takes the request; then the group's Auto Scaling group reports launch errors, and no node comes.
    """
    block = template.text(TARGET_ID) if template else ""
    state = world.capacity_blocks.get(block, "active")
    if state in _NO_MACHINES and draft.number("scalingConfig.desiredSize"):
        reason = (
            f"must be 0: Capacity Block {block} {_NO_MACHINES[state]} (state {state}), and the group's Auto Scaling group would "
            "report nothing but launch errors"
        )
        raise draft.refusal("scalingConfig.desiredSize", reason, _NODE_GROUPS)
