"""Launch templates: what EC2 itself refuses. What EKS refuses when a node group uses one is in `node_template`."""

from __future__ import annotations

import re
from typing import Final

from rehearsal.aws import tokens
from rehearsal.aws.draft import Draft
from rehearsal.aws.interfaces import check_interfaces, check_types
from rehearsal.aws.kind import Ending, Kind, Naming, with_id
from rehearsal.aws.machines import machine
from rehearsal.aws.request import Call, tag_specifications
from rehearsal.aws.user_data import check_user_data
from rehearsal.aws.world import World
from serving.spelling import listed

_CREATE = Call(
    "ec2",
    "CreateLaunchTemplate",
    into="LaunchTemplateData",
    renames={
        "name": "LaunchTemplateName",
        "description": "VersionDescription",
        "vpcSecurityGroupIds": "LaunchTemplateData.SecurityGroupIds",
        "securityGroupNames": "LaunchTemplateData.SecurityGroups",
        "tags": tag_specifications("launch-template"),
    },
)

TARGET_ID: Final = "capacityReservationSpecification.capacityReservationTarget.capacityReservationId"
TARGET_GROUP: Final = "capacityReservationSpecification.capacityReservationTarget.capacityReservationResourceGroupArn"
PREFERENCE: Final = "capacityReservationSpecification.capacityReservationPreference"

# Supported values of LaunchTemplateEbsBlockDeviceRequest: volume type -> GiB, IOPS (None: not to be given).
_VOLUME_SIZES: Final = {
    "gp2": (1, 16_384),
    "gp3": (1, 65_536),
    "io1": (4, 16_384),
    "io2": (4, 65_536),
    "st1": (125, 16_384),
    "sc1": (125, 16_384),
    "standard": (1, 1024),
}
_VOLUME_IOPS: Final = {"gp3": (3_000, 80_000), "io1": (100, 64_000), "io2": (100, 256_000)}
_GP3_THROUGHPUT: Final = (125, 2_000)


def _check_security_groups(draft: Draft, _world: World) -> None:
    for field in ("vpcSecurityGroupIds", "securityGroupNames"):
        if draft.given(field) and draft.given("networkInterfaces"):
            reason = "with networkInterfaces, security groups go into each interface (securityGroups) and not here"
            raise draft.refusal(field, reason, f"{_CREATE.cited}; EKS user guide, nodes/launch-templates")


def _check_choices(draft: Draft, _world: World) -> None:
    if draft.given("instanceType") and draft.given("instanceRequirements"):
        raise draft.refusal("instanceRequirements", "not together with instanceType", _CREATE.cited)
    hops = draft.number("metadataOptions.httpPutResponseHopLimit")
    if hops is not None and not 1 <= hops <= 64:
        raise draft.refusal("metadataOptions.httpPutResponseHopLimit", "must be from 1 to 64", _CREATE.cited)


def _check_capacity_reservation(draft: Draft, _world: World) -> None:
    target = "capacityReservationSpecification.capacityReservationTarget"
    if draft.given(PREFERENCE) and draft.given(target):
        raise draft.refusal(PREFERENCE, "give either a preference or a target, not both", _CREATE.cited)
    if draft.given(TARGET_ID) and draft.given(TARGET_GROUP):
        raise draft.refusal(TARGET_GROUP, "give either a reservation or a resource group, not both", _CREATE.cited)
    reservation = draft.text(TARGET_ID)
    if reservation is not None and not re.fullmatch(r"cr-[0-9a-f]{8,17}", reservation):
        raise draft.refusal(
            TARGET_ID, "must be the id of a capacity reservation: cr- and hexadecimal digits", _CREATE.cited
        )
    group = draft.text(TARGET_GROUP)
    if group is not None and not group.startswith("arn:aws:resource-groups:"):
        raise draft.refusal(TARGET_GROUP, "must be an ARN, arn:aws:resource-groups:…", _CREATE.cited)


def _check_volumes(draft: Draft, _world: World) -> None:
    for index, _ in enumerate(draft.items("blockDeviceMappings")):
        path = f"blockDeviceMappings[{index}].ebs"
        if draft.given(path):
            _check_volume(draft, path)


def _check_volume(draft: Draft, path: str) -> None:
    kind = draft.text(f"{path}.volumeType")
    if kind is None:
        return
    _check_range(draft, f"{path}.volumeSize", _VOLUME_SIZES[kind], f"GiB for {kind}")
    if draft.given(f"{path}.iops") and kind not in _VOLUME_IOPS:
        raise draft.refusal(f"{path}.iops", f"only for {listed(_VOLUME_IOPS)}, not for {kind}", _CREATE.cited)
    _check_range(draft, f"{path}.iops", _VOLUME_IOPS.get(kind, (0, 0)), f"for {kind}")
    if draft.given(f"{path}.throughput") and kind != "gp3":
        raise draft.refusal(f"{path}.throughput", f"only for gp3, not for {kind}", _CREATE.cited)
    _check_range(draft, f"{path}.throughput", _GP3_THROUGHPUT, "MiB/s")


def _check_range(draft: Draft, field: str, bounds: tuple[int, int], unit: str) -> None:
    value = draft.number(field)
    if value is not None and not bounds[0] <= value <= bounds[1]:
        raise draft.refusal(field, f"must be from {bounds[0]:,} to {bounds[1]:,} {unit}", _CREATE.cited)


def _check_placement(draft: Draft, world: World) -> None:
    world.reference(draft, "placement.groupName", tokens.PLACEMENT_GROUP)


def _check_layout(draft: Draft, _world: World) -> None:
    check_types(draft)
    name = draft.text("instanceType")
    if name is not None and draft.given("networkInterfaces"):
        check_interfaces(draft, machine(draft, "instanceType", name))


def _check_name(draft: Draft, world: World) -> None:
    twin = world.with_output(tokens.LAUNCH_TEMPLATE, "name", draft.text("name") or "")
    if twin is not None:
        reason = f"InvalidLaunchTemplateName.AlreadyExistsException: it is the name of {twin.resource}"
        raise draft.refusal("name", reason, _CREATE.cited)


def _launch_template(_draft: Draft, world: World, template_id: str) -> dict[str, object]:
    return {"arn": world.arn("ec2", f"launch-template/{template_id}"), "latestVersion": 1, "defaultVersion": 1}


KINDS = (
    Kind(
        tokens.LAUNCH_TEMPLATE,
        (_CREATE,),
        with_id("lt"),
        _launch_template,
        Ending("ec2", "DeleteLaunchTemplate"),
        rules=(
            _check_name,
            _check_security_groups,
            _check_choices,
            _check_capacity_reservation,
            _check_volumes,
            _check_placement,
            _check_layout,
            lambda draft, _world: check_user_data(draft),
        ),
        # The provider sets the default version by itself, with ModifyLaunchTemplate after later changes.
        local=frozenset({"namePrefix", "updateDefaultVersion", "defaultVersion"}),
        naming=Naming(),
    ),
)
