"""The vLLM command and environment of a workload."""

from __future__ import annotations

import json
from dataclasses import dataclass

from serving.catalogue import Checkpoint, Gpu
from serving.parallelism import FABRIC_PLUGIN

PORT = 8000
MODELS_MOUNT = "/models"
CACHES_MOUNT = "/caches"

POD_ADDRESS = "POD_IP"
"""The variable that holds a pod's own address; the pod takes it from its status."""

# What several nodes need to talk over EFA (FI_* as in sc13912/eks-vllm-glm52-dlc-fsx).
_FABRIC = {
    # vLLM binds its unauthenticated traffic between nodes to this address (vLLM docs/usage/security.md).
    "VLLM_HOST_IP": f"$({POD_ADDRESS})",
    # The pod's interface; the other interfaces of the machine are EFA's and carry no IP.
    "NCCL_SOCKET_IFNAME": "eth0",
    "GLOO_SOCKET_IFNAME": "eth0",
    "FI_PROVIDER": "efa",
    "FI_EFA_USE_DEVICE_RDMA": "1",
    "FI_EFA_FORK_SAFE": "1",
    # Without aws-ofi-nccl in the image NCCL takes TCP without a word (NCCL 2.28.9 on two H100s). Asked for by name it ends the
    # engine with "Failed to initialize any NET plugin", minutes into its start.
    "NCCL_NET": FABRIC_PLUGIN,
    "NCCL_DEBUG": "INFO",
    "NCCL_DEBUG_SUBSYS": "INIT,NET",
}

# Probes and scrapes every few seconds would bury the log.
_QUIET_ENDPOINTS = "/health,/metrics,/ping"


@dataclass(frozen=True)
class KvOffload:
    """KV cache in the host's memory: vLLM's connector for it, and GiB over all ranks of the engine."""

    connector: str
    gib: int


@dataclass(frozen=True)
class EngineSettings:
    """What a plan decides about one engine; the flags and variables follow from it.

    `layer_partition` has the number of layers of each pipeline stage.
    """

    checkpoint: Checkpoint
    revision: str
    gpu: Gpu
    nodes: int
    tensor_parallel_size: int
    layer_partition: tuple[int, ...]
    decode_context_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    kv_cache_dtype: str
    speculative_tokens: int
    tool_calling: bool
    reasoning: bool
    load_format: str
    kv_offload: KvOffload | None
    shutdown_timeout_seconds: int
    engine_ready_timeout_seconds: int
    rendezvous_timeout_seconds: int
    cache_path: str


def default_kv_cache_dtype(gpu: Gpu) -> str:
    """Return the FP8 cache type that has an attention backend on a GPU; `auto` would be BF16."""
    return "fp8" if gpu.architecture == "hopper" else "fp8_e4m3"


def command(settings: EngineSettings) -> tuple[str, ...]:
    """Return the whole argv of the engine. Every flag that a rule judges is stated, none is left to a default.

    Where an engine runs on several nodes it is that of the first, which answers requests.
    """
    return (*_serve(settings), *_rendezvous(settings, rank="0"))


def worker_command(settings: EngineSettings) -> tuple[str, ...]:
    """Return the argv of the other nodes of an engine, which answer nobody; empty if there are none."""
    if settings.nodes == 1:
        return ()
    return (*_serve(settings), *_rendezvous(settings, rank="$(LWS_WORKER_INDEX)"), "--headless")


def _rendezvous(settings: EngineSettings, rank: str) -> tuple[str, ...]:
    """Return how the nodes of an engine find each other: vLLM's own way, without Ray (docs/serving/parallelism_scaling.md).

    The LeaderWorkerSet controller sets LWS_LEADER_ADDRESS and LWS_WORKER_INDEX in every container of a group.
    """
    if settings.nodes == 1:
        return ()
    return (
        *("--nnodes", str(settings.nodes)),
        *("--node-rank", rank),
        *("--master-addr", "$(LWS_LEADER_ADDRESS)"),
        # PyTorch waits ten minutes for the other nodes; one of them may have the weights still to fetch.
        *("--distributed-timeout-seconds", str(settings.rendezvous_timeout_seconds)),
    )


def _serve(settings: EngineSettings) -> tuple[str, ...]:
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
    if len(settings.layer_partition) > 1:
        words += ["--pipeline-parallel-size", str(len(settings.layer_partition))]
    words += _context_parallel(settings)
    if settings.speculative_tokens:
        mtp = {"method": "mtp", "num_speculative_tokens": settings.speculative_tokens}
        words += ["--speculative-config", json.dumps(mtp, separators=(",", ":"))]
    if settings.kv_offload is not None:
        words += ["--kv-transfer-config", _kv_transfer(settings.kv_offload)]
    if settings.tool_calling:
        parser = settings.checkpoint.architecture.tool_call_parser
        words += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    if settings.reasoning:
        words += ["--reasoning-parser", settings.checkpoint.architecture.reasoning_parser]
    return tuple(words)


def _context_parallel(settings: EngineSettings) -> tuple[str, ...]:
    """Return how many ranks share the KV cache out, and how they exchange what each has found in its share."""
    size = settings.decode_context_parallel_size
    if size == 1:
        return ()
    words = ("--decode-context-parallel-size", str(size))
    # vLLM's default for this model is all-to-all, which FlashMLA's sparse backend refuses in 0.31.0 (rule dcp-hopper).
    return (*words, "--dcp-comm-backend", "ag_rs") if settings.gpu.architecture == "hopper" else words


def _kv_transfer(offload: KvOffload) -> str:
    """Return the connector's settings as the recipe has them (recipes, taxonomy.yaml, offloading_cpu)."""
    extra = {"cpu_bytes_to_use": offload.gib * 2**30, "blocks_per_chunk": 4}
    config = {"kv_connector": offload.connector, "kv_role": "kv_both", "kv_connector_extra_config": extra}
    return json.dumps(config, separators=(",", ":"))


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
    if len(settings.layer_partition) > 1:
        # vLLM's own division begins stages at layers that take their index from the stage before (rule pp-split).
        env["VLLM_PP_LAYER_PARTITION"] = ",".join(map(str, settings.layer_partition))
    return env | _FABRIC if settings.nodes > 1 else env
