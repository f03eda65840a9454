"""THE rule table: each row is data plus one pure check over `WorkloadFacts`.

A check says whether the workload passed and why, in one sentence with the numbers. An unknown value is refused: a rule that
cannot be judged has not been passed. Ids are stable; `source` names what the rule rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from serving.facts import DEFAULT_MAX_NUM_SEQS, IMAGE_DIGEST, MODEL_REVISION, WorkloadFacts, short_digest
from serving.memory import (
    MARGIN_GIB,
    breakdown,
    decode_scratch_gib,
    free_when_serving_gib,
    kv_record,
    largest_captured_batch,
    largest_max_model_len,
    sparse_decode_scratch_gib,
)

# Scratch outside every profile that a serving H200 was seen to survive (256 requests at 524,288 tokens took 3.0 GiB and left
# 0.5; 7.1 GiB killed it).
DECODE_SCRATCH_LIMIT_GIB = 2.0
_MAX_SAFE_UTILIZATION_H200 = 0.94  # 4.2 GiB stay free after a long prefill, before collectives; 0.97 leaves 0.0
_MAX_BATCHED_TOKENS_H200 = 16_384
_SPARSE_SCRATCH_HEADS = 32  # with fewer heads on a GPU (tensor parallel size 4 and more) FlashMLA pads and allocates
_INDEXER_EXPAND_TOKENS = 325_000
_V0_23 = (0, 23)

# Where engines and their kernels keep compiled code. A folder shared between images or engines has served garbage.
CACHE_VARIABLES = (
    "VLLM_CACHE_ROOT",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "FLASHINFER_WORKSPACE_BASE",
    "DG_JIT_CACHE_DIR",
    "CUDA_CACHE_PATH",
    "XDG_CACHE_HOME",
)


@dataclass(frozen=True)
class Outcome:
    """What a check found: whether the workload passed, and why, in one sentence with the numbers."""

    passed: bool
    why: str


def _passed(why: str) -> Outcome:
    return Outcome(passed=True, why=why)


def _refused(why: str) -> Outcome:
    return Outcome(passed=False, why=why)


@dataclass(frozen=True)
class Rule:
    """A combination that is refused: what it checks, what happens otherwise, what to do, and the evidence."""

    id: str
    title: str
    effect: str
    remedy: str
    source: str
    check: Callable[[WorkloadFacts], Outcome]


@dataclass(frozen=True)
class Violation:
    """A rule that a workload did not pass, with the sentence that says why."""

    rule: str
    workload: str
    message: str
    remedy: str
    source: str


@dataclass(frozen=True)
class Verdict:
    """One rule applied to one workload."""

    rule: Rule
    workload: str
    outcome: Outcome


def judge(facts: WorkloadFacts) -> list[Verdict]:
    """Apply every rule to a workload, in the table's order."""
    return [Verdict(rule, facts.workload, rule.check(facts)) for rule in RULES]


def violations(verdicts: Iterable[Verdict]) -> list[Violation]:
    """Return the refusals among verdicts."""
    return [
        Violation(v.rule.id, v.workload, v.outcome.why, v.rule.remedy, v.rule.source)
        for v in verdicts
        if not v.outcome.passed
    ]


# --- memory ---------------------------------------------------------------------------------------------------


def _unknown(facts: WorkloadFacts) -> str:
    """Say what the catalogue does not know of a workload."""
    missing = [
        name
        for name, value in (
            (f"the vLLM release behind image {facts.image}", facts.engine),
            (f"the checkpoint {facts.model or '(none named)'}", facts.checkpoint),
        )
        if value is None
    ]
    return f"the catalogue does not know {' nor '.join(missing)}"


def _bf16_does_not_fit(facts: WorkloadFacts) -> bool:
    """Whether BF16 weights leave no pool at all on one node, at the shortest context."""
    if facts.checkpoint is None or facts.checkpoint.precision != "bf16" or facts.nodes_per_replica > 1:
        return False
    return facts.shape is not None and breakdown(replace(facts.shape, max_model_len=1024)).kv_pool_gib <= 0


