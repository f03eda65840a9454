"""Placement groups: how close to each other EC2 puts machines."""

from __future__ import annotations

from typing import Final

from rehearsal.aws import tokens
from rehearsal.aws.draft import Draft
from rehearsal.aws.kind import Ending, Kind, Naming
from rehearsal.aws.request import Call, tag_specifications
from rehearsal.aws.world import World

_CREATE = Call(
    "ec2", "CreatePlacementGroup", renames={"name": "GroupName", "tags": tag_specifications("placement-group")}
)
# Property -> the only strategy that has it.
_ONLY_WITH: Final = {"partitionCount": "partition", "spreadLevel": "spread"}
_MOST_PARTITIONS: Final = 7


def _check(draft: Draft, world: World) -> None:
    strategy = draft.text("strategy")
    for field, needed in _ONLY_WITH.items():
        if draft.given(field) and strategy is not None and strategy != needed:
            raise draft.refusal(field, f"only with the strategy {needed}, not with {strategy}", _CREATE.cited)
    partitions = draft.number("partitionCount")
    if partitions is not None and not 1 <= partitions <= _MOST_PARTITIONS:
        raise draft.refusal("partitionCount", f"must be from 1 to {_MOST_PARTITIONS}", _CREATE.cited)
    twin = world.find(tokens.PLACEMENT_GROUP, draft.text("name") or "")
    if twin is not None:
        raise draft.refusal(
            "name", f"InvalidPlacementGroup.Duplicate: it is the name of {twin.resource}", _CREATE.cited
        )


def _computed(draft: Draft, world: World, name: str) -> dict[str, object]:
    return {
        "arn": world.arn("ec2", f"placement-group/{name}"),
        "placementGroupId": f"pg-0{world.made_up(draft, 'id', 16)}",
    }


KINDS = (
    Kind(
        tokens.PLACEMENT_GROUP,
        (_CREATE,),
        # The provider's id of a placement group is its name.
        lambda draft, _world: draft.text("name") or "",
        _computed,
        Ending("ec2", "DeletePlacementGroup", "InvalidPlacementGroup.InUse: machines are in it"),
        rules=(_check,),
        naming=Naming(prefix=""),
    ),
)
