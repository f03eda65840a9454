"""Phases of a Capacity Block: what the plan makes of each, what people get to read, and what stands in for AWS refuses."""

from __future__ import annotations

from typing import get_args

import pytest
from aws_account import GPU_NODES, REGION, RESERVATION, recorded, resource

from rehearsal.aws import AwsRefusal, AwsStandIn
from rehearsal.aws.world import BlockState
from rehearsal.run import capacity_blocks
from serving.capacity_block import phase_notes
from serving.plan import Plan
from serving.report import as_json, as_markdown, rollout
from tests.fixtures.stacks import plan

BLOCK = "Capacity Block cr-0123456789abcdef0"
STARTS, ENDS = 'startsAt="2026-12-01T11:30:00Z"', 'endsAt="2026-12-08T11:30:00Z"'
SET = "pulumi config set --path 'glm-on-gpus:nodePools.b200.capacity.phase'"
OVER = (
    f"When it is over: {SET} ended and pulumi up, which takes the replicas back; until then an update may ask for "
    "machines that nobody has any more"
)
GO_ON = (
    "no machine and no replica runs. To go on, buy another block, set nodePools.b200.capacity.reservationId, startsAt and endsAt "
    "to its own and phase to scheduled, and pulumi up"
)


def prod(*settings: str) -> Plan:
    return plan("prod", *(f"nodePools.b200.capacity.{setting}" for setting in settings))


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        (
            ("phase=scheduled", STARTS),
            f"{BLOCK} starts at 2026-12-01 11:30 UTC; no machine and no replica runs before. Once it has started: {SET} "
            "active and pulumi up, which asks EKS for 2 machines and starts the replicas on them",
        ),
        (
            ("phase=active", STARTS, ENDS),
            f"{BLOCK} ends at 2026-12-08 11:30 UTC: EKS drains its machines from 2026-12-08 10:50 UTC, EC2 ends what is left "
            f"from 2026-12-08 11:00 UTC on. {OVER}",
        ),
        (
            (),
            f"{BLOCK} is active; set endsAt to be told until when: EKS drains its machines from 40 minutes before its end on, "
            f"EC2 ends what is left from 30 minutes before. {OVER}",
        ),
        (("phase=ended", ENDS), f"{BLOCK} ended at 2026-12-08 11:30 UTC; {GO_ON}"),
        (("phase=ended",), f"{BLOCK} has ended; {GO_ON}"),
    ],
)
def test_what_people_read(settings: tuple[str, ...], note: str) -> None:
    found = prod(*settings)
    assert list(phase_notes(found)) == [f"nodePools.b200: {note}"]
    assert f"\nnodePools.b200: {note}\n" in as_markdown(found)


def test_a_time_in_another_zone_is_shown_in_utc() -> None:
    (note,) = phase_notes(prod("phase=scheduled", 'startsAt="2026-12-01T13:00:00+01:30"'))
    assert "starts at 2026-12-01 11:30 UTC;" in note


def test_machines_on_demand_have_no_phase() -> None:
    assert list(phase_notes(plan("dev"))) == []
    assert as_json(plan("dev"))["nodePools"]["h200"]["capacityBlock"] is None


@pytest.mark.parametrize(
    ("phase", "running", "machines", "price"),
    [
        (
            "scheduled",
            0,
            "0 of 2 x p6-b200.48xlarge (8xB200)",
            "no machine runs now, but a Capacity Block is paid up front",
        ),
        ("active", 2, "2 x p6-b200.48xlarge (8xB200)", "a Capacity Block is paid up front"),
        (
            "ended",
            0,
            "0 of 2 x p6-b200.48xlarge (8xB200)",
            "no machine runs now, but a Capacity Block is paid up front",
        ),
    ],
)
def test_what_runs_and_what_it_costs(phase: str, running: int, machines: str, price: str) -> None:
    found = prod(f"phase={phase}", STARTS)
    pool, workload = found.node_pools["b200"], found.workloads["glm"]
    assert (pool.nodes, pool.desired_nodes, workload.replicas) == (2, running, running)
    assert found.cost.hourly_usd == pytest.approx(running * 113.9328)
    assert pool.cost.note.endswith(f"; {price} at its own market price")
    assert f"| b200 | {machines} | capacityBlock, {phase} |" in as_markdown(found)
    assert ("there is none to replace" in rollout(workload)) is (running == 0)
    # Everything else is the same: nothing but the sizes changes when the block starts.
    assert (workload.command, workload.env, workload.timing) == (
        prod().workloads["glm"].command,
        prod().workloads["glm"].env,
        prod().workloads["glm"].timing,
    )


