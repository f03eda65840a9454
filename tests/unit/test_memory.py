"""The memory model against what was measured and published.

"Measured" is one rank of eight of GLM-5.2-FP8 on a real H200, vLLM 0.26.0, `gpu_memory_utilization` 0.92, dummy weights,
a real engine start, no collectives. Published points name the report they come from. GiB = 2^30 bytes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import catalogue
from serving.accuracy import shape_of
from serving.catalogue import Checkpoint
from serving.memory import (
    GIB,
    KV_BLOCK_TOKENS,
    ServingShape,
    breakdown,
    decode_scratch_gib,
    free_when_serving_gib,
    kv_bytes_per_token,
    largest_captured_batch,
    largest_max_model_len,
    prefill_workspace_gib,
    sparse_decode_scratch_gib,
)

H200, B200, B300 = (catalogue.gpu(name) for name in ("H200", "B200", "B300"))
FP8 = catalogue.checkpoint_for("glm-5.2", "fp8")
BF16 = catalogue.checkpoint_for("glm-5.2", "bf16")
NVFP4 = catalogue.checkpoint_for("glm-5.2", "nvfp4")

MILLION = 1_048_576
TOLERANCE = 0.015  # what the issue asks of every row and every published pool

# The measured rank: nothing but the engine, as its API server starts it.
RANK = ServingShape(
    checkpoint=FP8,
    engine=catalogue.engine("0.26.0"),
    gpu=H200,
    tensor_parallel_size=8,
    max_model_len=131_072,
    max_num_seqs=1024,
    max_num_batched_tokens=8192,
    kv_cache_dtype="fp8",
    speculative_tokens=0,
    collectives_gib=0.0,
)
# The same on a real node of eight GPUs.
NODE = replace(RANK, collectives_gib=2.6)
B200_NODE = replace(NODE, gpu=B200, kv_cache_dtype="fp8_e4m3", max_num_batched_tokens=16_384, max_model_len=MILLION)


def rank(max_model_len: int, mtp: int, max_num_seqs: int = 1024) -> ServingShape:
    return replace(RANK, max_model_len=max_model_len, speculative_tokens=mtp, max_num_seqs=max_num_seqs)


def term(shape: ServingShape, name: str) -> float:
    memory = breakdown(shape)
    return next(term.gib for term in (*memory.weights, *memory.overhead) if term.name == name)


# --- the measured terms (the pools themselves are held against the records in test_accuracy.py) --------------------------


@pytest.mark.parametrize(
    ("max_num_seqs", "fits"), [pytest.param(1024, False, id="1024-requests"), pytest.param(64, True, id="64-requests")]
)
def test_524288_tokens_with_mtp_on_eight_real_gpus(max_num_seqs: int, fits: bool) -> None:
    # D512 started on the single rank with 1.05x; the collectives of eight GPUs take that away again.
    assert breakdown(rank(524_288, 5)).fits
    assert breakdown(replace(rank(524_288, 5, max_num_seqs), collectives_gib=2.6)).fits is fits


@pytest.mark.parametrize(
    ("max_model_len", "mtp", "gib"),
    [
        pytest.param(131_072, 0, 0.773, id="measured-A"),
        pytest.param(262_144, 5, 1.477, id="measured-D256"),
        pytest.param(524_288, 5, 2.883, id="measured-D512"),
        pytest.param(MILLION, 5, 5.695, id="measured-C"),
    ],
)
def test_prefill_workspace_at_load(max_model_len: int, mtp: int, gib: float) -> None:
    assert prefill_workspace_gib(rank(max_model_len, mtp)) == pytest.approx(gib, abs=0.001)


def test_prefill_workspace_of_a_bf16_cache_is_nothing() -> None:
    assert prefill_workspace_gib(replace(RANK, kv_cache_dtype="auto")) == 0.0  # measured E_auto


def test_prefill_workspace_shrinks_above_262144_tokens_from_0_33_on() -> None:
    # vLLM 0.33 source: factor 5 up to 256K, 2 above, which is 2.25 GiB at 1M besides the query buffer (0.07 GiB).
    newer = replace(RANK, engine=catalogue.engine("0.33.0"))
    query_buffer = 8192 * 8 * 576 * 2 / GIB
    at_1m = prefill_workspace_gib(replace(newer, max_model_len=MILLION))
    assert at_1m - query_buffer == pytest.approx(2.25, abs=0.001)
    assert prefill_workspace_gib(replace(newer, max_model_len=262_144)) == prefill_workspace_gib(rank(262_144, 0))
    assert prefill_workspace_gib(replace(newer, max_model_len=262_145)) < prefill_workspace_gib(rank(262_144, 0))


@pytest.mark.parametrize(
    ("shape", "activations", "moe", "graphs"),
    [
        pytest.param(rank(131_072, 0), 3.795, 1.5, 1.332, id="measured-A"),
        pytest.param(rank(131_072, 5), 6.163, 1.5, 1.967, id="measured-B"),
        pytest.param(rank(262_144, 5), 6.163, 1.5, 2.209, id="measured-D256"),
        pytest.param(rank(524_288, 5), 4.663, 0.0, 2.604, id="measured-D512"),
        pytest.param(rank(MILLION, 5), 4.663, 0.0, 3.668, id="measured-C"),
        pytest.param(rank(MILLION, 0), 2.295, 0.0, 3.082, id="measured-C0"),
    ],
)
def test_overhead_terms(shape: ServingShape, activations: float, moe: float, graphs: float) -> None:
    # The measured activation peak contains the MoE workspace where that is a block of its own.
    assert term(shape, "MoE workspace") == moe
    assert term(shape, "activations") + moe == pytest.approx(activations, abs=0.01)
    assert term(shape, "CUDA graphs") == pytest.approx(graphs, abs=0.1)
    assert term(shape, "non-torch") == pytest.approx(0.27, abs=0.005)


# --- published pools ----------------------------------------------------------------------------------------------


def test_loaded_memory_of_8xh200() -> None:
    # recipes#893, the run of P1: 94.46 GiB loaded, and the length is refused.
    shape = shape_of(catalogue.pools()["P1"])
    memory = breakdown(shape)
    assert memory.weights_gib + prefill_workspace_gib(shape) == pytest.approx(94.46, abs=0.02)
    assert not memory.fits


def test_weights_of_4xb300() -> None:
    memory = breakdown(shape_of(catalogue.pools()["P2"]))  # published: ~176 GiB of weights on each card
    assert memory.weights_gib == pytest.approx(176, abs=1)
    assert memory.kv_bytes_per_token == 55_224


def test_bytes_of_half_the_layers() -> None:
    assert breakdown(shape_of(catalogue.pools()["P3"])).kv_bytes_per_token == 30_732


@pytest.mark.parametrize("max_num_seqs", [32, 1024])
@pytest.mark.parametrize("release", ["0.24.0", "0.31.0", "0.33.0"])
def test_accepts_8xb200_at_1m_with_mtp(release: str, max_num_seqs: int) -> None:
    # vllm#46654: 8xB200 FP8 serves one to two concurrent requests of 1M.
    engine = catalogue.engine(release)
    memory = breakdown(replace(B200_NODE, engine=engine, speculative_tokens=5, max_num_seqs=max_num_seqs))
    assert memory.fits
    assert 1 <= memory.full_length_requests < 2


def test_accepts_h200_at_200000_with_mtp() -> None:
    memory = breakdown(
        shape_of(catalogue.pools()["P6"])
    )  # it starts; by the rougher published formula with 519k tokens
    assert memory.fits
    assert memory.kv_pool_tokens > 500_000


def test_a_huge_batch_on_h200_starves_the_pool() -> None:
    # kaitakuai glm-5.2-fp8-8xh200: 131,072 batched tokens at 0.90 left -3.95 GiB. The model covers large batches only roughly
    # (the rule mnbt-h200 refuses them outright), but it must see that most of the pool is gone and that 450,000 tokens fail.
    engine = catalogue.engine("0.23.0")
    usual = replace(NODE, engine=engine, max_model_len=450_000, gpu_memory_utilization=0.90)
    huge = breakdown(replace(usual, max_num_batched_tokens=131_072))
    assert not huge.fits
    assert huge.kv_pool_gib < breakdown(usual).kv_pool_gib - 15


# --- KV bytes a token ---------------------------------------------------------------------------------------------

HOPPER = replace(NODE, engine=catalogue.engine("0.31.0"))
BLACKWELL = replace(B200_NODE, engine=catalogue.engine("0.31.0"), max_model_len=131_072)


# Bytes = (78 + m) * record + (I + m) * 132, m = 1 with MTP, I = 21 from 0.24 on and 78 before; records of 656 B
# (fp8_ds_mla), 576 B (fp8_e4m3), 1152 B (bf16) and 352 B (nvfp4_ds_mla), vLLM `flashmla_sparse.py`.
@pytest.mark.parametrize(
    ("shape", "without", "with_mtp", "without_023", "with_mtp_023"),
    [
        pytest.param(replace(HOPPER, kv_cache_dtype="fp8"), 53_940, 54_728, 61_464, 62_252, id="hopper-fp8"),
        pytest.param(
            replace(HOPPER, kv_cache_dtype="fp8_ds_mla"), 53_940, 54_728, 61_464, 62_252, id="hopper-fp8_ds_mla"
        ),
        pytest.param(replace(HOPPER, kv_cache_dtype="auto"), 92_628, 93_912, 100_152, 101_436, id="hopper-auto"),
        pytest.param(
            replace(BLACKWELL, kv_cache_dtype="fp8_e4m3"), 47_700, 48_408, 55_224, 55_932, id="blackwell-e4m3"
        ),
        pytest.param(replace(BLACKWELL, kv_cache_dtype="fp8"), 47_700, 48_408, 55_224, 55_932, id="blackwell-fp8"),
        pytest.param(
            replace(BLACKWELL, kv_cache_dtype="bfloat16"), 92_628, 93_912, 100_152, 101_436, id="blackwell-bf16"
        ),
    ],
)
def test_kv_bytes_per_token(
    shape: ServingShape, without: int, with_mtp: int, without_023: int, with_mtp_023: int
) -> None:
    old = replace(shape, engine=catalogue.engine("0.23.0"))
    assert kv_bytes_per_token(shape) == without
    assert kv_bytes_per_token(replace(shape, speculative_tokens=5)) == with_mtp
    assert kv_bytes_per_token(old) == without_023
    assert kv_bytes_per_token(replace(old, speculative_tokens=5)) == with_mtp_023


def test_kv_bytes_of_nvfp4_cache() -> None:
    shape = replace(BLACKWELL, kv_cache_dtype="nvfp4_ds_mla")
    assert kv_bytes_per_token(shape) == 30_228
    assert kv_bytes_per_token(replace(shape, speculative_tokens=3)) == 30_712


@pytest.mark.parametrize(("release", "expected"), [("0.28.0", 92_628), ("0.31.0", 92_628), ("0.33.0", 47_700)])
def test_auto_on_blackwell_becomes_fp8_with_0_33(release: str, expected: int) -> None:
    # vLLM source: `auto` is fp8_e4m3 on SM10x for this architecture in 0.33, not in 0.28 and 0.31; never on Hopper.
    engine = catalogue.engine(release)
    assert kv_bytes_per_token(replace(BLACKWELL, engine=engine, kv_cache_dtype="auto")) == expected
    assert kv_bytes_per_token(replace(HOPPER, engine=engine, kv_cache_dtype="auto")) == 92_628


@pytest.mark.parametrize(
    ("shape", "without", "with_mtp"),
    [
        pytest.param(replace(HOPPER, kv_cache_dtype="fp8"), 52.68, 53.45, id="hopper-fp8-as-vllm-says-in-C0-and-C"),
        pytest.param(replace(BLACKWELL, kv_cache_dtype="fp8_e4m3"), 46.58, 47.27, id="blackwell-e4m3"),
        pytest.param(replace(HOPPER, kv_cache_dtype="auto"), 90.46, 91.71, id="bf16"),
        pytest.param(replace(BLACKWELL, kv_cache_dtype="nvfp4_ds_mla"), 29.52, 29.99, id="nvfp4_ds_mla"),
    ],
)
def test_kv_cache_of_one_full_length_request(shape: ServingShape, without: float, with_mtp: float) -> None:
    full = replace(shape, max_model_len=MILLION)
    assert round(breakdown(full).needed_gib, 2) == without
    assert round(breakdown(replace(full, speculative_tokens=5)).needed_gib, 2) == with_mtp


@pytest.mark.parametrize(
    ("published", "tokens", "release"),
    [
        pytest.param(1_104_691_200, 2_560, "0.26.0", id="recipes#754-8xH200-0.26.1rc1-offload-store"),
        pytest.param(59_763_793_920, 138_496, "0.28.0", id="recipes#893-8xH200-0.28.0-offloading_cpu"),
        pytest.param(19_111_157_760, 44_288, "0.28.0", id="recipes#893-8xH200-0.28.0-offloading_fs"),
    ],
)
def test_published_offload_bytes_exactly(published: int, tokens: int, release: str) -> None:
    # Offload stores count all eight ranks, in whole blocks of 64 tokens.
    shape = replace(NODE, engine=catalogue.engine(release))
    assert tokens % 64 == 0
    assert tokens * kv_bytes_per_token(shape) * shape.tensor_parallel_size == published


def test_published_pool_of_the_older_indexer_cache() -> None:
    # vllm#44545: GLM-5.1-FP8 on 8xH200, 0.22.1rc: 434,048 tokens in "24.85 GiB". Every layer has an indexer cache there.
    shape = replace(NODE, engine=catalogue.engine("0.23.0"))
    assert kv_bytes_per_token(shape) == 61_464
    pool_gib = 434_048 * kv_bytes_per_token(shape) / GIB
    assert pool_gib == pytest.approx(24.85, abs=0.005)


# --- weights ------------------------------------------------------------------------------------------------------


def test_weights_as_vllm_charges_them() -> None:
    assert breakdown(RANK).weights_gib == pytest.approx(88.76, abs=0.02)  # measured A, C0
    assert breakdown(rank(131_072, 5)).weights_gib == pytest.approx(90.15, abs=0.02)  # measured B, C


@pytest.mark.parametrize(
    ("kind", "gib"),
    [
        ("experts", 84.396),
        ("attention", 2.791),
        ("dense and shared MLP", 0.629),
        ("embedding and head", 0.443),
        ("indexers", 0.203),
        ("rope table", 0.125),
        ("buffers", 0.175),
    ],
)
def test_weights_by_kind_as_measured_in_row_a(kind: str, gib: float) -> None:
    assert term(RANK, kind) == pytest.approx(gib, abs=0.0011)


def test_the_mtp_layer() -> None:
    # Measured: experts 1.125, eh_proj 0.141, attention 0.036; its indexer, router and shared expert come on top. All that MTP
    # adds is 1.39 GiB with the second top-k buffer of 0.064.
    assert 1.125 + 0.141 + 0.036 < term(rank(131_072, 5), "MTP layer") < 1.33
    added = breakdown(rank(131_072, 5)).weights_gib - breakdown(RANK).weights_gib
    assert added == pytest.approx(90.15 - 88.76, abs=0.02)


def parameters_gib(shape: ServingShape) -> float:
    """Weights without what vLLM holds beside the checkpoint's parameters: rope table, buffers, absorbed kv_b in bf16."""
    architecture = shape.checkpoint.architecture
    memory = breakdown(shape)
    held = sum(term.gib for term in memory.weights if term.name in {"rope table", "buffers"})
    layers = architecture.hidden_layers / shape.pipeline_parallel_size + (1 if shape.mtp else 0)
    absorbed = (
        512 * 64 * (192 + 256) * 2 / shape.tensor_parallel_size / GIB
    )  # kv_lora_rank x heads x (nope + v) in bf16
    return memory.weights_gib - held - layers * absorbed


