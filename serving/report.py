"""A plan for people and programs: JSON, Markdown (plain text that reads well in a pull request), and rich in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from pydantic.alias_generators import to_camel

from serving.capacity_block import phase_notes
from serving.cost import Cost
from serving.plan import NodePoolPlan, Plan, WorkloadPlan
from serving.rules import Verdict

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_BAR_CELLS = 60


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain data with camelCase keys, the interface for other programs."""
    return {
        "stack": plan.stack,
        "hourlyUsd": plan.cost.hourly_usd,
        "nodePools": {name: _pool_json(pool) for name, pool in plan.node_pools.items()},
        "workloads": {name: _workload_json(row) for name, row in plan.workloads.items()},
        "violations": [_camel(asdict(violation)) for violation in plan.violations],
        "advice": [_camel(asdict(row)) for row in plan.advice],
    }


def _pool_json(pool: NodePoolPlan) -> dict[str, Any]:
    return {
        "instanceType": pool.instance.name,
        "nodes": pool.nodes,
        "desiredNodes": pool.desired_nodes,
        "capacityBlock": _block_json(pool),
        "gpusPerNode": pool.instance.gpus,
        "hourlyUsd": pool.cost.hourly_usd,
        "price": pool.cost.note,
    }


def _block_json(pool: NodePoolPlan) -> dict[str, Any] | None:
    return pool.block.model_dump(mode="json", by_alias=True, exclude={"kind"}) if pool.block else None


def _workload_json(row: WorkloadPlan) -> dict[str, Any]:
    memory = row.memory
    return {
        "checkpoint": row.checkpoint.repository,
        "revision": row.revision,
        "image": row.image,
        "engineVersion": row.engine_version,
        "nodePool": row.node_pool,
        "replicas": row.replicas,
        "nodesPerReplica": row.nodes_per_replica,
        "kvOffloadGiB": row.kv_offload_gib,
        "kind": row.kind,
        "tensorParallelSize": row.tensor_parallel_size,
        "pipelineParallelSize": row.pipeline_parallel_size,
        "decodeContextParallelSize": row.decode_context_parallel_size,
        "command": list(row.command),
        "workerCommand": list(row.worker_command),
        "env": dict(row.env),
        "memory": {
            "usableGiB": round(memory.usable_gib, 3),
            "weightsGiB": round(memory.weights_gib, 3),
            "overheadGiB": round(memory.overhead_gib, 3),
            "kvPoolGiB": round(memory.kv_pool_gib, 3),
            "kvBytesPerToken": memory.kv_bytes_per_token,
            "kvPoolTokens": memory.kv_pool_tokens,
            "maxModelLen": row.max_model_len,
            "maxNumSeqs": row.max_num_seqs,
            "fullLengthRequests": round(memory.full_length_requests, 3),
            "freeGiB": round(memory.free_gib, 3),
        },
        "rollout": _camel(asdict(row.rollout)),
        "timing": _camel(asdict(row.timing)),
        "expectations": dict(row.expectations),
    }


def _camel(row: dict[str, Any]) -> dict[str, Any]:
    return {to_camel(key): value for key, value in row.items()}


# --- Markdown ---------------------------------------------------------------------------------------------------------


def as_markdown(plan: Plan) -> str:
    """Return the plan as Markdown: for a pull request's comment, and for a pipe."""
    return "\n".join(_markdown(plan)) + "\n"


def _markdown(plan: Plan) -> Iterator[str]:
    yield f"# Plan of stack {plan.stack}: {'refused' if plan.violations else 'accepted'}"
    yield ""
    yield "| node pool | machines | capacity | USD an hour | USD a month | price |"
    yield "|---|---|---|---:|---:|---|"
    for name, pool in plan.node_pools.items():
        cost = pool.cost
        yield f"| {name} | {_machines(pool)} | {_capacity(pool)} | {_hourly(cost)} | {_monthly(cost)} | {cost.note} |"
    yield f"| **all** | | | **{_hourly(plan.cost)}** | **{_monthly(plan.cost)}** | {plan.cost.note} |"
    for note in phase_notes(plan):
        yield ""
        yield note
    for row in plan.workloads.values():
        yield ""
        yield from _workload_markdown(row)


def _workload_markdown(row: WorkloadPlan) -> Iterator[str]:
    memory = row.memory
    yield f"## Workload {row.name}"
    yield ""
    for label, value in _summary(row):
        yield f"- {label}: {value}"
    yield ""
    yield f"One GPU, {memory.usable_gib:.1f} GiB: `{''.join(letter * cells for letter, cells in _cells(row))}`"
    yield "(W weights, O overhead, K KV cache, . outside vLLM's share)"
    yield ""
    yield "| share | GiB | what |"
    yield "|---|---:|---|"
    for kind, name, gib, meaning in _terms(row):
        yield f"| {kind}: {name} | {gib:.2f} | {meaning} |"
    yield ""
    yield "| rule | verdict | why |"
    yield "|---|---|---|"
    for verdict, why in _verdicts(row):
        word = _WORDS[_standing(verdict)]
        yield f"| {verdict.rule.id} | {word} | {_cell(why)} |"