# --- the stand-in of AWS --------------------------------------------------------------------------------------------


def account_with(state: BlockState) -> AwsStandIn:
    return AwsStandIn(REGION, capacity_blocks={RESERVATION: state})


def create(stand_in: AwsStandIn, desired: int) -> None:
    """Create the recorded account with a number of machines in its Capacity Block."""
    for row in recorded():
        sizes = {"scalingConfig": {"minSize": 0, "desiredSize": desired, "maxSize": 2}}
        inputs = row.inputs | sizes if row == resource(*GPU_NODES) else row.inputs
        stand_in.create(row.token, row.name, inputs, preview=False)


def scale(stand_in: AwsStandIn, desired: int, most: int = 2, *, preview: bool = False) -> None:
    row = resource(*GPU_NODES)
    inputs = row.inputs | {"scalingConfig": {"minSize": 0, "desiredSize": desired, "maxSize": most}}
    stand_in.update(row.token, str(row.id), inputs, preview=preview)


def size(stand_in: AwsStandIn) -> int:
    return next(group.desired_size for group in stand_in.node_groups if group.capacity_type == "CAPACITY_BLOCK")


REFUSED = (
    f"aws:eks/nodeGroup:NodeGroup::gpu: scalingConfig.desiredSize: 2: must be 0: Capacity Block {RESERVATION} %s, and the "
    "group's Auto Scaling group would report nothing but launch errors (EKS user guide, ml/ml-node-groups)"
)
NOT_STARTED, OVER_NOW = "has not started (state scheduled)", "has ended (state expired)"


@pytest.mark.parametrize(("state", "why"), [("scheduled", NOT_STARTED), ("expired", OVER_NOW)])
def test_a_block_gives_no_machine_outside_of_its_time(state: BlockState, why: str) -> None:
    with pytest.raises(AwsRefusal) as refused:
        create(account_with(state), 2)
    assert str(refused.value) == REFUSED % why
    stand_in = account_with(state)
    create(stand_in, 0)
    for preview in (True, False):
        with pytest.raises(AwsRefusal) as refused:
            scale(stand_in, 2, preview=preview)
        assert str(refused.value) == REFUSED % why
    assert size(stand_in) == 0


def test_a_node_group_is_scaled_once_its_block_has_started() -> None:
    stand_in = account_with("scheduled")
    create(stand_in, 0)
    stand_in.tell_capacity_blocks({RESERVATION: "active"})
    scale(stand_in, 2, preview=True)
    assert size(stand_in) == 0
    scale(stand_in, 2)
    assert size(stand_in) == 2
    with pytest.raises(AwsRefusal, match=r"scalingConfig\.desiredSize: 3: must not be above maxSize 2"):
        scale(stand_in, 3)
    with pytest.raises(AwsRefusal, match=r"UpdateNodegroupConfig"):
        scale(stand_in, 2, most=0)


def test_nothing_else_is_changed_in_place() -> None:
    stand_in = account_with("active")
    create(stand_in, 2)
    row = resource(*GPU_NODES)
    with pytest.raises(AwsRefusal) as refused:
        stand_in.update(row.token, str(row.id), row.inputs | {"releaseVersion": "1.36.3-20260801"}, preview=False)
    assert str(refused.value) == (
        "aws:eks/nodeGroup:NodeGroup::gpu: releaseVersion: '1.36.3-20260801': how AWS changes this in place is not rehearsed "
        "(rehearsal/aws)"
    )


@pytest.mark.parametrize(("phase", "state"), [("scheduled", "scheduled"), ("active", "active"), ("ended", "expired")])
def test_the_rehearsed_account_is_told_the_phases(phase: str, state: str) -> None:
    assert capacity_blocks(prod(f"phase={phase}", STARTS)) == {RESERVATION: state}
    assert state in get_args(BlockState)
    assert capacity_blocks(plan("dev")) == {}
