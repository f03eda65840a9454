"""The vLLM command and environment of a workload."""

from __future__ import annotations

import json
from dataclasses import dataclass

from serving.catalogue import Checkpoint, Gpu

PORT = 8000
MODELS_MOUNT = "/models"
CACHES_MOUNT = "/caches"

# Probes and scrapes every few seconds would bury the log.
_QUIET_ENDPOINTS = "/health,/metrics,/ping"


@dataclass(frozen=True)
class EngineSettings:
    """What a plan decides about one engine; the flags and variables follow from it."""

    checkpoint: Checkpoint
    revision: str
    gpu: Gpu
    tensor_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    kv_cache_dtype: str
    speculative_tokens: int
    tool_calling: bool
    reasoning: bool
    load_format: str
    shutdown_timeout_seconds: int
    engine_ready_timeout_seconds: int
    cache_path: str


def default_kv_cache_dtype(gpu: Gpu) -> str:
    """Return the FP8 cache type that has an attention backend on a GPU; `auto` would be BF16."""
    return "fp8" if gpu.architecture == "hopper" else "fp8_e4m3"


def command(settings: EngineSettings) -> tuple[str, ...]:
    """Return the whole argv of the engine. Every flag that a rule judges is stated, none is left to a default."""
    words = [
        *("vllm", "serve", settings.checkpoint.repository),
        *("--revision", settings.revision),
        *("--served-model-name", settings.checkpoint.served_name),
        *("--host", "0.0.0.0"),
        *("--port", str(PORT)),
        *("--tensor-parallel-size", str(settings.tensor_parallel_size)),
        *("--max-model-len", str(settings.max_model_len)),
        *("--max-num-seqs", str(settings.max_num_seqs)),
        *("--max-num-batched-tokens", str(settings.max_num_batched_tokens)),
        *("--gpu-memory-utilization", str(settings.gpu_memory_utilization)),
        *("--kv-cache-dtype", settings.kv_cache_dtype),
        *("--load-format", settings.load_format),
        *("--shutdown-timeout", str(settings.shutdown_timeout_seconds)),
        *("--disable-access-log-for-endpoints", _QUIET_ENDPOINTS),
    ]
    if settings.speculative_tokens:
        mtp = {"method": "mtp", "num_speculative_tokens": settings.speculative_tokens}
        words += ["--speculative-config", json.dumps(mtp, separators=(",", ":"))]
    if settings.tool_calling:
        parser = settings.checkpoint.architecture.tool_call_parser
        words += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    if settings.reasoning:
        words += ["--reasoning-parser", settings.checkpoint.architecture.reasoning_parser]
    return tuple(words)


def environment(settings: EngineSettings) -> dict[str, str]:
    """Return the engine's environment, without what the stack file adds."""
    cache = settings.cache_path
    env = {
        # The weights are on the node, verified; nothing is fetched at start.
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": MODELS_MOUNT,
        "HF_HOME": f"{cache}/huggingface",
        # Compiled code, one folder for this image and this pod (rule stale-cache).
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "FLASHINFER_WORKSPACE_BASE": f"{cache}/flashinfer",
        "DG_JIT_CACHE_DIR": f"{cache}/deep_gemm",
        "CUDA_CACHE_PATH": f"{cache}/cuda",
        "XDG_CACHE_HOME": f"{cache}/xdg",
        # One thread for each of the engine's processes: more of them make loading slower (rule omp-load).
        "OMP_NUM_THREADS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(settings.engine_ready_timeout_seconds),
        # One request may not ask for more completions than the engine runs at once (vLLM docs/usage/security.md).
        "VLLM_MAX_N_SEQUENCES": str(settings.max_num_seqs),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }
    if settings.gpu.architecture == "blackwell" and settings.speculative_tokens:
        # FlashInfer's MNNVL all-reduce lowers MTP acceptance on these GPUs (llm-d's GLM guide).
        env["VLLM_FLASHINFER_ALLREDUCE_BACKEND"] = "trtllm"
    return env
