"""BF16 on one node in CEL: the catalogue and the memory model as tables, so that the API server can do the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

from serving import catalogue
from serving.admission.cel import Variable, literal, pattern, refusals
from serving.admission.reading import (
    DATA_PARALLEL_SIZE,
    GPU_MEMORY_UTILIZATION,
    NODES,
    PIPELINE_PARALLEL_SIZE,
    TENSOR_PARALLEL_SIZE,
    last_value,
)
from serving.catalogue import Checkpoint, Engine, Gpu
from serving.memory import DEFAULT_GPU_MEMORY_UTILIZATION, KV_BLOCK_TOKENS, MemoryBreakdown, ServingShape, breakdown
from serving.plan import RELEASE_LABEL, accelerator_class
from serving.reading import DATA_PARALLEL

_TENSOR_PARALLEL_SIZES = (1, 2, 4, 8, 16, 32, 64)
_PIPELINE_STAGES = (1, 2, 4)
_WITH_MTP = " with MTP"
_CLASS_LABEL = "accelerator.nvidia.com/class"
_INSTANCE_LABEL = "node.kubernetes.io/instance-type"

_SPECULATIVE = pattern(r"\x1f(?:--spec(?:ulative)?[-_][^.=\x1f]*|-sc)[.=\x1f]")
_COUNT = pattern(r"^[0-9]{1,4}$")
_FRACTION = pattern(r"^(?:0?[.][0-9]+|[01]|1[.]0+)$")

# The smallest engine that serves anything: what does not fit it fits none. The batch is the plan's default.
_BATCHED_TOKENS = 8192


def bf16_one_node() -> tuple[Variable, ...]:
    """Return the variables of rule bf16-one-node.

    They hold nothing of a stack's configuration: the API server goes by an old policy for a moment after a new one was
    written, and would refuse the workload of the same update. An image that the catalogue does not have says its release itself,
    by a label of its pod.
    """
    engines = catalogue.engines()
    return (
        Variable("precisions", literal({row.repository: row.precision for row in catalogue.checkpoints().values()})),
        Variable("digests", literal(sorted(row.digest for row in engines.values() if row.digest))),
        Variable("releases", literal(list(engines))),
        Variable("machines", literal(_machines())),
        Variable("gpus", literal(_gpus())),
        Variable("weights", literal(_weights())),
        Variable(
            "settings",
            rf"""variables.engines.map(m, {{
  "container": m.container, "unreadable": m.unreadable, "model": m.model,
  "known": dyn(m.container.?image.orValue("").find(r"sha256:[a-f0-9]{{64}}$") in variables.digests ||
    variables.templates.exists(t, t.spec == m.pod &&
      t.?metadata.?labels[?"{RELEASE_LABEL}"].orValue("") in variables.releases)),
  "machine": dyn(([
      ?m.pod.?nodeSelector[?"{_CLASS_LABEL}"],
      ?m.pod.?nodeSelector[?"{_INSTANCE_LABEL}"]
    ].filter(v, v in variables.machines).map(v, variables.machines[v]) + [""])[0]),
  "tp": dyn({last_value(TENSOR_PARALLEL_SIZE, "1")}),
  "pp": dyn({last_value(PIPELINE_PARALLEL_SIZE, "1")}),
  "dp": dyn({last_value(DATA_PARALLEL_SIZE, "1")}),
  "mtp": dyn(m.run.matches({_SPECULATIVE}) ? "{_WITH_MTP}" : ""),
  "nodes": dyn([{last_value(NODES, "1")}].map(n,
    object.kind == "LeaderWorkerSet" ? int(object.spec.?leaderWorkerTemplate.?size.orValue(1)) :
    n.matches({_COUNT}) ? int(n) : 1)[0]),
  "share": dyn({last_value(GPU_MEMORY_UTILIZATION, f"{DEFAULT_GPU_MEMORY_UTILIZATION:g}")})
}})""",
        ),
        Variable(
            "memory",
            rf"""variables.settings.map(m, {{
  "container": m.container, "settings": dyn(m),
  "share": dyn(m.share.matches({_FRACTION}) ? double(m.share) : 0.0),
  "ranks": dyn(m.tp.matches({_COUNT}) && m.pp.matches({_COUNT}) ? int(m.tp) * int(m.pp) : 0),
  "gpus": dyn(int(variables.gpus[?m.machine].?gpus.orValue(0.0)) * m.nodes),
  "nodes": dyn((m.nodes == 1 ? "one " + m.machine + " node" : string(m.nodes) + " " + m.machine + " nodes")),
  "usable": dyn(variables.gpus[?m.machine].?usable.orValue(0.0)),
  "overhead": dyn(variables.gpus[?m.machine][?"overhead" + m.mtp].orValue(0.0)),
  "weights": dyn(variables.weights[?m.model][?m.tp + "x" + m.pp + m.mtp].orValue(0.0))
}})""",
        ),
        refusals(
            rf"""variables.memory.map(m, {{"container": m.container, "why": dyn(
  m.settings.unreadable != "" ? m.settings.unreadable :
  !(m.settings.model in variables.precisions) ?
    "the catalogue does not know the checkpoint " + (m.settings.model == "" ? "(none named)" : m.settings.model) :
  variables.precisions[m.settings.model] != "bf16" ? "" :
  !m.settings.known ?
    "the catalogue does not know the vLLM release behind image " + m.container.image :
  m.settings.machine == "" ?
    "cannot be judged: nothing says on which GPUs BF16 weights would be; select {_CLASS_LABEL} with a machine of the catalogue" :
  !(m.settings.dp.matches({_COUNT}) && int(m.settings.dp) == 1) ? "cannot be judged: {DATA_PARALLEL}" :
  m.weights == 0.0 ? "cannot be judged: no arithmetic for " + m.settings.tp + " ranks in " + m.settings.pp + " stages" :
  m.ranks > m.gpus ? string(m.ranks) + " ranks are more than the " + string(m.gpus) + " GPUs of " + m.nodes :
  m.share == 0.0 ? "cannot be judged: gpu_memory_utilization " + m.settings.share + " is no fraction" :
  m.share * m.usable > m.weights + m.overhead ? "" :
  "BF16 needs %.1f GiB of weights on %s of %s; at gpu_memory_utilization %s vLLM has %.1f of %.1f GiB: ".format([
    m.weights, m.ranks == m.gpus ? "each GPU" : "each of " + string(m.ranks) + " GPUs", m.nodes, string(m.share),
    m.share * m.usable, m.usable]) +
  (m.share * m.usable < m.weights ? "%.1f GiB short before" : "%.1f GiB left for").format(
    [m.share * m.usable < m.weights ? m.weights - m.share * m.usable : m.share * m.usable - m.weights]) +
  " at least %.1f GiB of overhead and any KV cache".format([m.overhead])
)}})"""
        ),
    )


def _machines() -> dict[str, str]:
    """Return the label values that name a machine, with its shape."""
    rows = catalogue.instance_types().values()
    return {accelerator_class(row): row.shape for row in rows} | {row.name: row.shape for row in rows}


def _gpus() -> dict[str, dict[str, float]]:
    """Return for each machine its GPUs, the GiB of one, and what the smallest engine takes of them beside its weights."""
    checkpoint = next(_bf16_checkpoints())
    return {
        row.shape: {
            "gpus": float(row.gpus),
            "usable": row.gpu.usable_gib,
        }
        | {
            # of the releases, the one that takes most
            f"overhead{_WITH_MTP if mtp else ''}": round(
                max(
                    _smallest(checkpoint, engine, row.gpu, row.gpus, 1, mtp=mtp).overhead_gib
                    for engine in catalogue.engines().values()
                ),
                2,
            )
            for mtp in (False, True)
        }
        for row in catalogue.instance_types().values()
    }


def _weights() -> dict[str, dict[str, float]]:
    """Return for each BF16 checkpoint the GiB of weights on one GPU, by ranks x stages, with and without MTP."""
    # Weights are the same on any GPU and of any release.
    gpu = next(iter(catalogue.instance_types().values())).gpu
    engine = next(iter(catalogue.engines().values()))
    return {
        row.repository: {
            f"{ranks}x{stages}{_WITH_MTP if mtp else ''}": round(
                _smallest(row, engine, gpu, ranks, stages, mtp=mtp).weights_gib, 2
            )
            for ranks in _TENSOR_PARALLEL_SIZES
            for stages in _PIPELINE_STAGES
            for mtp in (False, True)
        }
        for row in _bf16_checkpoints()
    }


def _bf16_checkpoints() -> Iterator[Checkpoint]:
    return (row for row in catalogue.checkpoints().values() if row.precision == "bf16")


def _smallest(
    checkpoint: Checkpoint, engine: Engine, gpu: Gpu, ranks: int, stages: int, *, mtp: bool
) -> MemoryBreakdown:
    """Return the memory of the smallest engine of a release."""
    return breakdown(
        ServingShape(
            checkpoint=checkpoint,
            engine=engine,
            gpu=gpu,
            tensor_parallel_size=ranks,
            pipeline_parallel_size=stages,
            max_model_len=KV_BLOCK_TOKENS,
            max_num_seqs=1,
            max_num_batched_tokens=_BATCHED_TOKENS,
            kv_cache_dtype="fp8",
            speculative_tokens=1 if mtp else 0,
        )
    )