# Parameters alone, from vLLM's model class on torch's meta device.
@pytest.mark.parametrize(("mtp", "gib"), [(0, 88.196), (5, 89.511)])
def test_parameters_alone_as_vllm_builds_them(mtp: int, gib: float) -> None:
    assert parameters_gib(rank(131_072, mtp)) == pytest.approx(gib, abs=0.01)


# Weights per rank from the sharded bytes and the replicated projections, indexers and router. Ours hold more (see
# `parameters_gib`), which is why 88.2 becomes the 88.76 that vLLM charges.
@pytest.mark.parametrize(
    ("checkpoint", "tensor", "pipeline", "without", "with_mtp"),
    [
        pytest.param(FP8, 8, 1, 88.2, 89.5, id="fp8-tp8"),
        pytest.param(FP8, 4, 1, 174.8, 177.2, id="fp8-tp4"),
        pytest.param(BF16, 8, 1, 175.6, 178.1, id="bf16-tp8"),
        pytest.param(BF16, 16, 1, 89.3, 90.6, id="bf16-tp16"),
        pytest.param(FP8, 8, 2, 45.7, None, id="fp8-tp8-pp2-second-stage"),
    ],
)
def test_weights_of_a_rank(
    checkpoint: Checkpoint, tensor: int, pipeline: int, without: float, with_mtp: float | None
) -> None:
    shape = replace(
        RANK, checkpoint=checkpoint, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline, speculative_tokens=0
    )
    assert parameters_gib(shape) == pytest.approx(without, abs=0.07)
    if with_mtp is not None:
        assert parameters_gib(replace(shape, speculative_tokens=5)) == pytest.approx(with_mtp, abs=0.07)


