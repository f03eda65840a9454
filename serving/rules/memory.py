"""Rules about memory: what must fit into one GPU before it starts, and what must still fit while it serves."""

from __future__ import annotations

from dataclasses import replace

from serving.facts import DEFAULT_MAX_NUM_SEQS, WorkloadFacts
from serving.memory import (
    KV_BLOCK_TOKENS,
    MARGIN_GIB,
    ServingShape,
    breakdown,
    decode_scratch_gib,
    free_when_serving_gib,
    kv_record,
    largest_captured_batch,
    largest_max_model_len,
    sparse_decode_scratch_gib,
)
from serving.rules.rule import Outcome, Rule, at_least, at_most, passed, refused, unknown

# Scratch outside every profile that a serving H200 was seen to survive (256 requests at 524,288 tokens took 3.0 GiB and left
# 0.5; 7.1 GiB killed it).
DECODE_SCRATCH_LIMIT_GIB = 2.0
_MAX_SAFE_UTILIZATION_H200 = 0.94  # 4.2 GiB stay free after a long prefill, before collectives; 0.97 leaves 0.0
_MAX_BATCHED_TOKENS_H200 = 16_384
_SPARSE_SCRATCH_HEADS = 32  # with fewer heads on a GPU (tensor parallel size 4 and more) FlashMLA pads and allocates
_ANSWERED_TOKENS_023 = 450_000  # the longest context that 0.23 answered on 8xH200; at 600,000 it gave no token


def _bf16_does_not_fit(facts: WorkloadFacts, shape: ServingShape) -> bool:
    """Whether there are fewer GPUs than ranks, or BF16 weights leave no block of a pool on one, at the shortest context."""
    if shape.checkpoint.precision != "bf16":
        return False
    return facts.ranks > facts.gpus or breakdown(replace(shape, max_model_len=KV_BLOCK_TOKENS)).kv_pool_tokens == 0


def _nodes(facts: WorkloadFacts) -> str:
    count = facts.nodes_per_replica
    return f"one {facts.instance.shape} node" if count == 1 else f"{count} {facts.instance.shape} nodes"


def _too_few_gpus(facts: WorkloadFacts) -> str:
    return f"{facts.ranks} ranks are more than the {facts.gpus} GPUs of {_nodes(facts)}"


def _bf16_one_node(facts: WorkloadFacts) -> Outcome:
    if facts.checkpoint is None:
        return refused(unknown(facts))
    if facts.checkpoint.precision != "bf16":
        return passed(f"the checkpoint is {facts.checkpoint.precision.upper()}")
    shape = facts.shape
    if shape is None:
        return refused(unknown(facts))
    if facts.ranks > facts.gpus:
        return refused(_too_few_gpus(facts))
    memory = breakdown(shape)
    vllm_has = (
        f"at gpu_memory_utilization {facts.gpu_memory_utilization:g} vLLM has {memory.requested_gib:.1f} "
        f"of {memory.usable_gib:.1f} GiB"
    )
    if not _bf16_does_not_fit(facts, shape):
        return passed(f"BF16 weights take {memory.weights_gib:.1f} GiB on each GPU; {vllm_has}")
    left = memory.requested_gib - memory.weights_gib
    rest = f"{-left:.1f} GiB short before" if left < 0 else f"{left:.1f} GiB left for"
    each = "each GPU" if facts.ranks == facts.gpus else f"each of {facts.ranks} GPUs"
    return refused(
        f"BF16 needs {memory.weights_gib:.1f} GiB of weights on {each} of {_nodes(facts)}; {vllm_has}: "
        f"{rest} {memory.overhead_gib:.1f} GiB of overhead and any KV cache"
    )


def _fit(facts: WorkloadFacts, requests: int = 1) -> Outcome:
    shape = facts.shape
    if shape is None:
        return refused(unknown(facts))
    if _bf16_does_not_fit(facts, shape):
        return passed("not judged: the weights alone do not fit, see bf16-one-node")
    if facts.ranks > facts.gpus:
        return refused(_too_few_gpus(facts))
    memory = breakdown(shape)
    who = "one request" if requests == 1 else f"each of {requests:,} requests"
    why = (
        f"{who} of {memory.max_model_len:,} tokens needs {memory.needed_gib:.2f} GiB of KV cache on each GPU "
        f"({memory.kv_bytes_per_token:,} B a token); {facts.gpu_memory_utilization:g} x {memory.usable_gib:.1f} GiB of one GPU "
        f"- {memory.weights_gib:.1f} weights - {memory.overhead_gib:.1f} overhead = {memory.kv_pool_gib:.1f} GiB, "
        f"of which {MARGIN_GIB:g} GiB stays as margin"
    )
    return passed(why) if memory.holds(requests) else refused(f"{why}; {_longest(shape, requests)}")


