"""Memory of one GPU (one tensor-parallel rank): weights, every other term vLLM charges, and the KV cache pool left.

The terms were measured with vLLM 0.26.0 on a real H200 (rank 0 of 8, dummy weights, real engine start) and meet three
published pools they were not fitted to within 1.5 %. All sizes are GiB = 2^30 bytes unless a name says otherwise.
Weights are computed from the architecture, so any tensor parallel size and precision follows from the same lines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal

from serving.catalogue import Architecture, Checkpoint, Engine, Gpu
from serving.parallelism import default_partition, stage_layers

GIB = 2**30

# Kept free beside the terms below: they are a model, and a pool that is one token short ends an hour's start (measured
# against real ranks the terms are within 0.3 GiB, and the collectives' term rests on one published point).
MARGIN_GIB = 1.0

# vLLM's own default. What it leaves (8 %) has to hold the CUDA context, NCCL's start-up buffers, what CUDA graphs take
# beyond their estimate (0.4 to 0.6 GiB) and a long prefill's scratch (2.0 GiB): measured on an H200.
DEFAULT_GPU_MEMORY_UTILIZATION = 0.92

# What eight real GPUs take beyond a single measured rank: recipes#893 has 25.94 GiB of KV cache where the rank has 28.51.
COLLECTIVES_GIB = 2.6

# What a rank gives up for decode context parallelism: on 4xRTX PRO 6000 a pool of 164,160 tokens of 53,940 B became 553,984 over
# four ranks (vllm#47779), 25,664 a rank fewer than a quarter each. Nobody has published such a pair for Hopper.
CONTEXT_PARALLELISM_GIB = 1.3

KV_BLOCK_TOKENS = 64
_INDEXER_KEY_BYTES = 132  # 128 of key and 4 of scale per indexer layer (vLLM `DeepseekV32IndexerCache`)
_BF16 = 2
_FP32 = 4

# Largest number of tokens a CUDA graph is captured for (the grid of sizes below it is in `_capture_sizes`).
_CAPTURE_LIMIT = 512

_LONG_CONTEXT_TOKENS = 262_144  # above it, releases from 0.33 on use the smaller prefill workspace

KvRecord = Literal["fp8_ds_mla", "fp8_e4m3", "bfloat16", "nvfp4_ds_mla"]
_RECORD_BYTES: dict[KvRecord, int] = {
    "fp8_ds_mla": 656,  # 512 + 4 scales of 4 B + 64 rope values of 2 B (Hopper, FLASHMLA_SPARSE)
    "fp8_e4m3": 576,  # Blackwell, FLASHINFER_MLA_SPARSE
    "bfloat16": 1152,
    "nvfp4_ds_mla": 352,  # SM100, from 0.31 on
}


@dataclass(frozen=True)
class ServingShape:
    """Everything that one rank's memory depends on. `speculative_tokens` is 0 without MTP."""

    checkpoint: Checkpoint
    engine: Engine
    gpu: Gpu
    tensor_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_dtype: str
    speculative_tokens: int
    gpu_memory_utilization: float = DEFAULT_GPU_MEMORY_UTILIZATION
    pipeline_parallel_size: int = 1
    layer_partition: tuple[int, ...] | None = None  # of the pipeline stages; vLLM's own division if None
    decode_context_parallel_size: int = 1
    collectives_gib: float = COLLECTIVES_GIB

    @property
    def mtp(self) -> bool:
        """Whether multi-token prediction is on."""
        return self.speculative_tokens > 0


@dataclass(frozen=True)
class Term:
    """One named share of a GPU's memory, in GiB, and what it is."""

    name: str
    gib: float
    meaning: str