def _bf16_one_node(facts: WorkloadFacts) -> Outcome:
    if facts.checkpoint is None:
        return _refused(_unknown(facts))
    if facts.checkpoint.precision != "bf16":
        return _passed(f"the checkpoint is {facts.checkpoint.precision.upper()}")
    memory = facts.memory
    if memory is None:
        return _refused(_unknown(facts))
    vllm_has = (
        f"at gpu_memory_utilization {facts.gpu_memory_utilization:g} vLLM has {memory.requested_gib:.1f} "
        f"of {memory.usable_gib:.1f} GiB"
    )
    if not _bf16_does_not_fit(facts):
        return _passed(f"BF16 weights take {memory.weights_gib:.1f} GiB on each GPU; {vllm_has}")
    left = memory.requested_gib - memory.weights_gib
    rest = f"{-left:.1f} GiB short before" if left < 0 else f"{left:.1f} GiB left for"
    return _refused(
        f"BF16 needs {memory.weights_gib:.1f} GiB of weights on each GPU of one {facts.instance.shape} node; {vllm_has}: "
        f"{rest} {memory.overhead_gib:.1f} GiB of overhead and any KV cache"
    )


def _fit(facts: WorkloadFacts) -> Outcome:
    memory = facts.memory
    if memory is None:
        return _refused(_unknown(facts))
    if _bf16_does_not_fit(facts):
        return _passed("not judged: the weights alone do not fit, see bf16-one-node")
    why = (
        f"one request of {memory.max_model_len:,} tokens needs {memory.needed_gib:.2f} GiB of KV cache on each GPU "
        f"({memory.kv_bytes_per_token:,} B a token); {facts.gpu_memory_utilization:g} x {memory.usable_gib:.1f} GiB of one GPU "
        f"- {memory.weights_gib:.1f} weights - {memory.overhead_gib:.1f} overhead = {memory.kv_pool_gib:.1f} GiB, "
        f"of which {MARGIN_GIB:g} GiB stays as margin"
    )
    return _passed(why) if memory.fits else _refused(f"{why}; {_longest(facts)}")


def _longest(facts: WorkloadFacts) -> str:
    """Say which length would fit with the other settings as they are."""
    longest = largest_max_model_len(facts.shape) if facts.shape else 0
    return f"the longest that fits is {longest:,} tokens" if longest else "with these settings no length fits"


def _h200_len(facts: WorkloadFacts) -> Outcome:
    if not facts.hopper:
        return _passed(f"the GPU is {facts.gpu.name}")
    if facts.max_model_len is None:
        return _refused(
            f"max_model_len is not set, so vLLM takes the model's own limit ({facts.context_tokens or 0:,} tokens)"
        )
    if facts.shape is None or facts.memory is None:
        return _refused(_unknown(facts))
    if facts.memory.fits or _bf16_does_not_fit(facts):
        return _passed(f"max_model_len is set to {facts.max_model_len:,}")
    return _refused(
        f"max_model_len {facts.max_model_len:,} does not start on {facts.instance.shape}; {_longest(facts)}"
    )


def _mnbt_h200(facts: WorkloadFacts) -> Outcome:
    if not facts.hopper:
        return _passed(f"the GPU is {facts.gpu.name}")
    given = f"max_num_batched_tokens is {facts.max_num_batched_tokens:,}"
    if facts.max_num_batched_tokens <= _MAX_BATCHED_TOKENS_H200:
        return _passed(given)
    return _refused(
        f"{given} on {facts.gpu.name}, above {_MAX_BATCHED_TOKENS_H200:,}; "
        "131,072 left -3.95 GiB for the KV cache in a published run"
    )


def _gmu_high_h200(facts: WorkloadFacts) -> Outcome:
    if not facts.hopper:
        return _passed(f"the GPU is {facts.gpu.name}")
    left = free_when_serving_gib(facts.gpu, facts.gpu_memory_utilization)
    why = (
        f"gpu_memory_utilization {facts.gpu_memory_utilization:g} leaves {left:.1f} GiB on a serving {facts.gpu.name} "
        "after a long prefill, before collectives"
    )
    if facts.gpu_memory_utilization <= _MAX_SAFE_UTILIZATION_H200:
        return _passed(why)
    return _refused(f"{why}; above {_MAX_SAFE_UTILIZATION_H200} is unsafe")


