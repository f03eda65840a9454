"""Rules about loading: which loader reads FP8 weights right, and what a start needs."""

from __future__ import annotations

from serving.facts import WorkloadFacts
from serving.rules.rule import Outcome, Rule, at_least, passed, refused, unknown
from serving.timing import expected_start_seconds

_STREAMERS = "runai_streamer"
_IN_ORDER = ("auto", "safetensors")  # loaders that hand tensors over in the files' own order


def _runai_load(facts: WorkloadFacts) -> Outcome:
    given = f"load_format is {facts.load_format}"
    if not facts.load_format.startswith(_STREAMERS):
        return passed(given)
    if facts.engine is None:
        return refused(f"{given}, and {unknown(facts)}")
    if facts.engine.runai_streamer_safe:
        return passed(f"{given}, which vLLM {facts.engine.version} reads right")
    return refused(
        f"{given}, which is not known to be safe in vLLM {facts.engine.version}: "
        "it splits FP8 weight and scale pairs and serves gibberish"
    )


def _runai_mtp_028(facts: WorkloadFacts) -> Outcome:
    given = f"load_format is {facts.load_format}"
    if not facts.load_format.startswith(_STREAMERS) or not facts.mtp:
        return passed(f"{given}, MTP is {'on' if facts.mtp else 'off'}")
    if facts.engine is None:
        return refused(f"{given} with MTP, and {unknown(facts)}")
    if facts.engine.runai_streamer_safe_with_mtp:
        return passed(f"{given} with MTP, which vLLM {facts.engine.version} reads right")
    return refused(
        f"{given} with MTP, which is not known to be safe in vLLM {facts.engine.version}: the MTP layer is read wrong even where "
        "the main model is not"
    )


def _reorder_load(facts: WorkloadFacts) -> Outcome:
    given = f"load_format is {facts.load_format}"
    if facts.load_format in _IN_ORDER or facts.load_format.startswith(_STREAMERS):
        return passed(given)
    if facts.engine is None:
        return refused(f"{given}, and {unknown(facts)}")
    engine = facts.engine
    with_mtp = " with MTP" if facts.mtp else ""
    if engine.runai_streamer_safe_with_mtp if facts.mtp else engine.runai_streamer_safe:
        return passed(f"{given}{with_mtp}, and vLLM {engine.version} keeps weight and scale pairs together")
    return refused(
        f"{given}{with_mtp}, which may hand tensors over in another order; vLLM {engine.version} is not known to keep FP8 weight "
        "and scale pairs together then"
    )


def _ready_600(facts: WorkloadFacts, spare: int = 0) -> Outcome:
    if facts.checkpoint is None:
        return refused(unknown(facts))
    needed, given = expected_start_seconds(facts.checkpoint), facts.engine_ready_seconds
    wanted = f", and {spare} s are to be spare" if spare else ""
    why = f"{facts.model} takes about {needed} s to load and start{wanted}, VLLM_ENGINE_READY_TIMEOUT_S is {given}"
    return passed(why) if needed + spare < given else refused(why)


def _omp_load(facts: WorkloadFacts) -> Outcome:
    threads = facts.variable("OMP_NUM_THREADS")
    if threads == "1":
        return passed("OMP_NUM_THREADS is 1")
    return refused(f"OMP_NUM_THREADS is {threads or 'not set'}: since vLLM pull request 49919 weights then load slowly")


def _warmup_b200(facts: WorkloadFacts) -> Outcome:
    if facts.gpu.name != "B200":
        return passed(f"the GPU is {facts.gpu.name}")
    if facts.variable("VLLM_DEEP_GEMM_WARMUP") == "skip":
        return passed("DeepGEMM's warm-up is skipped")
    given = facts.engine_ready_seconds
    why = f"DeepGEMM's warm-up lengthens the start on {facts.gpu.name}, VLLM_ENGINE_READY_TIMEOUT_S is {given}"
    return passed(why) if given >= _LONG_START_SECONDS else refused(why)


_LONG_START_SECONDS = 1800  # half an hour: what the budget of this product's own stacks leaves room for


RULES: tuple[Rule, ...] = (
    Rule(
        "runai-load",
        "The loader does not reorder FP8 tensors",
        "gibberish behind a green health check",
        "use loadFormat auto",
        "vllm#43163, vllm#46078, vLLM pull request 46168",
        _runai_load,
    ),
    Rule(
        "runai-mtp-028",
        "The MTP layer is loaded by a loader that reads it right",
        "draft tokens that are never accepted, or gibberish",
        "use loadFormat auto",
        "vllm#46078, vLLM pull request 46168; by reading the source of 0.28.0",
        _runai_mtp_028,
    ),
    Rule(
        "reorder-load",
        "Loaders that reorder tensors have a release that allows for it",
        "gibberish behind a green health check",
        "use loadFormat auto",
        "SGLang#29998, vllm#56583, vLLM pull request 46168",
        _reorder_load,
    ),
    Rule(
        "ready-600",
        "The engine has the time that its start takes",
        "the engine is killed while it loads, again and again",
        "leave VLLM_ENGINE_READY_TIMEOUT_S to the plan, or set it to 3600",
        "vLLM envs.py; vllm#46367 for the load",
        _ready_600,
        parameters=(at_least("minSpareSeconds", "spare", "seconds left after the start that is expected", 0),),
    ),
    Rule(
        "omp-load",
        "Loading has one OpenMP thread in each process",
        "a slow load",
        "set OMP_NUM_THREADS to 1",
        "vLLM perf-eval, vLLM pull request 49919",
        _omp_load,
        level="advisory",
    ),
    Rule(
        "warmup-b200",
        "DeepGEMM's warm-up on B200 has the time it takes",
        "a slow start, or none within the engine's time",
        "set VLLM_DEEP_GEMM_WARMUP to skip, or give the engine half an hour",
        "vLLM recipe zai-org/GLM-5.2",
        _warmup_b200,
        level="advisory",
    ),
)
