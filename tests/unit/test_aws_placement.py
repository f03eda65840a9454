"""Placement groups: what EC2 refuses, and who needs one."""

from __future__ import annotations

import pytest
from aws_account import PLACEMENT, TEMPLATE, Case, account, in_words, resource

from rehearsal.aws import AwsRefusal

_REFUSED = (
    Case(
        "strategy",
        PLACEMENT,
        {"strategy": "close"},
        "aws:ec2/placementGroup:PlacementGroup::gpu: strategy: 'close': must be cluster, spread, partition or "
        "precision-time; did you mean cluster? (EC2 CreatePlacementGroup, <botocore>)",
    ),
    Case(
        "partitions of a cluster",
        PLACEMENT,
        {"partitionCount": 2},
        "aws:ec2/placementGroup:PlacementGroup::gpu: partitionCount: 2: only with the strategy partition, not with cluster "
        "(EC2 CreatePlacementGroup, <botocore>)",
    ),
    Case(
        "too many partitions",
        PLACEMENT,
        {"strategy": "partition", "partitionCount": 8},
        "aws:ec2/placementGroup:PlacementGroup::gpu: partitionCount: 8: must be from 1 to 7 "
        "(EC2 CreatePlacementGroup, <botocore>)",
    ),
    Case(
        "no such group",
        TEMPLATE,
        {"placement": {"groupName": "elsewhere"}},
        "aws:ec2/launchTemplate:LaunchTemplate::gpu: placement.groupName: 'elsewhere': InvalidPlacementGroup.Unknown: there is "
        "no such PlacementGroup in the rehearsed account yet; take the value from the resource's output, so that it is created "
        "first (AWS error code, region us-east-2)",
    ),
)


@pytest.mark.parametrize("case", _REFUSED, ids=lambda case: case.name)
def test_refused(case: Case) -> None:
    with pytest.raises(AwsRefusal) as refused:
        case.create()
    assert in_words(str(refused.value)) == case.message


def test_a_name_is_used_once() -> None:
    stand_in, row = account(), resource(*PLACEMENT)
    with pytest.raises(AwsRefusal) as refused:
        stand_in.create(row.token, "other", {**row.inputs, "name": row.id}, preview=False)
    assert in_words(str(refused.value)) == (
        "aws:ec2/placementGroup:PlacementGroup::other: name: '<PlacementGroup gpu>': InvalidPlacementGroup.Duplicate: it is the "
        "name of aws:ec2/placementGroup:PlacementGroup::gpu (EC2 CreatePlacementGroup, <botocore>)"
    )


def test_a_group_outlives_the_machines_in_it() -> None:
    row = resource(*PLACEMENT)
    stand_in = account(changes={TEMPLATE: {"placement": {"groupName": row.id}}})
    with pytest.raises(AwsRefusal) as refused:
        stand_in.delete(row.token, str(row.id))
    assert in_words(str(refused.value)) == (
        "aws:ec2/placementGroup:PlacementGroup::gpu: id: '<PlacementGroup gpu>': InvalidPlacementGroup.InUse: machines are in "
        "it; delete aws:eks/nodeGroup:NodeGroup::gpu (glm:<name of NodeGroup gpu>) first (EC2 DeletePlacementGroup, <botocore>)"
    )
    account().delete(row.token, str(row.id))  # nothing is in it there