def test_weights_of_the_nvfp4_checkpoint() -> None:
    # vLLM recipe zai-org/GLM-5.2: ~433 GiB, about 54 GiB a GPU over eight.
    assert parameters_gib(replace(BLACKWELL, checkpoint=NVFP4)) == pytest.approx(54, abs=0.5)


@pytest.mark.parametrize(
    ("gpu", "left_of_memory", "left_of_share"),
    [
        pytest.param(H200, -35.8, -47.0, id="8xH200-35-GiB-short"),
        pytest.param(B200, 3.4, -10.9, id="8xB200-the-naive-check-passes"),
        pytest.param(B300, 92.9, 71.5, id="8xB300-71-GiB-left"),
    ],
)
def test_bf16_on_one_node(gpu: catalogue.Gpu, left_of_memory: float, left_of_share: float) -> None:
    # The trap: on B200 "weights <= total memory" holds (+3.4 GiB), yet vLLM's share at 0.92 is 10.9 GiB short of them.
    dtype = "fp8" if gpu.architecture == "hopper" else "fp8_e4m3"
    shape = replace(NODE, checkpoint=BF16, gpu=gpu, kv_cache_dtype=dtype)
    memory = breakdown(shape)
    assert memory.usable_gib - parameters_gib(shape) == pytest.approx(left_of_memory, abs=0.1)
    assert memory.requested_gib - parameters_gib(shape) == pytest.approx(left_of_share, abs=0.1)
    assert memory.fits is (gpu is B300)
    assert (memory.kv_pool_gib > 0) is (gpu is B300)
    assert (memory.kv_pool_tokens > 0) is (gpu is B300)


