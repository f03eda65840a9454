"""A compared change as the comment that a reviewer reads in a pull request, and as JSON.

All that comes from a stack file is code or escaped: a comment may be about a stranger's files, and a bot signs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from serving.cost import HOURS_PER_MONTH
from serving.report import minutes
from serving.review.changes import Change
from serving.review.compare import Consequence, StackDiff, WorkloadDiff
from serving.review.planned import Workload
from serving.review.resources import ResourceChange, ResourceChanges
from serving.review.review import Review
from serving.review.sides import Verdict
from serving.review.text import code, fenced, plain, prose, table, value

MARKER = "<!-- glm-on-gpus: review -->"
"""Stands at the top of the comment, so that the next run finds it and edits it."""

_MOST_RESOURCES = 30  # more are counted: GitHub takes 65,536 characters in a comment
_MOST_FIELDS = 6
_LONGEST_VALUE = 36  # beside a resource's field; longer ones are in the other tables
_MOST_FILES = 10
_NOTHING = "–"
_VERDICTS: tuple[Verdict, ...] = ("bad input", "refused", "accepted", "absent")


def as_markdown(review: Review) -> str:
    """Return the comment."""
    return "\n".join(_lines(review)) + "\n"


def _lines(review: Review) -> Iterator[str]:
    yield MARKER
    yield f"## {_headline(review)}"
    yield ""
    headings = ("stack", "verdict", "serving", "USD an hour", "USD a month")
    yield from table(headings, map(_summary, review.stacks), numbers=2)
    for row in review.stacks:
        if row.is_change:
            yield from _stack(row)
    yield from _footer(review)


def _headline(review: Review) -> str:
    """Return the worst verdict with the stacks that it is about."""
    bad, refused, accepted, removed = (_stacks(review, verdict) for verdict in _VERDICTS)
    if bad or refused:
        return f"Bad input: {bad}" if bad else f"Refused: {refused}"
    parts = [f"{word}: {stacks}" for word, stacks in (("Accepted", accepted), ("Removed", removed)) if stacks]
    return ". ".join(parts) or "No stack changes"


def _stacks(review: Review, verdict: Verdict) -> str:
    """Return the stacks with a verdict that matters here: a refused one also if it was refused before."""
    rows = [row for row in review.stacks if row.after.verdict == verdict]
    return ", ".join(code(row.stack) for row in rows if row.is_change or verdict in {"bad input", "refused"})


# --- the table of stacks -------------------------------------------------------------------------------------------------


def _summary(row: StackDiff) -> tuple[str, ...]:
    before, after = (side.planned.hourly_usd if side.planned else None for side in (row.before, row.after))
    known = row.after.planned is not None
    verdict = _verdict(row)
    if not known:
        return code(row.stack), verdict, _NOTHING, _NOTHING, _NOTHING
    starts = row.before.verdict == "absent"
    return (
        code(row.stack),
        verdict,
        _serving(row),
        _money(0.0 if starts else before, after, 1, "{:,.2f}"),
        _money(0.0 if starts else before, after, HOURS_PER_MONTH, "{:,.0f}"),
    )


def _verdict(row: StackDiff) -> str:
    after = row.after.verdict
    if after == "absent":
        return "stack file removed"
    bold = after if after == "accepted" else f"**{after}**"
    if row.before.verdict == "absent":
        return f"new, {bold}"
    if not row.is_change:
        return f"{bold}, no change"
    return bold if row.before.verdict == after else f"{bold} (was {row.before.verdict})"


def _money(before: float | None, after: float | None, factor: float, form: str) -> str:
    if after is None:
        return "unknown"
    now = form.format(after * factor)
    if before is None or before == after:
        return now
    return f"{form.format(before * factor)} → **{now}** ({_signed((after - before) * factor, form)})"


def _signed(value: float, form: str) -> str:
    return f"{'+' if value > 0 else '−'}{form.format(abs(value))}"


def _serving(row: StackDiff) -> str:
    if row.after.verdict != "accepted" or not row.is_change:
        return _NOTHING
    if row.before.verdict == "bad input":
        return "unknown"
    kinds = {workload.consequence.kind for workload in row.workloads}
    if "stops" in kinds:
        return "**stops until a Capacity Block is active**"
    if kinds == {"idle"}:
        return "no replica runs"
    if row.before.verdict == "absent" or kinds <= {"starts", "idle"}:
        return "starts"
    stops = max((workload.consequence for workload in row.workloads), key=lambda one: one.stops_serving_seconds)
    if not stops.stops_serving_seconds:
        return "goes on"
    machine = "a new machine's start and " if stops.kind == "evicted" else ""
    return f"**stops for {machine}about {minutes(stops.stops_serving_seconds)}**"


# --- one stack -----------------------------------------------------------------------------------------------------------


def _stack(row: StackDiff) -> Iterator[str]:
    yield ""
    yield f"### {code(row.stack)}"
    if row.after.verdict == "absent":
        yield ""
        yield _removed(row)
        return
    for problems, whose in (
        (row.after.problems, "The stack file cannot be used"),
        (row.before.problems, "The base's could not be used"),
    ):
        if problems:
            yield ""
            yield f"{whose}:"
            yield ""
            yield from fenced(problems)
    yield from _findings(row)
    yield from _changes("setting", row.settings)
    yield from _changes("node pool", row.pools)
    rolled_out = row.after.verdict == "accepted"
    for workload in row.workloads:
        yield from _workload(workload, _consequence(workload) if rolled_out else "refused, so nothing is rolled out.")
    if rolled_out:
        yield from _resources(row)


def _removed(row: StackDiff) -> str:
    cost = row.before.planned.hourly_usd if row.before.planned else None
    price = f", {cost:,.2f} USD an hour," if cost else ""
    destroy = code(f"pulumi destroy --stack {row.stack}")
    return (
        f"Removing a stack file destroys nothing: what the stack has made{price} runs on until {destroy}, "
        "which needs the file."
    )


def _findings(row: StackDiff) -> Iterator[str]:
    for findings, word in ((row.refusals, "refused by rule"), (row.advice, "advice of rule")):
        for finding in findings:
            new = " (new)" if row.is_new(finding) and row.before.planned else ""
            yield ""
            yield f"- **{word} {code(finding.rule)}**{new}, workload {code(finding.workload)}: {prose(finding.message)}."
            yield f"  To do: {prose(finding.remedy)}. Source: {prose(finding.source)}."
    if row.gone:
        yield ""
        yield f"No longer: {', '.join(f'{code(f.rule)} of {code(f.workload)}' for f in row.gone)}."


def _workload(row: WorkloadDiff, consequence: str) -> Iterator[str]:
    yield ""
    yield f"**Workload {code(row.name)}**: {consequence}"
    yield from _changes("pinned", row.pins)
    if row.after is not None:
        yield from _memory(row.before, row.after)
    yield from _changes("vLLM flag", row.flags)
    yield from _changes("environment", row.env)


def _consequence(row: WorkloadDiff) -> str:
    after = row.after
    if after is None:
        return "it ends, and its namespace goes with it."
    start = minutes(after.timing.start_seconds)
    match row.consequence.kind:
        case "starts":
            return f"it starts, and answers after about {start} on nodes that are there."
        case "stops":
            return "**serving stops**: no replica runs until the Capacity Block of its pool is active."
        case "idle":
            return "no replica runs: the Capacity Block of its pool is not active."
        case "evicted":
            return _evicted(row.consequence, after, start)
        case "replaced":
            return _replaced(row.consequence, after)
        case "scaled":
            return _scaled(row.before.replicas if row.before else 0, after.replicas, start)
        case "unknown":
            return "what runs now is unknown, because the base's stack file could not be used."
        case _:
            return "its pods are left alone."


def _evicted(consequence: Consequence, after: Workload, start: str) -> str:
    """EKS's update strategy MINIMAL: it takes a machine away before it asks for the next."""
    each = f"for a machine's start and about {start} to fetch the weights, load and start the engine"
    if consequence.stops_serving_seconds:
        return f"its machine is replaced, the old one goes first: **serving stops {each}**."
    return f"its machines are replaced one after the other: each of {after.replicas} replicas is away {each}."


