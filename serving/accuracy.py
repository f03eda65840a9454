"""The memory model against every measured and published KV cache pool: predicted, real, error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serving import catalogue
from serving.catalogue import Pool
from serving.memory import COLLECTIVES_GIB, MemoryBreakdown, ServingShape, breakdown

WORST_ERROR = 0.03  # what the model promises on every pool with a figure, save those whose record says why not


@dataclass(frozen=True)
class Comparison:
    """One figure of one real pool beside the model's. `error` is relative to the real figure."""

    pool: Pool
    figure: str
    real: float
    predicted: float

    @property
    def error(self) -> float:
        """How far the prediction is off: 0.01 is one per cent too much."""
        return self.predicted / self.real - 1


@dataclass(frozen=True)
class Start:
    """Whether an engine started, beside what the model says of it, before any margin."""

    pool: Pool
    real: bool
    predicted: bool


def shape_of(pool: Pool) -> ServingShape:
    """Return a pool's settings as the memory model takes them; a single rank has no collectives."""
    return ServingShape(
        checkpoint=pool.checkpoint,
        engine=pool.engine,
        gpu=pool.gpu,
        tensor_parallel_size=pool.tensor_parallel_size,
        pipeline_parallel_size=pool.pipeline_parallel_size,
        max_model_len=pool.max_model_len,
        max_num_seqs=pool.max_num_seqs,
        max_num_batched_tokens=pool.max_num_batched_tokens,
        kv_cache_dtype=pool.kv_cache_dtype,
        speculative_tokens=pool.speculative_tokens,
        gpu_memory_utilization=pool.gpu_memory_utilization,
        collectives_gib=COLLECTIVES_GIB if pool.on == "node" else 0.0,
    )


def comparisons() -> list[Comparison]:
    """Return every figure of every pool, in the order of the records."""
    return [row for pool in catalogue.pools().values() for row in _compared(pool, breakdown(shape_of(pool)))]


def _compared(pool: Pool, memory: MemoryBreakdown) -> Iterator[Comparison]:
    for figure, real, predicted in (
        ("GiB", pool.kv_gib, memory.kv_pool_gib),
        ("tokens", pool.pool_tokens, memory.kv_pool_tokens),
        ("full-length requests", pool.full_length_requests, memory.full_length_requests),
    ):
        if real is not None:
            yield Comparison(pool, figure, real, predicted)


def starts() -> list[Start]:
    """Return what is known of starting, in the order of the records."""
    return [
        Start(pool, pool.starts, memory.needed_gib <= memory.kv_pool_gib)
        for pool in catalogue.pools().values()
        if pool.starts is not None
        for memory in [breakdown(shape_of(pool))]
    ]


def as_markdown() -> str:
    """Return the page for people: both tables, with sources."""
    figures = [f"| {_cells(row)} |" for row in comparisons()]
    started = [
        f"| {row.pool.name} | {_setting(row.pool)} | {_yes(row.real)} | {_yes(row.predicted)} | {row.pool.source} |"
        for row in starts()
    ]
    worst = max((row for row in comparisons() if row.pool.excepted is None), key=lambda row: abs(row.error))
    return "\n".join(
        [
            *_INTRODUCTION,
            f"The largest error is {worst.error:+.1%} ({worst.pool.name}, {worst.figure}); "
            f"the tests allow {WORST_ERROR:.0%}.",
            "",
            "| pool | engine | settings | figure | real | predicted | error | source |",
            "|---|---|---|---|---:|---:|---:|---|",
            *figures,
            "",
            *_exceptions(),
            "Whether an engine starts, by the model before its margin of 1 GiB:",
            "",
            "| pool | settings | started | predicted | source |",
            "|---|---|---|---|---|",
            *started,
            "",
        ]
    )


_INTRODUCTION = (
    "# How right is the memory model?",
    "",
    "<!-- written by: python -m serving accuracy -->",
    "",
    "Every KV cache pool of GLM-5.2 that was measured or published with enough settings to predict it, beside what",
    "`serving/memory.py` says. A rank is one of eight on a real H200 without collectives; a node is a real node.",
    "Nobody has published a pool of 8xB200: there the terms of an H200 are assumed.",
    "",
)


def _cells(row: Comparison) -> str:
    form = ",.0f" if row.figure == "tokens" else ",.2f"
    name = f"{row.pool.name} *" if row.pool.excepted else row.pool.name
    engine = f"{row.pool.engine.version}, {row.pool.on}"
    figures = f"{row.real:{form}} | {row.predicted:{form}} | {row.error:+.1%}"
    return f"{name} | {engine} | {_setting(row.pool)} | {row.figure} | {figures} | {row.pool.source}"


def _setting(pool: Pool) -> str:
    ranks = f"TP{pool.tensor_parallel_size}" + (
        f" x PP{pool.pipeline_parallel_size}" if pool.pipeline_parallel_size > 1 else ""
    )
    mtp = f"MTP {pool.speculative_tokens}" if pool.speculative_tokens else "no MTP"
    return (
        f"{pool.gpu.name} {ranks}, {pool.kv_cache_dtype}, {pool.max_model_len:,} tokens, {mtp}, "
        f"{pool.max_num_seqs:,} requests, {pool.max_num_batched_tokens:,} batched, {pool.gpu_memory_utilization:g}"
    )


def _exceptions() -> Iterator[str]:
    for pool in catalogue.pools().values():
        if pool.excepted is not None:
            yield f"\\* {pool.name} is excepted: {pool.excepted}."
            yield ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"