# --- what follows for a node ---------------------------------------------------------------------------------------


def largest_before_any_margin(shape: ServingShape) -> int:
    lengths = range(MILLION, 0, -1024)
    memories = (breakdown(replace(shape, max_model_len=length)) for length in lengths)
    return next(memory.max_model_len for memory in memories if memory.needed_gib <= memory.kv_pool_gib)


# From the measured terms with 2.6 GiB for eight GPUs' collectives, before any margin: tokens at two lengths, and the largest
# length that starts.
@pytest.mark.parametrize(
    ("mtp", "max_num_seqs", "at_131072", "at_262144", "largest"),
    [
        pytest.param(0, 1024, 618_000, 599_000, 583_000, id="no-mtp-1024"),
        pytest.param(0, 64, 648_000, 629_000, 608_000, id="no-mtp-64"),
        pytest.param(5, 1024, 524_000, 505_000, 501_000, id="mtp5-1024"),
        pytest.param(5, 64, 597_000, 578_000, 565_000, id="mtp5-64"),
    ],
)
def test_largest_length_that_starts_on_8xh200(
    mtp: int, max_num_seqs: int, at_131072: int, at_262144: int, largest: int
) -> None:
    shape = replace(rank(131_072, mtp, max_num_seqs), collectives_gib=2.6)
    assert breakdown(shape).kv_pool_tokens == pytest.approx(at_131072, rel=0.005)
    assert breakdown(replace(shape, max_model_len=262_144)).kv_pool_tokens == pytest.approx(at_262144, rel=0.005)
    starts = largest_before_any_margin(shape)
    assert starts == pytest.approx(largest, rel=TOLERANCE)
    # What the plan calls the largest keeps 1 GiB more: 1 GiB of cache, and the workspace and graphs of that length.
    assert 0 < starts - largest_max_model_len(shape) < GIB / 53_940 * 1.1


