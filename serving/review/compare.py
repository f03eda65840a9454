"""What a change does to a stack: two sides in, what a reviewer has to know out. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serving import argv
from serving.review.changes import Change, changes
from serving.review.planned import Finding, Planned, Pool, Workload
from serving.review.resources import ResourceChange, ResourceChanges
from serving.review.sides import Side
from serving.spelling import InputError

# What EKS changes without new machines (UpdateNodegroupConfig); everything else makes a new version of the node group.
_MACHINES = {"aws:ec2/launchTemplate:LaunchTemplate": "{}-template", "aws:eks/nodeGroup:NodeGroup": "{}-nodes"}
_WITHOUT_NEW_MACHINES = ("scalingConfig", "updateConfig", "nodeRepairConfig", "labels", "taints", "tags")


@dataclass(frozen=True)
class Consequence:
    """What happens to requests when a change is rolled out. `stops_serving_seconds` is 0 if some replica serves throughout.

    `kind` tells what happens to the pods: they start, end, are evicted because their machines are replaced (the seconds do not
    count the machine's own start), are replaced, are added or taken away, all stop until further notice, are none before and
    after, are left alone, or nobody knows, because the base's input was bad.
    """

    kind: Literal["starts", "ends", "evicted", "replaced", "scaled", "stops", "idle", "untouched", "unknown"]
    stops_serving_seconds: int = 0
    fetches_weights: bool = False


@dataclass(frozen=True)
class WorkloadDiff:
    """One workload on both sides."""

    name: str
    before: Workload | None
    after: Workload | None
    pins: tuple[Change, ...]
    flags: tuple[Change, ...]
    env: tuple[Change, ...]
    consequence: Consequence

    @property
    def is_change(self) -> bool:
        """Whether the workload or its memory is another one."""
        moves = self.consequence.kind not in {"idle", "untouched", "unknown"}
        return moves or bool(self.pins or self.flags or self.env) or self._memory_differs

    @property
    def _memory_differs(self) -> bool:
        if self.before is None or self.after is None:
            return False
        figures = zip(dict(self.before.memory).values(), dict(self.after.memory).values(), strict=True)
        return any(None not in pair and pair[0] != pair[1] for pair in figures)


@dataclass(frozen=True)
class StackDiff:
    """One stack on both sides. `refusals` and `advice` are the head's, `gone` are those that only the base had."""

    stack: str
    before: Side
    after: Side
    settings: tuple[Change, ...]
    pools: tuple[Change, ...]
    workloads: tuple[WorkloadDiff, ...]
    refusals: tuple[Finding, ...]
    advice: tuple[Finding, ...]
    gone: tuple[Finding, ...]
    resources: ResourceChanges | None

    @property
    def is_change(self) -> bool:
        """Whether there is anything to review. What an older base's plan does not say is no difference."""
        parts = (self.settings, self.pools, self.gone, [row for row in self.workloads if row.is_change])
        found = any(parts) or any(map(self.is_new, (*self.refusals, *self.advice)))
        resources = bool(self.resources and self.resources.changes)
        return found or resources or self.before.verdict != self.after.verdict or self._costs[0] != self._costs[1]

    @property
    def _costs(self) -> tuple[float | None, ...]:
        return tuple(side.planned.hourly_usd if side.planned else None for side in (self.before, self.after))

    def is_new(self, finding: Finding) -> bool:
        """Whether the base did not have a finding of the head."""
        return _key(finding) not in _keys(self.before.planned)


def compare(
    stack: str,
    before: Side,
    after: Side,
    rendered: ResourceChanges | None = None,
    previewed: ResourceChanges | None = None,
) -> StackDiff:
    """Compare the two sides of a stack; what renderings and a preview say of its resources comes from elsewhere.

    A preview is the better witness of the two, and a rendering also tells whose pods change.
    """
    old, new = before.planned, after.planned
    resources = previewed or rendered
    return StackDiff(
        stack=stack,
        before=before,
        after=after,
        settings=changes(before.settings, after.settings) if before.settings and after.settings else (),
        pools=changes(_pools(old), _pools(new)) if new else (),
        workloads=tuple(_workloads(before, new, (rendered, previewed))) if new else (),
        refusals=new.violations if new else (),
        advice=new.advice if new else (),
        gone=tuple(row for row in _findings(old) if _key(row) not in _keys(new)) if new else (),
        resources=resources,
    )


def _pools(planned: Planned | None) -> dict[str, str]:
    if planned is None:
        return {}
    return {name: _machines(pool) for name, pool in planned.node_pools.items()}


def _machines(pool: Pool) -> str:
    running = "" if pool.desired_nodes in {None, pool.nodes} else f"{pool.desired_nodes} of "
    return f"{running}{pool.nodes} x {pool.instance_type}"


def _findings(planned: Planned | None) -> tuple[Finding, ...]:
    return (*planned.violations, *planned.advice) if planned else ()


def _keys(planned: Planned | None) -> set[tuple[str, str]]:
    return {_key(finding) for finding in _findings(planned)}


def _key(finding: Finding) -> tuple[str, str]:
    return finding.rule, finding.workload


# --- workloads -----------------------------------------------------------------------------------------------------------


def _workloads(before: Side, new: Planned, witnesses: Sequence[ResourceChanges | None]) -> Iterator[WorkloadDiff]:
    found = [change for witness in witnesses if witness for change in witness.changes]
    was: Mapping[str, Workload] = before.planned.workloads if before.planned else {}
    for name in [*new.workloads, *(name for name in was if name not in new.workloads)]:
        ours, theirs = was.get(name), new.workloads.get(name)
        yield WorkloadDiff(
            name=name,
            before=ours,
            after=theirs,
            pins=changes(_pins(ours), _pins(theirs)),
            flags=changes(_flags(ours), _flags(theirs)) if ours and theirs else (),
            env=changes(_env(ours), _env(theirs)) if ours and theirs else (),
            consequence=_consequence(name, before, new, found),
        )


def _pins(workload: Workload | None) -> dict[str, str]:
    if workload is None:
        return {}
    return {
        "model": workload.checkpoint,
        "model revision": workload.revision,
        "vLLM": workload.engine_version,
        "image": workload.image,
        "compile caches": _caches(workload),
    }


def _caches(workload: Workload) -> str:
    """Return the folder for compiled code, which a dozen variables repeat."""
    return workload.env.get("VLLM_CACHE_ROOT", "").rpartition("/")[0]


def _env(workload: Workload) -> dict[str, str]:
    caches = _caches(workload)
    return {name: value for name, value in workload.env.items() if not (caches and value.startswith(f"{caches}/"))}


def _flags(workload: Workload) -> dict[str, str]:
    """Return the flags of the command; the revision stands among the pins."""
    try:
        given = argv.read(workload.command).flags
    except InputError:  # the command of a base whose vLLM had flags of its own
        return {"the whole command": shlex.join(workload.command)}
    return {f"--{name}": value for name, value in given.items() if name != "revision"}


# --- what happens to pods ------------------------------------------------------------------------------------------------


def _consequence(name: str, before: Side, new: Planned, found: Sequence[ResourceChange]) -> Consequence:
    old = before.planned
    ours, theirs = old.workloads.get(name) if old else None, new.workloads.get(name)
    if before.verdict == "bad input":
        return Consequence("unknown")
    if old is None or ours is None or theirs is None:
        return Consequence("ends" if theirs is None else "starts" if theirs.replicas else "idle")
    if not theirs.replicas:
        return Consequence("stops" if ours.replicas else "idle")
    if not ours.replicas:
        return Consequence("starts")
    fetches = (ours.checkpoint, ours.revision) != (theirs.checkpoint, theirs.revision)
    if _machine(old, ours) == _machine(new, theirs) and any(_replaces_machines(row, theirs.node_pool) for row in found):
        # The new machine's array is empty. With more replicas than one, the others serve meanwhile.
        stops = theirs.timing.start_seconds if theirs.replicas == 1 else 0
        return Consequence("evicted", stops, fetches_weights=True)
    if not _restarts(name, old, new, found):
        return Consequence("untouched" if ours.replicas == theirs.replicas else "scaled")
    stops = theirs.rollout.stops_serving_seconds if theirs.rollout else 0
    # Without surge the old pod is gone before the new one fetches its weights.
    return Consequence(
        "replaced", stops + theirs.timing.expected_fetch_seconds if stops and fetches else stops, fetches
    )


def _restarts(name: str, old: Planned, new: Planned, found: Sequence[ResourceChange]) -> bool:
    """Whether a workload's pods are replaced: because the plan says something else of them, or the program makes them so."""
    ours, theirs = old.workloads[name], new.workloads[name]
    return (
        (ours.image, ours.command, ours.env) != (theirs.image, theirs.command, theirs.env)
        or (ours.node_pool is not None and _machine(old, ours) != _machine(new, theirs))
        or any(_is_of_pods(change, name) for change in found)
    )


def _machine(planned: Planned, workload: Workload) -> tuple[str | None, str | None]:
    pool = planned.node_pools.get(workload.node_pool or "")
    return workload.node_pool, pool.instance_type if pool else None


def _is_of_pods(change: ResourceChange, workload: str) -> bool:
    # A workload's name is its namespace.
    return change.namespace == workload and any(field.name.startswith("spec.template.") for field in change.fields)


def _replaces_machines(change: ResourceChange, pool: str | None) -> bool:
    """Whether a change makes EKS replace the machines of a pool; its resources bear its name."""
    if change.name != _MACHINES.get(change.type, "").format(pool) or change.operation not in {"update", "replace"}:
        return False
    return any(not field.name.startswith(_WITHOUT_NEW_MACHINES) for field in change.fields)
