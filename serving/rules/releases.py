"""Rules about releases: what a vLLM release is known to do wrong with this model."""

from __future__ import annotations

from serving.facts import WorkloadFacts
from serving.rules.rule import Outcome, Parameter, Rule, passed, refused, unknown

_INDEXER_EXPAND_TOKENS = 325_000
_DEEPGEMM_TOKENS = 16_384
_DEEPGEMM_KERNELS = frozenset({"DeepGemmFp8BlockScaledMMKernel", "FlashInferFp8DeepGEMMDynamicBlockScaledKernel"})


def _engine_too_old(facts: WorkloadFacts, release: str | None = None) -> Outcome:
    if facts.engine is None or facts.checkpoint is None:
        return refused(unknown(facts))
    least = facts.checkpoint.minimum_engine
    given = f"vLLM {facts.engine.version} serves {facts.model} from {least} on"
    if not facts.engine.at_least(least):
        return refused(f"vLLM {facts.engine.version} does not know {facts.model}, which needs {least} or later")
    if release is not None and not facts.engine.at_least(release):
        return refused(f"vLLM {facts.engine.version} is older than {release}, the oldest that is allowed")
    return passed(given)


def _b200_garbage_023(facts: WorkloadFacts) -> Outcome:
    if facts.gpu.name != "B200":
        return passed(f"the GPU is {facts.gpu.name}")
    if facts.engine is None or facts.checkpoint is None:
        return refused(unknown(facts))
    if not facts.engine.has_fault("b200-garbage-023") or facts.checkpoint.precision != "fp8":
        return passed(f"{facts.checkpoint.precision.upper()} on vLLM {facts.engine.version}")
    return refused(
        f"vLLM {facts.engine.version} with {facts.model} on {facts.instance.shape} serves garbage (about 1 % MTP acceptance)"
    )


def _indexer_expand_023(facts: WorkloadFacts) -> Outcome:
    context = facts.context_tokens
    if facts.engine is None or context is None:
        return refused(unknown(facts))
    if not facts.engine.has_fault("indexer-expand-023") or context < _INDEXER_EXPAND_TOKENS:
        return passed(f"vLLM {facts.engine.version} with {context:,} tokens")
    return refused(
        f"vLLM {facts.engine.version} kills its workers under concurrent load at max_model_len {context:,} "
        f"(from about {_INDEXER_EXPAND_TOKENS:,} on)"
    )


def _deepgemm_b200_023(facts: WorkloadFacts) -> Outcome:
    if facts.gpu.name != "B200":
        return passed(f"the GPU is {facts.gpu.name}")
    given = f"max_num_batched_tokens is {facts.max_num_batched_tokens:,}"
    if facts.max_num_batched_tokens <= _DEEPGEMM_TOKENS:
        return passed(given)
    if facts.engine is None:
        return refused(unknown(facts))
    disabled = facts.variable("VLLM_DISABLED_KERNELS")
    kernels_off = disabled is not None and {kernel.strip() for kernel in disabled.split(",")} >= _DEEPGEMM_KERNELS
    if facts.variable("VLLM_USE_DEEP_GEMM") == "0" or kernels_off:
        return passed(f"{given}, and DeepGEMM's linear kernels are off")
    if not facts.engine.has_fault("deepgemm-b200-023"):
        return passed(f"{given} on vLLM {facts.engine.version}")
    return refused(f"{given} on B200: vLLM {facts.engine.version} fails in DeepGEMM above {_DEEPGEMM_TOKENS:,}")


def _fi_moe_hang_023(facts: WorkloadFacts) -> Outcome:
    if facts.variable("VLLM_USE_FLASHINFER_MOE_FP8") in {None, "", "0"}:
        return passed("VLLM_USE_FLASHINFER_MOE_FP8 is off")
    if facts.engine is None:
        return refused(unknown(facts))
    if not facts.engine.has_fault("fi-moe-hang-023"):
        return passed(f"VLLM_USE_FLASHINFER_MOE_FP8 is on, with vLLM {facts.engine.version}")
    return refused(f"VLLM_USE_FLASHINFER_MOE_FP8 is on, and vLLM {facts.engine.version} hangs with it")


def _host_mem_028(facts: WorkloadFacts) -> Outcome:
    if facts.memory_limited:
        return passed("the container has a memory limit")
    if facts.engine is None:
        return refused(unknown(facts))
    if not facts.engine.has_fault("host-mem-028"):
        return passed(f"vLLM {facts.engine.version} is not reported to do so")
    return refused(
        f"vLLM {facts.engine.version} takes all of the host's memory at start, and the container has no memory limit"
    )