@pytest.mark.parametrize(("mtp", "tokens"), [pytest.param(0, 512, id="512"), pytest.param(5, 498, id="mtp5-498")])
def test_largest_captured_batch(mtp: int, tokens: int) -> None:
    assert largest_captured_batch(mtp) == tokens  # measured engine: 512, and 498 with MTP 5


@pytest.mark.parametrize(
    ("gpu", "release", "tokens"),
    [
        # vLLM 0.31.0 `config/vllm.py` captures up to 1,024 tokens on Blackwell; the 4xB300 pool of 0.23 is met with 512.
        pytest.param(H200, "0.31.0", 512, id="h200"),
        pytest.param(B200, "0.31.0", 1024, id="b200"),
        pytest.param(B300, "0.23.0", 512, id="b300-0.23"),
    ],
)
def test_graphs_hold_the_indexers_logits_of_the_largest_captured_batch(
    gpu: catalogue.Gpu, release: str, tokens: int
) -> None:
    short = replace(RANK, gpu=gpu, engine=catalogue.engine(release), max_model_len=131_072)
    grown = term(replace(short, max_model_len=MILLION), "CUDA graphs") - term(short, "CUDA graphs")
    assert grown == pytest.approx(tokens * 4 * (MILLION - 131_072) / GIB)