def _decode_scratch(facts: WorkloadFacts) -> Outcome:
    context = facts.context_tokens
    if context is None:
        return _refused(_unknown(facts))
    scratch = decode_scratch_gib(facts.sequences, facts.speculative_tokens, context)
    most = int(DECODE_SCRATCH_LIMIT_GIB / decode_scratch_gib(1, facts.speculative_tokens, context))
    why = (
        f"{facts.sequences:,} requests x {1 + facts.speculative_tokens} tokens x {context:,} x 4 B = {scratch:.1f} GiB "
        f"of decode scratch that no profile counts; at most {DECODE_SCRATCH_LIMIT_GIB:g} GiB is safe, {most:,} requests"
    )
    return _passed(why) if scratch <= DECODE_SCRATCH_LIMIT_GIB else _refused(why)


def _sparse_decode_scratch(facts: WorkloadFacts) -> Outcome:
    if not facts.hopper:
        return _passed(f"the GPU is {facts.gpu.name}")
    if facts.engine is not None and facts.engine.sparse_decode_scratch_fixed:
        return _passed(f"vLLM {facts.engine.version} has the FlashMLA that allocates less")
    if facts.checkpoint is None or facts.context_tokens is None:
        return _refused(_unknown(facts))
    heads = facts.checkpoint.architecture.attention_heads // facts.tensor_parallel_size
    record = kv_record(facts.kv_cache_dtype, facts.gpu, facts.engine)
    if record != "fp8_ds_mla" or heads >= _SPARSE_SCRATCH_HEADS:
        return _passed(f"the kernel is not used with a {record} cache and {heads} heads on each GPU")
    sparse = sparse_decode_scratch_gib(facts.max_num_batched_tokens)
    decode = decode_scratch_gib(facts.sequences, facts.speculative_tokens, facts.context_tokens)
    free = free_when_serving_gib(facts.gpu, facts.gpu_memory_utilization)
    why = (
        f"FlashMLA allocates {sparse:.1f} GiB outside the profile at the first long prefill, decoding up to {decode:.1f} GiB; "
        f"{free:.1f} GiB is free at gpu_memory_utilization {facts.gpu_memory_utilization:g}"
    )
    return _passed(why) if sparse + decode <= free else _refused(why)


def _seqs_default(facts: WorkloadFacts) -> Outcome:
    if not facts.mtp:
        return _passed("MTP is off")
    if facts.max_num_seqs is not None and facts.max_num_seqs < DEFAULT_MAX_NUM_SEQS:
        return _passed(f"max_num_seqs is {facts.max_num_seqs:,}")
    if facts.shape is None:
        return _refused(f"max_num_seqs is {facts.sequences:,} with MTP")
    enough = largest_captured_batch(facts.speculative_tokens) // (1 + facts.speculative_tokens)
    lower = breakdown(replace(facts.shape, max_num_seqs=enough))
    lost = lower.kv_pool_gib - breakdown(facts.shape).kv_pool_gib
    return _refused(
        f"max_num_seqs {facts.sequences:,} with MTP takes {lost:.1f} GiB of KV cache on each GPU for sampler buffers "
        f"that {enough} requests do not need"
    )


# --- precision, cache type, loader ----------------------------------------------------------------------------


def _nvfp4_hopper(facts: WorkloadFacts) -> Outcome:
    if facts.checkpoint is None:
        return _refused(_unknown(facts))
    if facts.checkpoint.precision != "nvfp4":
        return _passed(f"the checkpoint is {facts.checkpoint.precision.upper()}")
    if not facts.hopper:
        return _passed(f"the GPU is {facts.gpu.name}")
    return _refused(
        f"{facts.model} is NVFP4, which needs Blackwell; {facts.instance.name} has {facts.gpu.name} (Hopper)"
    )