def _replaced(consequence: Consequence, after: Workload) -> str:
    fetch = f"{minutes(after.timing.expected_fetch_seconds)} to fetch other weights"
    weights = f", {fetch}" if consequence.fetches_weights else ""
    load = f"{minutes(after.timing.restart_seconds)} to load and start the engine"
    if consequence.stops_serving_seconds:
        stops = minutes(consequence.stops_serving_seconds)
        why = "there is no spare node, so the old pod drains and ends before the new one begins"
        if after.nodes_per_replica > 1:
            why = "a group that is the only one drains and ends before the new one begins, whatever nodes are spare"
        return f"**serving stops for about {stops}** ({load}{weights}): {why}."
    if after.rollout and after.rollout.max_surge:
        return f"serving goes on: each new pod starts on a spare node ({load}{weights}), then an old one ends."
    return f"serving goes on: one of {after.replicas} replicas at a time is away ({load}{weights})."


def _scaled(before: int, after: int, start: str) -> str:
    if after < before:
        gone = before - after
        return f"{gone} of {before} replicas {'ends' if gone == 1 else 'end'}, the others are left alone."
    return f"{after - before} more, {after} in all; a new one answers after about {start}, the others are left alone."


# --- memory --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Figure:
    """A row of the memory table; it is shown if the two sides differ in it, or always."""

    name: str
    of: Callable[[Workload], float | None]
    form: str = "{:,}"
    always: bool = False