@pytest.mark.parametrize(("max_model_len", "requests"), [(131_072, 682), (262_144, 341), (524_288, 170)])
def test_decode_scratch_limit_of_2_gib(max_model_len: int, requests: int) -> None:
    # From test X8: with MTP 5 these many requests stay within 2 GiB.
    assert decode_scratch_gib(requests, 5, max_model_len) <= 2.0 < decode_scratch_gib(requests + 1, 5, max_model_len)


def test_decode_scratch_of_the_engine_that_died() -> None:
    # Test X8 at 524,288 with MTP 5: 256 requests took 3.0 GiB; the killing allocation was 7.14 GiB for 3,656 rows.
    assert decode_scratch_gib(256, 5, 524_288) == 3.0
    assert decode_scratch_gib(3656, 0, 524_288) == pytest.approx(7.14, abs=0.005)


@pytest.mark.parametrize(("batched", "gib"), [(8192, 2.0), (16_384, 4.0), (32_768, 8.0)])
def test_sparse_decode_scratch(batched: int, gib: float) -> None:
    assert sparse_decode_scratch_gib(batched) == gib  # vllm#44545


@pytest.mark.parametrize(("utilization", "gib"), [(0.92, 7.0), (0.94, 4.2), (0.95, 2.8), (0.97, 0.0)])
def test_free_memory_while_serving_on_h200(utilization: float, gib: float) -> None:
    assert (
        round(free_when_serving_gib(H200, utilization), 1) == gib
    )  # measured at 0.92; 0.97 ran out of memory (kaitakuai)


