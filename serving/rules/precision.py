"""Rules about precision: which checkpoint and which cache type a GPU can serve right."""

from __future__ import annotations

from serving.facts import WorkloadFacts
from serving.memory import kv_record
from serving.rules.rule import Outcome, Rule, passed, refused, unknown


def _nvfp4_hopper(facts: WorkloadFacts) -> Outcome:
    if facts.checkpoint is None:
        return refused(unknown(facts))
    if facts.checkpoint.precision != "nvfp4":
        return passed(f"the checkpoint is {facts.checkpoint.precision.upper()}")
    if not facts.hopper:
        return passed(f"the GPU is {facts.gpu.name}")
    return refused(
        f"{facts.model} is NVFP4, which needs Blackwell; {facts.instance.name} has {facts.gpu.name} (Hopper)"
    )


def _kv_e4m3_hopper(facts: WorkloadFacts) -> Outcome:
    given = f"kv_cache_dtype is {facts.kv_cache_dtype} on {facts.gpu.name}"
    if not facts.hopper or facts.kv_cache_dtype != "fp8_e4m3":
        return passed(given)
    return refused(f"{given}, which has no attention backend: the engine does not start")


def _kv_auto_hopper(facts: WorkloadFacts) -> Outcome:
    given = f"kv_cache_dtype is {facts.kv_cache_dtype} on {facts.gpu.name}"
    if not facts.hopper or facts.kv_cache_dtype not in {"auto", "bfloat16"}:
        return passed(given)
    return refused(f"{given}: a BF16 cache with 1.7 times the bytes of fp8, and it has served gibberish")


def _kv_nvfp4(facts: WorkloadFacts) -> Outcome:
    given = f"kv_cache_dtype is {facts.kv_cache_dtype}"
    if facts.kv_cache_dtype != "nvfp4_ds_mla":
        return passed(given)
    if facts.hopper:
        return refused(f"{given}, which needs Blackwell; {facts.instance.name} has {facts.gpu.name} (Hopper)")
    if facts.engine is None:
        return refused(unknown(facts))
    if facts.engine.nvfp4_cache:
        return passed(f"{given}, which vLLM {facts.engine.version} has on {facts.gpu.name}")
    return refused(f"{given}, which vLLM {facts.engine.version} is not known to have; it came with 0.31.0")


def _long_context_quality(facts: WorkloadFacts) -> Outcome:
    given = f"kv_cache_dtype is {facts.kv_cache_dtype} on {facts.gpu.name}"
    if kv_record(facts.kv_cache_dtype, facts.gpu, facts.engine) != "bfloat16":
        return passed(given)
    return refused(
        f"{given}, a BF16 cache: GLM-5.1-FP8 got 5 of 503 questions of LongBench v2 right, another engine about 60 %"
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "nvfp4-hopper",
        "NVFP4 runs on Blackwell only",
        "unsupported checkpoint",
        "use precision fp8",
        "vLLM recipe zai-org/GLM-5.2",
        _nvfp4_hopper,
    ),
    Rule(
        "kv-e4m3-hopper",
        "No fp8_e4m3 cache on Hopper",
        "No valid attention backend: the engine does not start",
        "use kvCacheDtype fp8, or leave it out",
        "vLLM source, measured on an H200",
        _kv_e4m3_hopper,
    ),
    Rule(
        "kv-auto-hopper",
        "No BF16 cache on Hopper",
        "1.7 times the bytes a token, and past gibberish",
        "use kvCacheDtype fp8, or leave it out",
        "vllm#44550, vllm#54114",
        _kv_auto_hopper,
    ),
    Rule(
        "kv-nvfp4",
        "An NVFP4 cache has a release and a GPU that know it",
        "the engine does not start",
        "set kvCacheDtype to fp8_e4m3, or leave it out",
        "vLLM source, flashmla_sparse.py of 0.31.0 and 0.33.0",
        _kv_nvfp4,
    ),
    Rule(
        "long-context-quality",
        "The cache type is FP8, stated or by default",
        "wrong answers over long contexts",
        "set kvCacheDtype to fp8 on Hopper or fp8_e4m3 on Blackwell, or leave it out",
        "vllm#54114",
        _long_context_quality,
    ),
)