def _kv_e4m3_hopper(facts: WorkloadFacts) -> Outcome:
    given = f"kv_cache_dtype is {facts.kv_cache_dtype} on {facts.gpu.name}"
    if not facts.hopper or facts.kv_cache_dtype != "fp8_e4m3":
        return _passed(given)
    return _refused(f"{given}, which has no attention backend: the engine does not start")


def _kv_auto_hopper(facts: WorkloadFacts) -> Outcome:
    given = f"kv_cache_dtype is {facts.kv_cache_dtype} on {facts.gpu.name}"
    if not facts.hopper or facts.kv_cache_dtype not in {"auto", "bfloat16"}:
        return _passed(given)
    return _refused(f"{given}: a BF16 cache with 1.7 times the bytes of fp8, and it has served gibberish")


def _runai_load(facts: WorkloadFacts) -> Outcome:
    given = f"load_format is {facts.load_format}"
    if not facts.load_format.startswith("runai_streamer"):
        return _passed(given)
    if facts.engine is None:
        return _refused(f"{given}, and {_unknown(facts)}")
    engine = facts.engine
    safe = engine.runai_streamer_safe_with_mtp if facts.mtp else engine.runai_streamer_safe
    if safe:
        return _passed(f"{given}, which vLLM {engine.version} reads right")
    return _refused(
        f"{given}, which is not known to be safe in vLLM {engine.version}{' with MTP' if facts.mtp else ''}: "
        "it splits FP8 weight and scale pairs and serves gibberish"
    )


# --- releases -------------------------------------------------------------------------------------------------


def _parser_old(facts: WorkloadFacts) -> Outcome:
    if facts.tool_call_parser is None or not facts.mtp:
        return _passed("tool calling and MTP are not on together")
    if facts.engine is None:
        return _refused(f"tool calls with MTP need vLLM 0.24.0 or later, and {_unknown(facts)}")
    if facts.engine.streaming_tool_parser:
        return _passed(f"vLLM {facts.engine.version} has the GLM parser")
    return _refused(
        f"vLLM {facts.engine.version} loses or garbles streamed tool calls with MTP; the GLM parser came with 0.24.0"
    )


def _b200_garbage_023(facts: WorkloadFacts) -> Outcome:
    if facts.gpu.name != "B200":
        return _passed(f"the GPU is {facts.gpu.name}")
    if facts.engine is None or facts.checkpoint is None:
        return _refused(_unknown(facts))
    if facts.engine.number[:2] != _V0_23 or facts.checkpoint.precision != "fp8":
        return _passed(f"{facts.checkpoint.precision.upper()} on vLLM {facts.engine.version}")
    return _refused(
        f"vLLM {facts.engine.version} with {facts.model} on {facts.instance.shape} serves garbage (about 1 % MTP acceptance)"
    )


def _indexer_expand_023(facts: WorkloadFacts) -> Outcome:
    context = facts.context_tokens
    if facts.engine is None or context is None:
        return _refused(_unknown(facts))
    if facts.engine.number[:2] != _V0_23 or context < _INDEXER_EXPAND_TOKENS:
        return _passed(f"vLLM {facts.engine.version} with {context:,} tokens")
    return _refused(
        f"vLLM {facts.engine.version} kills its workers under concurrent load at max_model_len {context:,} "
        f"(from about {_INDEXER_EXPAND_TOKENS:,} on)"
    )


# --- pins and exposure ----------------------------------------------------------------------------------------


def image_problem(image: str) -> str | None:
    """Return why an image reference is not pinned by digest, or None. Used for every container of the stack."""
    if IMAGE_DIGEST.fullmatch(image):
        return None
    return f"image {image!r} is not pinned by digest (repository@sha256: and 64 hexadecimal digits)"


def _image_digest(facts: WorkloadFacts) -> Outcome:
    problem = image_problem(facts.image)
    return _refused(problem) if problem else _passed(f"the image is {facts.image}")


def _model_revision(facts: WorkloadFacts) -> Outcome:
    if facts.revision is not None and MODEL_REVISION.fullmatch(facts.revision):
        return _passed(f"the revision is {facts.revision}")
    given = "no revision is given" if facts.revision is None else f"revision {facts.revision!r} is not a commit"
    return _refused(f"{given} for {facts.model}; expected 40 hexadecimal digits")