# --- properties ----------------------------------------------------------------------------------------------------

SHAPES = st.builds(
    ServingShape,
    checkpoint=st.sampled_from([FP8, BF16, NVFP4]),
    engine=st.sampled_from(list(catalogue.engines().values())),
    gpu=st.sampled_from([H200, B200, B300]),
    tensor_parallel_size=st.sampled_from([4, 8, 16]),
    max_model_len=st.integers(1024, MILLION),
    max_num_seqs=st.integers(1, 4096),
    max_num_batched_tokens=st.integers(1024, 131_072),
    kv_cache_dtype=st.sampled_from(["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_ds_mla", "nvfp4_ds_mla"]),
    speculative_tokens=st.integers(0, 8),
    gpu_memory_utilization=st.floats(0.5, 1.0),
    pipeline_parallel_size=st.integers(1, 3),
    decode_context_parallel_size=st.sampled_from([1, 2, 4, 8]),
)


@given(SHAPES)
def test_every_gib_is_accounted_for(shape: ServingShape) -> None:
    memory = breakdown(shape)
    parts = memory.weights_gib + memory.overhead_gib + memory.kv_pool_gib + memory.free_gib
    assert parts == pytest.approx(memory.usable_gib)
    assert all(term.gib >= 0 for term in (*memory.weights, *memory.overhead))
    assert len({term.name for term in (*memory.weights, *memory.overhead)}) == len(memory.weights + memory.overhead)


@given(SHAPES)
def test_the_pool_is_whole_blocks_inside_its_memory(shape: ServingShape) -> None:
    memory = breakdown(shape)
    on_a_rank, rest = divmod(memory.kv_pool_tokens, shape.decode_context_parallel_size)
    assert rest == 0
    assert on_a_rank % 64 == 0
    assert on_a_rank >= 0
    assert on_a_rank * memory.kv_bytes_per_token <= max(memory.kv_pool_gib, 0) * GIB
    one_more_block = (on_a_rank + 64) * memory.kv_bytes_per_token
    assert one_more_block > memory.kv_pool_gib * GIB