def _longest(shape: ServingShape, requests: int = 1) -> str:
    """Say which length would fit with the other settings as they are."""
    longest = largest_max_model_len(shape, requests)
    return f"the longest that fits is {longest:,} tokens" if longest else "with these settings no length fits"


def _h200_len(facts: WorkloadFacts) -> Outcome:
    if not facts.hopper:
        return passed(f"the GPU is {facts.gpu.name}")
    if facts.max_model_len is None:
        return refused(
            f"max_model_len is not set, so vLLM takes the model's own limit ({facts.context_tokens or 0:,} tokens)"
        )
    shape = facts.shape
    if shape is None:
        return refused(unknown(facts))
    if breakdown(shape).fits or _bf16_does_not_fit(facts, shape):
        return passed(f"max_model_len is set to {facts.max_model_len:,}")
    return refused(f"max_model_len {facts.max_model_len:,} does not start on {facts.instance.shape}; {_longest(shape)}")


def _mnbt_h200(facts: WorkloadFacts, limit: int = _MAX_BATCHED_TOKENS_H200) -> Outcome:
    if not facts.hopper:
        return passed(f"the GPU is {facts.gpu.name}")
    given = f"max_num_batched_tokens is {facts.max_num_batched_tokens:,}"
    if facts.max_num_batched_tokens <= limit:
        return passed(given)
    return refused(
        f"{given} on {facts.gpu.name}, above {limit:,}; 131,072 left -3.95 GiB for the KV cache in a published run"
    )


def _gmu_high_h200(facts: WorkloadFacts, limit: float = _MAX_SAFE_UTILIZATION_H200) -> Outcome:
    if not facts.hopper:
        return passed(f"the GPU is {facts.gpu.name}")
    left = free_when_serving_gib(facts.gpu, facts.gpu_memory_utilization)
    why = (
        f"gpu_memory_utilization {facts.gpu_memory_utilization:g} leaves {left:.1f} GiB on a serving {facts.gpu.name} "
        "after a long prefill, before collectives"
    )
    if facts.gpu_memory_utilization <= limit:
        return passed(why)
    return refused(f"{why}; at most {limit:g} is allowed")


def _decode_scratch(facts: WorkloadFacts) -> Outcome:
    context = facts.context_tokens
    if context is None:
        return refused(unknown(facts))
    scratch = decode_scratch_gib(facts.sequences, facts.speculative_tokens, context)
    most = int(DECODE_SCRATCH_LIMIT_GIB / decode_scratch_gib(1, facts.speculative_tokens, context))
    why = (
        f"{facts.sequences:,} requests x {1 + facts.speculative_tokens} tokens x {context:,} x 4 B = {scratch:.1f} GiB "
        f"of decode scratch that no profile counts; at most {DECODE_SCRATCH_LIMIT_GIB:g} GiB is safe, {most:,} requests"
    )
    return passed(why) if scratch <= DECODE_SCRATCH_LIMIT_GIB else refused(why)


def _sparse_decode_scratch(facts: WorkloadFacts) -> Outcome:
    if not facts.hopper:
        return passed(f"the GPU is {facts.gpu.name}")
    if facts.engine is not None and facts.engine.sparse_decode_scratch_fixed:
        return passed(f"vLLM {facts.engine.version} has the FlashMLA that allocates less")
    context = facts.context_tokens
    if facts.checkpoint is None or context is None:
        return refused(unknown(facts))
    heads = facts.checkpoint.architecture.attention_heads // facts.tensor_parallel_size
    record = kv_record(facts.kv_cache_dtype, facts.gpu, facts.engine)
    if record != "fp8_ds_mla" or heads >= _SPARSE_SCRATCH_HEADS:
        return passed(f"the kernel is not used with a {record} cache and {heads} heads on each GPU")
    sparse = sparse_decode_scratch_gib(facts.max_num_batched_tokens)
    decode = decode_scratch_gib(facts.sequences, facts.speculative_tokens, context)
    free = free_when_serving_gib(facts.gpu, facts.gpu_memory_utilization)
    why = (
        f"FlashMLA allocates {sparse:.1f} GiB outside the profile at the first long prefill, decoding up to {decode:.1f} GiB; "
        f"{free:.1f} GiB is free at gpu_memory_utilization {facts.gpu_memory_utilization:g}"
    )
    return passed(why) if sparse + decode <= free else refused(why)