@dataclass(frozen=True)
class MemoryBreakdown:
    """Where one GPU's memory goes. The pool may come out negative: then the engine cannot start."""

    usable_gib: float
    requested_gib: float
    weights: tuple[Term, ...]
    overhead: tuple[Term, ...]
    kv_bytes_per_token: int
    max_model_len: int
    decode_context_parallel_size: int = 1

    @property
    def weights_gib(self) -> float:
        """Weights as vLLM charges them: parameters, rope table, absorbed projections, top-k buffers."""
        return sum(term.gib for term in self.weights)

    @property
    def overhead_gib(self) -> float:
        """Workspace, activations, CUDA graphs, collectives."""
        return sum(term.gib for term in self.overhead)

    @property
    def kv_pool_gib(self) -> float:
        """What is left for the KV cache."""
        return self.requested_gib - self.weights_gib - self.overhead_gib

    @property
    def kv_pool_tokens(self) -> int:
        """Tokens in the pool, in whole blocks of 64; 0 if the pool is negative.

        Decode context parallelism deals a request's tokens out to that many ranks, so their pools add up.
        """
        blocks = int(self.kv_pool_gib * GIB // (KV_BLOCK_TOKENS * self.kv_bytes_per_token))
        return max(blocks, 0) * KV_BLOCK_TOKENS * self.decode_context_parallel_size

    @property
    def free_gib(self) -> float:
        """What `gpu_memory_utilization` leaves outside vLLM's account."""
        return self.usable_gib - self.requested_gib

    @property
    def full_length_requests(self) -> float:
        """How many requests of `max_model_len` tokens fit at once (vLLM logs the same as maximum concurrency)."""
        return self.kv_pool_tokens / self.max_model_len

    @property
    def needed_gib(self) -> float:
        """KV cache of one request of full length, on one GPU."""
        return self.max_model_len * self.kv_bytes_per_token / self.decode_context_parallel_size / GIB

    @property
    def fits(self) -> bool:
        """Whether one full-length request fits with the margin kept."""
        return self.holds(1)

    def holds(self, requests: int) -> bool:
        """Whether so many full-length requests fit at once with the margin kept."""
        return requests * self.needed_gib <= self.kv_pool_gib - MARGIN_GIB


def kv_record(kv_cache_dtype: str, gpu: Gpu, engine: Engine | None = None) -> KvRecord:
    """Return the layout of one MLA cache entry for a `--kv-cache-dtype` on a GPU.

    `fp8` is `fp8_ds_mla` on Hopper and `fp8_e4m3` on Blackwell. `auto` is bf16, except on Blackwell from 0.33 on.
    """
    if kv_cache_dtype == "nvfp4_ds_mla":
        return "nvfp4_ds_mla"
    if kv_cache_dtype in {"auto", "bfloat16"}:
        modern = engine is not None and engine.number >= (0, 33, 0) and gpu.architecture == "blackwell"
        return "fp8_e4m3" if modern and kv_cache_dtype == "auto" else "bfloat16"
    return "fp8_ds_mla" if gpu.architecture == "hopper" else "fp8_e4m3"


def kv_bytes_per_token(shape: ServingShape) -> int:
    """Return the bytes one token takes in the KV cache of a rank that holds it.

    The cache is replicated on every tensor-parallel rank (MLA has one latent head); pipeline stages divide a token's bytes, and
    the largest stage counts. Decode context parallelism divides the tokens among ranks, not their bytes.
    """
    return max(_kv_bytes_of_stage(shape, layers) for layers in _stages(shape))


def _kv_bytes_of_stage(shape: ServingShape, layers: range) -> int:
    architecture = shape.checkpoint.architecture
    mtp_layers = architecture.mtp_layers if shape.mtp and _is_last(architecture, layers) else 0
    attention_layers = len(layers) + mtp_layers
    if shape.engine.indexer_cache == "all-layers":
        indexer_layers = attention_layers
    else:
        indexer_layers = sum(architecture.has_indexer(layer) for layer in layers) + mtp_layers
    record = _RECORD_BYTES[kv_record(shape.kv_cache_dtype, shape.gpu, shape.engine)]
    return attention_layers * record + indexer_layers * _INDEXER_KEY_BYTES


@cache
def largest_captured_batch(speculative_tokens: int, limit: int = _CAPTURE_LIMIT) -> int:
    """Return the most tokens of one decode step that run inside a CUDA graph: 512 without MTP, 498 with MTP 5.

    Sizes are rounded up to a multiple of the tokens a request decodes at once; sizes that pass the limit are dropped.
    """
    step = 1 + speculative_tokens
    rounded = (-(-size // step) * step for size in (1, 2, 4, *range(8, 256, 8), *range(256, limit + 1, 16)))
    return max((size for size in rounded if size <= limit), default=limit)


def _captured_tokens(shape: ServingShape) -> int:
    """Return the largest captured batch of an engine on its GPU; few requests would capture less, which is not counted on."""
    blackwell = shape.gpu.architecture == "blackwell"
    return largest_captured_batch(
        shape.speculative_tokens, shape.engine.capture_limit_blackwell if blackwell else _CAPTURE_LIMIT
    )


def prefill_workspace_gib(shape: ServingShape) -> float:
    """Return the FlashMLA-sparse workspace that is allocated at load, in GiB. A bf16 cache has none."""
    if kv_record(shape.kv_cache_dtype, shape.gpu, shape.engine) == "bfloat16":
        return 0.0
    long_context = shape.max_model_len > _LONG_CONTEXT_TOKENS
    factor = shape.engine.prefill_workspace_factor_long if long_context else 5
    heads = shape.checkpoint.architecture.attention_heads // shape.tensor_parallel_size
    return (factor * shape.max_model_len * 1152 + shape.max_num_batched_tokens * heads * 576 * _BF16) / GIB


def decode_scratch_gib(max_num_seqs: int, speculative_tokens: int, max_model_len: int) -> float:
    """Return the indexer's decode logits if every sequence decodes at once, in GiB.

    No profile counts them beyond the largest CUDA graph: 1,000 short requests killed an engine at 524,288 tokens
    with 7.14 GiB of them (measured on an H200).
    """
    return max_num_seqs * (1 + speculative_tokens) * max_model_len * _FP32 / GIB


def sparse_decode_scratch_gib(max_num_batched_tokens: int) -> float:
    """Return FlashMLA's `o_accum`, allocated outside the profile when a long prefill comes, in GiB (vllm#44545)."""
    return 2 * max_num_batched_tokens * 64 * 512 * _FP32 / GIB


def free_when_serving_gib(gpu: Gpu, gpu_memory_utilization: float) -> float:
    """Return what is free on a serving GPU after a long prefill, in GiB.

    Measured on an H200: 7.0 GiB at 0.92, before what eight GPUs' collectives take.
    """
    return 7.0 - gpu.usable_gib * (gpu_memory_utilization - DEFAULT_GPU_MEMORY_UTILIZATION)


@lru_cache(maxsize=128)  # rules, plan and report ask for the same few shapes again
def breakdown(shape: ServingShape) -> MemoryBreakdown:
    """Return one rank's memory, term by term; with pipeline stages, that of the fullest stage."""
    stages = (_weights(shape, layers) for layers in _stages(shape))
    return MemoryBreakdown(
        usable_gib=shape.gpu.usable_gib,
        requested_gib=shape.gpu_memory_utilization * shape.gpu.usable_gib,
        weights=max(stages, key=lambda terms: sum(term.gib for term in terms)),
        overhead=_overhead(shape),
        kv_bytes_per_token=kv_bytes_per_token(shape),
        max_model_len=shape.max_model_len,
        decode_context_parallel_size=shape.decode_context_parallel_size,
    )


@lru_cache(maxsize=128)  # a thousand lengths are looked at, again for each rule and report of the same shape
def largest_max_model_len(shape: ServingShape, requests: int = 1) -> int:
    """Return the largest multiple of 1,024 tokens of which so many requests fit with the margin kept; 0 if none does."""
    limit = shape.checkpoint.architecture.max_position_embeddings
    memory = breakdown(shape)  # the weights do not depend on the length
    for length in range(limit, 0, -1024):
        overhead = _overhead(replace(shape, max_model_len=length))
        if replace(memory, overhead=overhead, max_model_len=length).holds(requests):
            return length
    return 0


# --- overhead -----------------------------------------------------------------------------------------------------


def _overhead(shape: ServingShape) -> tuple[Term, ...]:
    workspace = prefill_workspace_gib(shape)
    moe = _moe_workspace_gib(shape)
    shares = shape.decode_context_parallel_size > 1
    meaning = "what ranks that share a cache out give up of it, by the one published pair of pools"
    return (
        Term("prefill workspace", workspace, "FlashMLA-sparse buffer allocated at load, grows with max_model_len"),
        Term("activations", _activation_gib(shape), "peak of the profile run: the sampler's logits or one layer"),
        # The MoE uses the prefill workspace if that is large enough; if not, a second block stays allocated.
        Term("MoE workspace", moe if workspace < moe else 0.0, "grows with max_num_batched_tokens"),
        Term("non-torch", 0.27, "libraries' own buffers after the profile"),
        Term("CUDA graphs", _graphs_gib(shape), "captured decode graphs with the indexer's logits"),
        Term("collectives", shape.collectives_gib, "what eight real GPUs take beyond a single rank"),
        *([Term("context parallelism", CONTEXT_PARALLELISM_GIB, meaning)] if shares else []),
    )


def _moe_workspace_gib(shape: ServingShape) -> float:
    architecture = shape.checkpoint.architecture
    width = architecture.experts_per_token * architecture.hidden_size
    return shape.max_num_batched_tokens * width * 2 * _BF16 / GIB


def _activation_gib(shape: ServingShape) -> float:
    layer_peak = 0.92 if shape.mtp else 0.83
    copies = 7.5 if shape.mtp else 3.5  # of [max_num_seqs, vocabulary] in fp32
    logits = shape.max_num_seqs * shape.checkpoint.architecture.vocab_size * _FP32 / GIB
    return max(layer_peak, 0.23 + copies * logits)


def _graphs_gib(shape: ServingShape) -> float:
    base = 1.72 if shape.mtp else 1.08
    return base + _captured_tokens(shape) * _FP32 * shape.max_model_len / GIB


# --- weights ------------------------------------------------------------------------------------------------------


def _stages(shape: ServingShape) -> tuple[range, ...]:
    layers = shape.checkpoint.architecture.hidden_layers
    return stage_layers(shape.layer_partition or default_partition(layers, shape.pipeline_parallel_size))


def _is_last(architecture: Architecture, layers: range) -> bool:
    return layers[-1] == architecture.hidden_layers - 1


@dataclass(frozen=True)
class _Widths:
    """Bytes a parameter takes: of the experts and of the other linear layers. Embedding and router stay bf16."""

    expert: float
    linear: float


def _widths(checkpoint: Checkpoint) -> _Widths:
    fp8 = 1 + _FP32 / checkpoint.architecture.fp8_block**2
    return {
        "fp8": _Widths(expert=fp8, linear=fp8),
        "bf16": _Widths(expert=_BF16, linear=_BF16),
        # Half a byte and one fp8 scale for 16 values; everything but the experts stays bf16. Gives the published 54 GiB.
        "nvfp4": _Widths(expert=0.5 + 1 / 16, linear=_BF16),
    }[checkpoint.precision]


def _stage_weights(checkpoint: Checkpoint, tp: int, layers: range, mtp: bool) -> tuple[Term, ...]:
    arch = checkpoint.architecture
    widths = _widths(checkpoint)
    moe_layers = sum(layer >= arch.dense_layers for layer in layers)
    # Weights follow the checkpoint, which has indexers in these layers only; 0.23 gives every layer an indexer *cache*.
    indexers = sum(arch.has_indexer(layer) for layer in layers)
    terms = [
        Term("experts", moe_layers * _experts(arch, tp) * widths.expert / GIB, "routed experts"),
        Term("attention", len(layers) * _attention_bytes(arch, tp, widths) / GIB, "projections and absorbed kv_b"),
        Term("dense and shared MLP", _mlp_bytes(arch, tp, widths, len(layers), moe_layers) / GIB, "with router"),
        Term("embedding and head", _vocabulary_bytes(arch, tp, layers) / GIB, "bf16"),
        Term("indexers", indexers * _indexer_bytes(arch, widths) / GIB, "replicated on every rank"),
        Term("rope table", arch.max_position_embeddings * arch.qk_rope_head_dim * _BF16 / GIB, "bf16"),
    ]
    if mtp and _is_last(arch, layers):
        terms.append(Term("MTP layer", _mtp_bytes(checkpoint, tp) / GIB, "one layer and its projection"))
    return tuple(terms)


def _weights(shape: ServingShape, layers: range) -> tuple[Term, ...]:
    stage = _stage_weights(shape.checkpoint, shape.tensor_parallel_size, layers, shape.mtp)
    topk = shape.max_num_batched_tokens * shape.checkpoint.architecture.index_topk * _FP32 / GIB
    buffers = 0.1125 + topk * (2 if shape.mtp else 1)  # 0.175 and 0.239 measured at 8,192 batched tokens
    return (*stage, Term("buffers", buffers, "top-k indices and small tensors held by the layers"))


def _experts(arch: Architecture, tp: int) -> float:
    """Parameters of one layer's routed experts on one rank."""
    return arch.routed_experts * 3 * arch.hidden_size * arch.moe_intermediate_size / tp


def _attention_bytes(arch: Architecture, tp: int, widths: _Widths) -> float:
    """Bytes of one layer's attention on one rank; the absorbed halves of kv_b are kept a second time in bf16."""
    fused_qkv_a = arch.hidden_size * (arch.q_lora_rank + arch.kv_lora_rank + arch.qk_rope_head_dim)
    q_b = arch.q_lora_rank * arch.attention_heads * (arch.qk_nope_head_dim + arch.qk_rope_head_dim)
    kv_b = arch.kv_lora_rank * arch.attention_heads * (arch.qk_nope_head_dim + arch.v_head_dim)
    output = arch.attention_heads * arch.v_head_dim * arch.hidden_size
    return (fused_qkv_a + (q_b + kv_b + output) / tp) * widths.linear + kv_b / tp * _BF16


def _mlp_bytes(arch: Architecture, tp: int, widths: _Widths, layers: int, moe_layers: int) -> float:
    dense = (layers - moe_layers) * 3 * arch.hidden_size * arch.dense_intermediate_size / tp * widths.linear
    return dense + moe_layers * _shared_and_router_bytes(arch, tp, widths)


def _shared_and_router_bytes(arch: Architecture, tp: int, widths: _Widths) -> float:
    shared = arch.shared_experts * 3 * arch.hidden_size * arch.moe_intermediate_size / tp * widths.linear
    return shared + arch.routed_experts * arch.hidden_size * _BF16


def _vocabulary_bytes(arch: Architecture, tp: int, layers: range) -> float:
    ends = (layers[0] == 0) + _is_last(arch, layers)
    return ends * arch.vocab_size * arch.hidden_size * _BF16 / tp


def _indexer_bytes(arch: Architecture, widths: _Widths) -> float:
    query = arch.q_lora_rank * arch.index_heads * arch.index_head_dim * widths.linear
    key_and_weights = arch.hidden_size * (arch.index_head_dim + arch.index_heads) * _BF16
    return query + key_and_weights


def _mtp_bytes(checkpoint: Checkpoint, tp: int) -> float:
    """Bytes of the MTP layer; unquantised in the NVFP4 checkpoint. It shares embedding and head."""
    arch = checkpoint.architecture
    widths = _Widths(_BF16, _BF16) if checkpoint.precision == "nvfp4" else _widths(checkpoint)
    projection = 2 * arch.hidden_size * arch.hidden_size * _BF16
    layer = (
        _experts(arch, tp) * widths.expert
        + _attention_bytes(arch, tp, widths)
        + _shared_and_router_bytes(arch, tp, widths)
        + _indexer_bytes(arch, widths)
    )
    return arch.mtp_layers * (layer + projection)