@given(SHAPES, st.sampled_from([2, 4, 8]))
def test_decode_context_parallelism_deals_the_tokens_out(shape: ServingShape, ranks: int) -> None:
    once = breakdown(replace(shape, decode_context_parallel_size=1))
    dealt = breakdown(replace(shape, decode_context_parallel_size=ranks))
    assert dealt.kv_pool_gib == pytest.approx(once.kv_pool_gib - 1.3)
    assert dealt.kv_bytes_per_token == once.kv_bytes_per_token
    block = KV_BLOCK_TOKENS * dealt.kv_bytes_per_token
    assert dealt.kv_pool_tokens == ranks * KV_BLOCK_TOKENS * max(int(dealt.kv_pool_gib * GIB // block), 0)
    assert dealt.needed_gib == pytest.approx(once.needed_gib / ranks)


def test_the_published_pair_of_pools_with_and_without_decode_context_parallelism() -> None:
    """P9: GLM-5.2 (REAP, NVFP4) on 4xRTX PRO 6000, TP4, 131,072 tokens, 164,160 tokens and with DCP4 553,984 (vllm#47779).

    The machine is not in the catalogue, so its pool is taken as published; the term was fitted to this one pair.
    """
    alone = breakdown(rank(131_072, 0, 1024))
    published = 164_160 * 53_940 / GIB
    at = replace(alone, requested_gib=alone.weights_gib + alone.overhead_gib + published)
    assert at.kv_bytes_per_token == 53_940
    assert at.kv_pool_tokens == pytest.approx(164_160, abs=64)
    taken = breakdown(replace(rank(131_072, 0, 1024), decode_context_parallel_size=4)).overhead
    dealt = replace(at, overhead=taken, decode_context_parallel_size=4)
    assert dealt.kv_pool_tokens == pytest.approx(553_984, rel=0.002)


@given(SHAPES, st.integers(1, 4096))
def test_more_requests_never_enlarge_the_pool(shape: ServingShape, more: int) -> None:
    larger = replace(shape, max_num_seqs=shape.max_num_seqs + more)
    assert breakdown(larger).kv_pool_gib <= breakdown(shape).kv_pool_gib


def test_more_requests_shrink_the_pool_once_the_sampler_is_the_peak() -> None:
    pools = [breakdown(rank(131_072, 5, seqs)).kv_pool_gib for seqs in (256, 512, 1024, 2048)]
    assert pools == sorted(pools, reverse=True)
    assert len(set(pools)) == len(pools)


@given(SHAPES, st.floats(0.5, 1.0))
def test_more_utilization_means_more_pool(shape: ServingShape, other: float) -> None:
    low, high = sorted((shape.gpu_memory_utilization, other))
    at_low, at_high = (breakdown(replace(shape, gpu_memory_utilization=share)) for share in (low, high))
    assert at_low.kv_pool_gib <= at_high.kv_pool_gib
    assert at_high.kv_pool_gib - at_low.kv_pool_gib == pytest.approx((high - low) * shape.gpu.usable_gib, abs=1e-6)


@given(SHAPES)
def test_twice_the_ranks_hold_about_half_the_weights(shape: ServingShape) -> None:
    once = breakdown(shape).weights_gib
    twice = breakdown(replace(shape, tensor_parallel_size=2 * shape.tensor_parallel_size)).weights_gib
    assert once / 2 < twice < once * 0.6  # projections, indexers, router and buffers are replicated


@given(SHAPES, st.integers(1, 4))
def test_tensor_parallelism_does_not_divide_the_kv_cache(shape: ServingShape, factor: int) -> None:
    # The MLA latent has one head: every rank keeps a whole copy.
    more_ranks = replace(shape, tensor_parallel_size=factor * shape.tensor_parallel_size)
    assert kv_bytes_per_token(more_ranks) == kv_bytes_per_token(shape)


@given(SHAPES)
def test_mtp_costs_pool(shape: ServingShape) -> None:
    with_mtp = replace(shape, speculative_tokens=max(shape.speculative_tokens, 1))
    without = replace(shape, speculative_tokens=0)
    assert breakdown(with_mtp).kv_pool_gib < breakdown(without).kv_pool_gib
    assert kv_bytes_per_token(with_mtp) >= kv_bytes_per_token(without)


@given(st.integers(0, 8), st.sampled_from([512, 1024]))
def test_captured_batches_are_whole_decode_steps(speculative_tokens: int, limit: int) -> None:
    largest = largest_captured_batch(speculative_tokens, limit)
    step = 1 + speculative_tokens
    assert largest % step == 0
    assert limit - 16 - step < largest <= limit  # sizes are sixteen apart, each rounded up to whole steps


@settings(max_examples=15)
@given(SHAPES)
def test_the_largest_length_fits_and_the_next_does_not(shape: ServingShape) -> None:
    largest = largest_max_model_len(shape)
    assert largest % 1024 == 0
    if largest:
        assert breakdown(replace(shape, max_model_len=largest)).fits
    if largest < MILLION:
        assert not breakdown(replace(shape, max_model_len=largest + 1024)).fits