def _told_of(facts: WorkloadFacts, fault: str, what: str) -> Outcome:
    if facts.engine is None:
        return refused(unknown(facts))
    if facts.engine.has_fault(fault):
        return refused(f"vLLM {facts.engine.version} {what}")
    return passed(f"vLLM {facts.engine.version} is not reported to do so")


def _rss_leak(facts: WorkloadFacts) -> Outcome:
    return _told_of(facts, "rss-leak", "leaks host memory: 721 to 800 GiB over tens of hours; it was mended in 0.26.0")


def _mrv2(facts: WorkloadFacts) -> Outcome:
    return _told_of(facts, "mrv2", "lacks scheduling fixes of 0.25.0")


def _nixl_mtp(facts: WorkloadFacts) -> Outcome:
    if facts.kv_connector != "NixlConnector" or not facts.mtp:
        return passed("NIXL and MTP are not on together")
    return _told_of(facts, "nixl-mtp", "lacks the fix for NIXL with MTP, which came with 0.25.0")


def _no_deepgemm(facts: WorkloadFacts) -> Outcome:
    if not facts.hopper:
        return passed(f"the GPU is {facts.gpu.name}")
    if facts.checkpoint is None:
        return refused(unknown(facts))
    if facts.checkpoint.precision != "fp8":
        return passed(f"the checkpoint is {facts.checkpoint.precision.upper()}")
    if facts.variable("VLLM_USE_DEEP_GEMM") != "0":
        return passed("DeepGEMM is on")
    return refused(f"VLLM_USE_DEEP_GEMM is off on {facts.gpu.name}: FP8 runs on slower kernels")


RULES: tuple[Rule, ...] = (
    Rule(
        "engine-too-old",
        "The vLLM release knows the model",
        "the engine does not start",
        "use a later vLLM release",
        "vLLM recipes zai-org/GLM-5.2 and zai-org/GLM-5.3",
        _engine_too_old,
        parameters=(
            Parameter(
                "minRelease",
                "release",
                "the oldest vLLM release, where the model's own minimum is older",
                {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+$"},
            ),
        ),
    ),
    Rule(
        "b200-garbage-023",
        "vLLM 0.23 does not serve FP8 on B200",
        "garbage behind a green health check",
        "use a later vLLM release",
        "vllm#46367",
        _b200_garbage_023,
    ),
    Rule(
        "indexer-expand-023",
        "vLLM 0.23 does not serve long contexts",
        "workers die seconds into concurrent load",
        "use vLLM 0.24.0 or later",
        "vllm#46074, vllm#46679",
        _indexer_expand_023,
    ),
    Rule(
        "deepgemm-b200-023",
        "vLLM 0.23 on B200 batches at most 16,384 tokens with DeepGEMM",
        "the engine does not start",
        "set maxNumBatchedTokens to 16384 or less, or use a later vLLM release",
        "kaitakuai glm-5.2-fp8-8xb200",
        _deepgemm_b200_023,
    ),
    Rule(
        "fi-moe-hang-023",
        "vLLM 0.23 has no FlashInfer MoE kernel for FP8",
        "the engine hangs",
        "take VLLM_USE_FLASHINFER_MOE_FP8 out of env",
        "kaitakuai glm-5.2-fp8-8xb200",
        _fi_moe_hang_023,
    ),
    Rule(
        "host-mem-028",
        "vLLM 0.28 has a memory limit",
        "the whole node freezes at start",
        "give the container a memory limit, or use another vLLM release",
        "vllm#54237 (open)",
        _host_mem_028,
    ),
    Rule(
        "nixl-mtp",
        "NIXL with MTP has a release with the fix",
        "wrong draft tokens after a transfer",
        "use vLLM 0.25.0 or later",
        "vllm#46694",
        _nixl_mtp,
    ),
    Rule(
        "rss-leak",
        "The release does not leak host memory",
        "the pod is killed after days",
        "use vLLM 0.26.0 or later",
        "vllm#44490",
        _rss_leak,
        level="advisory",
    ),
    Rule(
        "mrv2",
        "The release has the scheduler's fixes",
        "requests that wait longer than need be",
        "use vLLM 0.25.0 or later",
        "vllm#47238, vllm#47448, vllm#47381",
        _mrv2,
        level="advisory",
    ),
    Rule(
        "no-deepgemm",
        "DeepGEMM is on for FP8 on Hopper",
        "low throughput",
        "take VLLM_USE_DEEP_GEMM out of env",
        "vLLM recipe zai-org/GLM-5.2",
        _no_deepgemm,
        level="advisory",
    ),
)