_FIGURES = (
    _Figure("weights, GiB", lambda row: row.memory.weights_gib, "{:,.2f}"),
    _Figure("overhead, GiB", lambda row: row.memory.overhead_gib, "{:,.2f}"),
    _Figure("KV cache pool, GiB", lambda row: row.memory.kv_pool_gib, "{:,.2f}"),
    _Figure("free outside vLLM's share, GiB", lambda row: row.memory.free_gib, "{:,.2f}", always=True),
    _Figure("KV cache pool, tokens", lambda row: row.memory.kv_pool_tokens, always=True),
    _Figure("maximum length, tokens", lambda row: row.memory.max_model_len),
    _Figure("requests of full length at once", lambda row: row.memory.full_length_requests, "{:,.2f}", always=True),
    _Figure(
        "the same, all replicas", lambda row: row.replicas * row.memory.full_length_requests, "{:,.2f}", always=True
    ),
    _Figure("running requests at most", lambda row: row.memory.max_num_seqs),
)


def _memory(before: Workload | None, after: Workload) -> Iterator[str]:
    rows = [(figure, figure.of(before) if before else None, figure.of(after)) for figure in _FIGURES]
    shown = [_figure(figure, was, now) for figure, was, now in rows if figure.always or was != now]
    yield ""
    headings = (f"memory of one GPU of {after.tensor_parallel_size}", "before", "after", "change")
    yield from table(headings, shown, numbers=3)


def _figure(figure: _Figure, before: float | None, after: float | None) -> tuple[str, ...]:
    was, now = (_NOTHING if value is None else figure.form.format(value) for value in (before, after))
    if before is None or after is None or was == now:
        return figure.name, was, now, ""
    share = f" ({(after - before) / before:+.1%})".replace("-", "−") if before > 0 else ""
    return figure.name, was, f"**{now}**", f"{_signed(after - before, figure.form)}{share}"


# --- resources -----------------------------------------------------------------------------------------------------------


def _resources(row: StackDiff) -> Iterator[str]:
    found = row.resources
    yield ""
    if found is None:
        yield "Which resources change was not worked out in this run; `make review` does it."
        return
    witness = "`pulumi preview`" if found.source == "preview" else "rendering both sides, without the account"
    yield f"Resources, by {witness}: {_counted(found.changes)}"
    if found.changes:
        yield ""
        yield from table(("", "resource", "what"), [_resource(change) for change in found.changes[:_MOST_RESOURCES]])
    if len(found.changes) > _MOST_RESOURCES:
        yield ""
        yield f"… and {len(found.changes) - _MOST_RESOURCES} more."
    yield from _preview_problems(found)


def _counted(found: Sequence[ResourceChange]) -> str:
    operations = [change.operation for change in found]
    counts = [f"{operations.count(name)} to {name}" for name in dict.fromkeys(operations)]
    return f"{', '.join(counts)}." if counts else "none changes."


def _resource(change: ResourceChange) -> tuple[str, ...]:
    fields = [_field(field) for field in change.fields[:_MOST_FIELDS]]
    more = [f"{len(change.fields) - _MOST_FIELDS} more"] if len(change.fields) > _MOST_FIELDS else []
    return change.operation, f"{code(change.type)} {code(change.name)}", ", ".join([*fields, *more])