def _seqs_default(facts: WorkloadFacts) -> Outcome:
    if not facts.mtp:
        return passed("MTP is off")
    if facts.max_num_seqs is not None and facts.max_num_seqs < DEFAULT_MAX_NUM_SEQS:
        return passed(f"max_num_seqs is {facts.max_num_seqs:,}")
    if facts.shape is None:
        return refused(f"max_num_seqs is {facts.sequences:,} with MTP")
    enough = largest_captured_batch(facts.speculative_tokens) // (1 + facts.speculative_tokens)
    lower = breakdown(replace(facts.shape, max_num_seqs=enough))
    lost = lower.kv_pool_gib - breakdown(facts.shape).kv_pool_gib
    return refused(
        f"max_num_seqs {facts.sequences:,} with MTP takes {lost:.1f} GiB of KV cache on each GPU for sampler buffers "
        f"that {enough} requests do not need"
    )


def _ctx_600k_h200(facts: WorkloadFacts) -> Outcome:
    if not facts.hopper:
        return passed(f"the GPU is {facts.gpu.name}")
    if facts.engine is None or facts.context_tokens is None:
        return refused(unknown(facts))
    given = f"vLLM {facts.engine.version} with {facts.context_tokens:,} tokens"
    if not facts.engine.has_fault("ctx-600k-h200") or facts.context_tokens <= _ANSWERED_TOKENS_023:
        return passed(given)
    return refused(
        f"{given} on {facts.instance.shape}: a benchmark at 600,000 got no token, at {_ANSWERED_TOKENS_023:,} it did"
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "fit",
        "One full-length request fits the KV cache pool",
        "vLLM refuses to start",
        "lower maxModelLen or maxNumSeqs, or choose a GPU with more memory",
        "facts measured on an H200 with vLLM 0.26.0, checked against recipes#893, kaitakuai 4xB300, sc13912 2x p5en",
        _fit,
        parameters=(
            at_least(
                "minFullLengthRequests", "requests", "full-length requests that the KV cache pool holds at once", 1
            ),
        ),
    ),
    Rule(
        "bf16-one-node",
        "BF16 weights fit their GPUs",
        "out of memory while loading",
        "use precision fp8 or nvfp4, 16 GPUs on two nodes, or an 8xB300 pool",
        "arithmetic over the checkpoint's layers",
        _bf16_one_node,
        locked=True,
    ),
    Rule(
        "h200-len",
        "On H200 the context length is set and fits",
        "vLLM refuses to start",
        "set maxModelLen to a length that fits",
        "recipes#893",
        _h200_len,
    ),
    Rule(
        "mnbt-h200",
        "Batched tokens on H200 leave room for the KV cache",
        "the KV pool shrinks or goes negative",
        "lower maxNumBatchedTokens",
        "kaitakuai glm-5.2-fp8-8xh200",
        _mnbt_h200,
        parameters=(
            at_most("maxNumBatchedTokens", "limit", "tokens that one step may batch", _MAX_BATCHED_TOKENS_H200),
        ),
    ),
    Rule(
        "gmu-high-h200",
        "Memory utilisation on H200 leaves room for scratch",
        "out of memory under load",
        "lower gpuMemoryUtilization; 0.92 was measured to serve",
        "measured on an H200; kaitakuai, aarora79",
        _gmu_high_h200,
        parameters=(
            at_most(
                "maxGpuMemoryUtilization",
                "limit",
                "share of a GPU's memory that vLLM may plan with",
                _MAX_SAFE_UTILIZATION_H200,
            ),
        ),
    ),
    Rule(
        "decode-scratch",
        "Decoding many requests fits beside the profile",
        "many short requests kill the engine with CUDA out of memory",
        "lower maxNumSeqs, or leave it out and the plan derives it",
        "measured on an H200",
        _decode_scratch,
    ),
    Rule(
        "sparse-decode-scratch",
        "A long prefill's scratch fits beside the profile",
        "the engine dies after days",
        "use vLLM 0.30.0 or later, or maxNumBatchedTokens 8192 with fewer requests",
        "vllm#44545, vllm#53413, vllm#53755",
        _sparse_decode_scratch,
    ),
    Rule(
        "seqs-default",
        "max_num_seqs is not left at 1024 with MTP",
        "sampler buffers take 4 GiB of KV cache",
        "leave maxNumSeqs out and the plan derives it",
        "measured on an H200",
        _seqs_default,
    ),
    Rule(
        "ctx-600k-h200",
        "vLLM 0.23 on H200 stays within the length that it answers",
        "no output at all",
        "use vLLM 0.24.0 or later, or maxModelLen 450000 or less",
        "kaitakuai glm-5.2-fp8-8xh200",
        _ctx_600k_h200,
    ),
)
