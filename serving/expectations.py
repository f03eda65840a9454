"""What the readiness gate expects of a workload's engine: its expect file, from the plan (docs/gate.md)."""

from __future__ import annotations

from serving.command import EngineSettings
from serving.config import GateConfig
from serving.timing import Timing

# How far the pool may fall below the memory model. It meets published pools within 1.5 %, but nobody has measured a B200, and
# on an H200 a tenth of the pool is the 3 GiB that one keeps free. An indexer cache in every layer costs 12 %, a BF16 cache 42 %.
_KV_CACHE_MARGIN = 0.10

# Mean acceptance length of GLM-5.2's MTP layer for 1 to 8 draft tokens, coding with thinking on, B300 (InferenceX).
ACCEPTANCE_LENGTHS = (1.84, 2.50, 2.99, 3.33, 3.61, 3.78, 3.91, 4.06)

# The share of that which is still taken for health. A broken layer has about 1 % accepted (vllm#46367, #46834), other texts
# than code far more than a quarter.
_ACCEPTANCE_SHARE = 0.25

# Right sums of the gate's set. A broken build solved 1 % of GSM8K, a right one 95 % (vllm#46834).
_ACCURACY_THRESHOLD = 0.75


def acceptance_floor(speculative_tokens: int) -> float:
    """Return the least share of draft tokens that must be accepted, 0 without speculation."""
    if speculative_tokens == 0:
        return 0.0
    published = (ACCEPTANCE_LENGTHS[speculative_tokens - 1] - 1) / speculative_tokens
    return round(_ACCEPTANCE_SHARE * published, 3)


def long_needle_tokens(gate: GateConfig, max_model_len: int) -> int:
    """Return the tokens of the longer needle that a stack file asks for, 0 for none."""
    return int(max_model_len * (gate.long_needle_share or 0))


def expectations(
    settings: EngineSettings, *, image: str, engine_version: str, kv_cache_tokens: int, times: Timing, gate: GateConfig
) -> dict[str, object]:
    """Return the expect file as plain data. Everything the plan promises stands in it, nothing is left to a default."""
    return {
        "servedModelName": settings.checkpoint.served_name,
        "image": image,
        "modelRevision": settings.revision,
        "engineVersion": engine_version,
        "maxModelLen": settings.max_model_len,
        "kvCacheTokensPredicted": kv_cache_tokens,
        "kvCacheTokensLeast": int(kv_cache_tokens * (1 - _KV_CACHE_MARGIN)),
        "toolCalling": settings.tool_calling,
        "reasoning": settings.reasoning,
        "thinking": settings.checkpoint.thinking,
        "reasoningEffort": settings.checkpoint.least_effort,
        "speculativeTokens": settings.speculative_tokens,
        "acceptanceFloor": acceptance_floor(settings.speculative_tokens),
        "accuracyThreshold": _ACCURACY_THRESHOLD,
        "longNeedleTokens": long_needle_tokens(gate, settings.max_model_len) or None,
        "recheckSeconds": None if gate.recheck_minutes is None else gate.recheck_minutes * 60,
        "requestSeconds": times.gate_request_seconds,
        "deadlineSeconds": times.gate_deadline_seconds,
    }