def _field(field: Change) -> str:
    texts = [plain(value) for value in (field.before, field.after)]
    if (field.before is None and field.after is None) or any(len(text) > _LONGEST_VALUE for text in texts):
        return code(field.name)
    return f"{code(field.name)} {value(field.before)} → {value(field.after)}"


def _preview_problems(found: ResourceChanges) -> Iterator[str]:
    for row in found.policies:
        yield ""
        yield f"- policy **{code(row.policy)}** ({prose(row.level)}) on {code(row.resource)}: {prose(row.message)}"
    if found.failed:
        yield ""
        yield "**`pulumi preview` failed**; its log says why."
        if found.errors:
            yield ""
            yield from fenced(line for error in found.errors for line in error.splitlines())


# --- the end -------------------------------------------------------------------------------------------------------------


def _footer(review: Review) -> Iterator[str]:
    yield ""
    yield "---"
    if review.program:
        shown = ", ".join(map(code, review.program[:_MOST_FILES]))
        more = f" and {len(review.program) - _MOST_FILES} more" if len(review.program) > _MOST_FILES else ""
        whose = "its own" if review.head_by_its_own_code else "the code that made this comment, **not by its own**"
        yield f"What stacks are made from changes too: {shown}{more}. The base is planned by its own code, the head by {whose}."
        yield ""
    for note in review.notes:
        yield f"{prose(note)}"
        yield ""
    for price in sorted(_prices(review)):
        yield f"Price: {prose(price)}."
    yield f"Cost is of the GPU nodes, {HOURS_PER_MONTH} hours a month; control plane, system nodes, NAT and traffic come on top."
    yield f"Base {review.base[:12]}, head {review.head[:12] if review.head else 'the work tree'}."


def _prices(review: Review) -> set[str]:
    planned = [row.after.planned for row in review.stacks if row.after.planned and row.is_change]
    return {pool.price for stack in planned for pool in stack.node_pools.values() if pool.price}


def _changes(heading: str, rows: Sequence[Change]) -> Iterator[str]:
    if rows:
        yield ""
        cells = [(code(row.name), value(row.before), value(row.after)) for row in rows]
        yield from table((heading, "before", "after"), cells)


# --- JSON ----------------------------------------------------------------------------------------------------------------


def as_json(review: Review) -> dict[str, Any]:
    """Return the comparison as plain data with camelCase keys."""
    return {
        "base": review.base,
        "head": review.head,
        "program": list(review.program),
        "notes": list(review.notes),
        "stacks": {row.stack: _stack_json(row) for row in review.stacks},
    }


def _stack_json(row: StackDiff) -> dict[str, Any]:
    sides = {"before": row.before, "after": row.after}
    return {
        "isChange": row.is_change,
        "verdict": {when: side.verdict for when, side in sides.items()},
        "problems": {when: list(side.problems) for when, side in sides.items()},
        "hourlyUsd": {when: side.planned.hourly_usd if side.planned else None for when, side in sides.items()},
        "settings": _plain_data(row.settings),
        "nodePools": _plain_data(row.pools),
        "workloads": {workload.name: _workload_json(workload) for workload in row.workloads},
        "refusals": _plain_data(row.refusals),
        "advice": _plain_data(row.advice),
        "gone": _plain_data(row.gone),
        "resources": _plain_data(row.resources),
    }


def _workload_json(row: WorkloadDiff) -> dict[str, Any]:
    memory = {"before": row.before, "after": row.after}
    return {
        "pins": _plain_data(row.pins),
        "flags": _plain_data(row.flags),
        "env": _plain_data(row.env),
        "consequence": _plain_data(row.consequence),
        "memory": {when: _plain_data(side.memory) if side else None for when, side in memory.items()},
    }


def _plain_data(given: Any) -> Any:
    """Return records as maps with camelCase keys."""
    if isinstance(given, BaseModel):
        return given.model_dump(by_alias=True, mode="json")
    if is_dataclass(given) and not isinstance(given, type):
        return {to_camel(field.name): _plain_data(getattr(given, field.name)) for field in fields(given)}
    if isinstance(given, (tuple, list)):
        return [_plain_data(item) for item in cast("Sequence[Any]", given)]
    return given
