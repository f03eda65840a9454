"""What a Capacity Block's phase means, and what to do when it is over.

A program has no clock and asks AWS nothing, so that the phase is a setting, and everybody who runs the program gets to hear when
to change it. EKS user guide, ml/ml-node-groups: a node group made before its block starts has the desired size 0; what scales
it afterwards is an update of its desired size, which here is the update that follows the change of phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from serving.config import PROJECT, CapacityBlock

if TYPE_CHECKING:
    from serving.plan import Plan

# EKS drains a block's machines 40 minutes before its end, EC2 ends what is left from 30 minutes before (same page).
_DRAINS_BEFORE = timedelta(minutes=40)
_ENDS_BEFORE = timedelta(minutes=30)


def phase_notes(plan: Plan) -> Iterator[str]:
    """Yield a sentence or two for each pool in a Capacity Block: what runs now, until when, and what to do then."""
    for name, pool in plan.node_pools.items():
        if pool.block is not None:
            yield f"nodePools.{name}: {_note(name, pool.block, pool.nodes)}"


def utc(moment: datetime) -> str:
    """Return a moment as the report shows it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _note(name: str, block: CapacityBlock, nodes: int) -> str:
    path = f"nodePools.{name}.capacity"
    match block.phase:
        case "scheduled":
            starts = "" if block.starts_at is None else f" at {utc(block.starts_at)}"
            return (
                f"Capacity Block {block.reservation_id} starts{starts}; no machine and no replica runs before. "
                f"Once it has started: {_set(path, 'active')} and pulumi up, which asks EKS for {_machines(nodes)} and starts "
                "the replicas on them"
            )
        case "active":
            return (
                f"Capacity Block {block.reservation_id} {_end(block)}. When it is over: {_set(path, 'ended')} and pulumi up, "
                "which takes the replicas back; until then an update may ask for machines that nobody has any more"
            )
        case "ended":
            ended = "has ended" if block.ends_at is None else f"ended at {utc(block.ends_at)}"
            return (
                f"Capacity Block {block.reservation_id} {ended}; no machine and no replica runs. To go on, buy another block, "
                f"set {path}.reservationId, startsAt and endsAt to its own and phase to scheduled, and pulumi up"
            )


def _end(block: CapacityBlock) -> str:
    if block.ends_at is None:
        return (
            "is active; set endsAt to be told until when: EKS drains its machines from 40 minutes before its end on, EC2 ends "
            "what is left from 30 minutes before"
        )
    drains, ends = block.ends_at - _DRAINS_BEFORE, block.ends_at - _ENDS_BEFORE
    return f"ends at {utc(block.ends_at)}: EKS drains its machines from {utc(drains)}, EC2 ends what is left from {utc(ends)} on"


def _set(path: str, phase: str) -> str:
    return f"pulumi config set --path '{PROJECT}:{path}.phase' {phase}"


def _machines(nodes: int) -> str:
    return "1 machine" if nodes == 1 else f"{nodes} machines"