def _cell(text: str) -> str:
    """Return text that stays inside one cell of a Markdown table, whatever the stack file's values hold."""
    return text.replace("|", "\\|").replace("\n", " ")


# --- shared by both forms ------------------------------------------------------------------------------------------------


def _machines(pool: NodePoolPlan) -> str:
    of = "" if pool.desired_nodes else "0 of "
    return f"{of}{pool.nodes} x {pool.instance.name} ({pool.instance.shape})"


def _capacity(pool: NodePoolPlan) -> str:
    return f"{pool.capacity}, {pool.block.phase}" if pool.block else pool.capacity or "existing"


def _hourly(cost: Cost) -> str:
    return "unknown" if cost.hourly_usd is None else f"{cost.hourly_usd:,.2f}"


def _monthly(cost: Cost) -> str:
    return "unknown" if cost.monthly_usd is None else f"{cost.monthly_usd:,.0f}"


def _summary(row: WorkloadPlan) -> Iterator[tuple[str, str]]:
    memory = row.memory
    yield "model", f"{row.checkpoint.repository} at {row.revision}"
    yield "engine", f"vLLM {row.engine_version}, {row.image}"
    yield "replicas", f"{row.replicas} on pool {row.node_pool}, {_parallelism(row)}"
    yield (
        "KV cache",
        f"{memory.kv_pool_gib:.1f} GiB{_shares(row)}, {memory.kv_pool_tokens:,} tokens at {memory.kv_bytes_per_token:,} B each",
    )
    yield (
        "requests",
        f"{memory.full_length_requests:.2f} of {row.max_model_len:,} tokens at once for each replica, "
        f"at most {row.max_num_seqs} running",
    )
    if row.kv_offload_gib is not None:
        yield "KV offload", _offload(row)
    yield "first start", f"about {minutes(row.timing.expected_start_seconds)}, of it {_start_parts(row)}"
    yield "rollout", rollout(row)


def _parallelism(row: WorkloadPlan) -> str:
    parts = [
        f"{row.nodes_per_replica} nodes each" if row.nodes_per_replica > 1 else "",
        f"tensor parallel size {row.tensor_parallel_size}",
        f"{row.pipeline_parallel_size} pipeline stages" if row.pipeline_parallel_size > 1 else "",
        f"decode context parallel size {shares}" if (shares := row.decode_context_parallel_size) > 1 else "",
    ]
    return ", ".join(filter(None, parts))


def _shares(row: WorkloadPlan) -> str:
    size = row.decode_context_parallel_size
    return f" on each of {size} GPUs that share it out" if size > 1 else ""