def _dev_mode(facts: WorkloadFacts) -> Outcome:
    value = facts.env.get("VLLM_SERVER_DEV_MODE", "0")
    if value in {"", "0"}:
        return _passed("VLLM_SERVER_DEV_MODE is off")
    return _refused(f"VLLM_SERVER_DEV_MODE={value} opens /sleep, /pause and other administration to every client")


def _stale_cache(facts: WorkloadFacts) -> Outcome:
    digest = short_digest(facts.image)
    if digest is None:
        return _passed("not judged: the image has no digest, see image-digest")
    for name in CACHE_VARIABLES:
        path = facts.env.get(name)
        if path is not None and digest not in path.split("/"):
            return _refused(f"{name}={path} is not a folder of this image's own (no part of the path is {digest})")
    return _passed(f"every cache variable names a folder of {digest}, or none is set")


RULES: tuple[Rule, ...] = (
    Rule(
        "fit",
        "One full-length request fits the KV cache pool",
        "vLLM refuses to start",
        "lower maxModelLen or maxNumSeqs, or choose a GPU with more memory",
        "facts measured on an H200 with vLLM 0.26.0, checked against recipes#893, kaitakuai 4xB300, sc13912 2x p5en",
        _fit,
    ),
    Rule(
        "bf16-one-node",
        "BF16 weights fit one node",
        "out of memory while loading",
        "use precision fp8 or nvfp4, 16 GPUs on two nodes, or an 8xB300 pool",
        "arithmetic over the checkpoint's layers",
        _bf16_one_node,
    ),
    Rule(
        "nvfp4-hopper",
        "NVFP4 runs on Blackwell only",
        "unsupported checkpoint",
        "use precision fp8",
        "vLLM recipe zai-org/GLM-5.2",
        _nvfp4_hopper,
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
        "parser-old",
        "Tool calls with MTP have the GLM parser",
        "malformed or lost tool calls",
        "use vLLM 0.24.0 or later",
        "vllm#45915",
        _parser_old,
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
        "runai-load",
        "The loader does not reorder FP8 tensors",
        "gibberish behind a green health check",
        "use loadFormat auto",
        "vllm#43163, vllm#46078, vLLM pull request 46168",
        _runai_load,
    ),
    Rule(
        "image-digest",
        "The image is pinned by digest",
        "another image under the same tag, at the next restart",
        "name the image as repository@sha256:…",
        "cookbook; peers pin none",
        _image_digest,
    ),
    Rule(
        "model-revision",
        "The model is pinned by revision",
        "other weights under the same name, at the next fetch",
        "set revision to a commit of the model's repository, or leave it out for the catalogue's",
        "cookbook",
        _model_revision,
    ),
    Rule(
        "dev-mode",
        "vLLM's development endpoints are off",
        "anybody may stop or reset the engine",
        "take VLLM_SERVER_DEV_MODE out of env",
        "vLLM docs/usage/security.md",
        _dev_mode,
    ),
    Rule(
        "mnbt-h200",
        "Batched tokens on H200 stay within 16,384",
        "the KV pool shrinks or goes negative",
        "set maxNumBatchedTokens to 16384 or less",
        "kaitakuai glm-5.2-fp8-8xh200",
        _mnbt_h200,
    ),
    Rule(
        "gmu-high-h200",
        "Memory utilisation on H200 leaves room for scratch",
        "out of memory under load",
        "keep gpuMemoryUtilization at 0.92",
        "measured on an H200; kaitakuai, aarora79",
        _gmu_high_h200,
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
        "indexer-expand-023",
        "vLLM 0.23 does not serve long contexts",
        "workers die seconds into concurrent load",
        "use vLLM 0.24.0 or later",
        "vllm#46074, vllm#46679",
        _indexer_expand_023,
    ),
    Rule(
        "stale-cache",
        "Compile caches belong to one image and one pod",
        "garbage until the cache is cleared",
        "leave the cache variables out of env",
        "vllm#46367, edutelligence#579, rllm#490, measured on an H200",
        _stale_cache,
    ),
)