def _offload(row: WorkloadPlan) -> str:
    """Say what fits at least: a copy for each rank, as published runs had it (recipes#754, recipes#893), or for each group."""
    ranks = row.tensor_parallel_size * row.pipeline_parallel_size // row.decode_context_parallel_size
    tokens = int((row.kv_offload_gib or 0) * 2**30 // (row.memory.kv_bytes_per_token * ranks))
    return f"{row.kv_offload_gib} GiB of host memory for what was computed before, {tokens:,} tokens or more"


def _start_parts(row: WorkloadPlan) -> str:
    times = row.timing
    return (
        f"{minutes(times.expected_fetch_seconds)} to fetch, {minutes(times.expected_load_seconds)} to load, "
        f"{minutes(times.expected_engine_start_seconds)} to start the engine, "
        f"{minutes(times.expected_gate_seconds)} to prove its answers"
    )


def rollout(row: WorkloadPlan) -> str:
    """Say how an update replaces a workload's pods, and what it interrupts."""
    if not row.replicas:
        return "no pod runs, so there is none to replace"
    several, stops = row.nodes_per_replica > 1, row.rollout.stops_serving_seconds
    new = "group" if several else "pod"
    if stops:
        why = "an only group is replaced in place" if several else "no spare node"
        return f"{why}: serving stops for about {minutes(stops)}, and stays stopped if the new {new} fails its checks"
    if row.rollout.max_surge:
        place = "spare nodes" if several else "a spare node"
        return f"the new {new} starts on {place} and proves its answers, then the old one ends"
    return f"one of {row.replicas} replicas at a time; a new {new} that fails its checks ends the rollout, the others serve on"


def minutes(seconds: float) -> str:
    """Return a time as a report shows it."""
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _cells(row: WorkloadPlan) -> list[tuple[str, int]]:
    """Split the bar into letters and cells; shares that would be negative take none, and the bar never overflows."""
    memory = row.memory
    shares = [("W", memory.weights_gib), ("O", memory.overhead_gib), ("K", max(memory.kv_pool_gib, 0.0))]
    cells: list[tuple[str, int]] = []
    left = _BAR_CELLS
    for letter, gib in shares:
        taken = min(round(gib / memory.usable_gib * _BAR_CELLS), left)
        cells.append((letter, taken))
        left -= taken
    return [*cells, (".", left)]


def _terms(row: WorkloadPlan) -> Iterator[tuple[str, str, float, str]]:
    memory = row.memory
    for term in memory.weights:
        yield "weights", term.name, term.gib, term.meaning
    for term in memory.overhead:
        yield "overhead", term.name, term.gib, term.meaning
    yield "KV cache", "pool", memory.kv_pool_gib, "what is left of vLLM's share"
    yield (
        "free",
        "outside vLLM's share",
        memory.free_gib,
        "CUDA context, NCCL, graphs beyond their estimate, prefill scratch",
    )


def _verdicts(row: WorkloadPlan) -> Iterator[tuple[Verdict, str]]:
    for verdict in row.verdicts:
        why = verdict.outcome.why
        if not verdict.outcome.passed:
            why = f"{why}. To do: {verdict.rule.remedy}. Source: {verdict.rule.source}"
        yield verdict, why


Standing = Literal["passed", "advice", "refused"]
_WORDS: dict[Standing, str] = {"passed": "passed", "advice": "*advice*", "refused": "**refused**"}


def _standing(verdict: Verdict) -> Standing:
    if verdict.outcome.passed:
        return "passed"
    return "refused" if verdict.rule.level == "mandatory" else "advice"


def refusal(plan: Plan) -> str:
    """Return the refusals as text: one line each, for an error message."""
    lines = [f"workloads.{v.workload}: {v.rule}: {v.message}. To do: {v.remedy}." for v in plan.violations]
    return f"stack {plan.stack} is refused:\n" + "\n".join(f"  {line}" for line in lines)


# --- rich ------------------------------------------------------------------------------------------------------------------

_SIGNS: dict[Standing, tuple[str, str]] = {
    "passed": ("✓", "green"),
    "advice": ("!", "yellow"),
    "refused": ("✗", "bold red"),
}
_COLOURS = {"W": "blue", "O": "yellow", "K": "green", ".": "bright_black"}


def as_rich(plan: Plan) -> Group:
    """Return the plan for a terminal."""
    from rich.console import Group  # noqa: PLC0415 (costs a tenth of a second, JSON does not need it)
    from rich.text import Text  # noqa: PLC0415

    notes = [Text(note) for note in phase_notes(plan)]
    return Group(_pools_rich(plan), *notes, *(part for row in plan.workloads.values() for part in _workload_rich(row)))


def _pools_rich(plan: Plan) -> RenderableType:
    from rich.table import Table  # noqa: PLC0415

    verdict = "[red]refused[/]" if plan.violations else "[green]accepted[/]"
    table = Table(title=f"Stack [bold]{plan.stack}[/]: {verdict}", title_justify="left", expand=True)
    for heading in ("node pool", "machines", "capacity"):
        table.add_column(heading)
    table.add_column("USD an hour", justify="right")
    table.add_column("USD a month", justify="right")
    table.add_column("price", ratio=1, style="dim")
    for name, pool in plan.node_pools.items():
        cost = pool.cost
        table.add_row(name, _machines(pool), _capacity(pool), _hourly(cost), _monthly(cost), cost.note)
    table.add_section()
    table.add_row("all", "", "", f"[bold]{_hourly(plan.cost)}[/]", f"[bold]{_monthly(plan.cost)}[/]", plan.cost.note)
    return table


def _workload_rich(row: WorkloadPlan) -> Iterator[RenderableType]:
    from rich.padding import Padding  # noqa: PLC0415
    from rich.rule import Rule  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    yield Padding(Rule(f"workload {row.name}", align="left"), (1, 0, 0, 0))
    summary = Table.grid(padding=(0, 2))
    for label, value in _summary(row):
        summary.add_row(f"[dim]{label}[/]", Text(value, overflow="fold"))
    yield summary
    bar = Text(f"one GPU, {row.memory.usable_gib:.1f} GiB  ")
    for letter, cells in _cells(row):
        bar.append("█" * cells, style=_COLOURS[letter])
    yield Padding(bar, (1, 0))
    terms = Table(box=None, padding=(0, 2))
    terms.add_column("")
    terms.add_column("share")
    terms.add_column("GiB", justify="right")
    terms.add_column("what", style="dim")
    letters = {"weights": "W", "overhead": "O", "KV cache": "K", "free": "."}
    for kind, name, gib, meaning in _terms(row):
        terms.add_row(Text("■", style=_COLOURS[letters[kind]]), f"{kind}: {name}", f"{gib:.2f}", meaning)
    yield terms
    rules = Table(box=None, padding=(0, 2))
    rules.add_column("rule")
    rules.add_column("why", ratio=1)
    for verdict, why in _verdicts(row):
        sign, style = _SIGNS[_standing(verdict)]
        rules.add_row(Text(f"{sign} {verdict.rule.id}", style=style), Text(why))
    yield Padding(rules, (1, 0, 0, 0))
