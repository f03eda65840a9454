"""Decode context parallelism: one setting, what follows in command, memory and report, and where it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from serving import argv, catalogue
from serving.config import ConfigError, parse
from serving.parallelism import context_problem
from serving.plan import Plan, build
from serving.report import as_json, as_markdown
from serving.rules import violations
from tests.fixtures.stacks import glm, plan
from tests.unit.test_several_nodes import settings

SHARED = "workloads.glm.decodeContextParallelSize={}"
A_MILLION = "workloads.glm.maxModelLen=1048576"
DCP_FLAGS = {"decode-context-parallel-size", "dcp-comm-backend"}


def several(**workload: Any) -> Plan:
    return build(parse(settings(**workload)), "test")


def refusals(made: Plan) -> dict[str, str]:
    return {row.rule: row.message for row in made.violations}


# --- what follows ----------------------------------------------------------------------------------------------------


def test_one_is_the_default_and_says_nothing() -> None:
    alone, said = glm("dev"), glm("dev", SHARED.format(1))
    assert alone == said
    assert not DCP_FLAGS & argv.read(alone.command).flags.keys()
    assert "decode context" not in as_markdown(plan("dev")).partition("| rule |")[0]


def test_h200_gets_the_exchange_that_its_attention_backend_takes() -> None:
    """FlashMLA's sparse backend of 0.31.0 raises on all-to-all, which is vLLM's default for this model."""
    row = glm("dev", SHARED.format(8))
    flags = argv.read(row.command).flags
    assert (flags["decode-context-parallel-size"], flags["dcp-comm-backend"]) == ("8", "ag_rs")
    assert flags.keys() - argv.read(glm("dev").command).flags.keys() == DCP_FLAGS
    assert (row.facts.decode_context_parallel_size, row.facts.dcp_comm_backend) == (8, "ag_rs")
    assert violations(row.verdicts) == []


@pytest.mark.parametrize("size", [2, 4, 8])
def test_every_rank_keeps_a_share_of_each_request(size: int) -> None:
    alone, shared = glm("dev").memory, glm("dev", SHARED.format(size)).memory
    assert shared.kv_pool_gib == pytest.approx(alone.kv_pool_gib - 1.3)
    assert shared.kv_bytes_per_token == alone.kv_bytes_per_token == 54_728
    blocks = int(shared.kv_pool_gib * 2**30 // (64 * 54_728))
    assert shared.kv_pool_tokens == blocks * 64 * size
    assert shared.full_length_requests == shared.kv_pool_tokens / 131_072


def test_a_million_tokens_fit_one_machine_of_h200_only_when_they_are_shared() -> None:
    """The native length does not fit 8xH200 otherwise (recipes#893)."""
    alone = refusals(plan("dev", A_MILLION))
    assert set(alone) == {"fit", "h200-len"}
    assert plan("dev", A_MILLION, SHARED.format(8)).violations == []
    assert glm("dev", A_MILLION, SHARED.format(8)).memory.full_length_requests > 2


def test_the_gate_expects_the_tokens_of_all_shares() -> None:
    """vLLM 0.31.0 names the capacity of the group of ranks in `kv_cache_size_tokens`."""
    row = glm("dev", SHARED.format(8))
    assert row.expectations["kvCacheTokensPredicted"] == row.memory.kv_pool_tokens > 8 * 400_000


def test_report_and_json_say_it() -> None:
    made = plan("dev", SHARED.format(4))
    assert (
        "- replicas: 1 on pool h200, tensor parallel size 8, decode context parallel size 4"
        in as_markdown(made).splitlines()
    )
    cache = next(line for line in as_markdown(made).splitlines() if line.startswith("- KV cache: "))
    assert "GiB on each of 4 GPUs that share it out, " in cache
    assert as_json(made)["workloads"]["glm"]["decodeContextParallelSize"] == 4
    assert as_json(plan("dev"))["workloads"]["glm"]["decodeContextParallelSize"] == 1


# --- several nodes and stages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 8, 16])
def test_sixteen_ranks_on_two_nodes(size: int) -> None:
    made = several(decodeContextParallelSize=size)
    row = made.workloads["glm"]
    assert made.violations == []
    assert row.tensor_parallel_size == 16
    for words in (row.command, row.worker_command):
        assert argv.read(words).flags["decode-context-parallel-size"] == str(size)
    alone = several().workloads["glm"].memory
    assert row.memory.kv_pool_tokens == pytest.approx(
        size * alone.kv_pool_tokens * (1 - 1.3 / alone.kv_pool_gib), rel=0.001
    )


def test_stages_share_out_their_own_layers_cache() -> None:
    made = several(decodeContextParallelSize=8, pipelineParallelSize=2, precision="fp8", toolCalling=False)
    row = made.workloads["glm"]
    assert made.violations == []
    assert (row.tensor_parallel_size, row.pipeline_parallel_size, row.decode_context_parallel_size) == (8, 2, 8)
    assert "tensor parallel size 8, 2 pipeline stages, decode context parallel size 8" in as_markdown(made)


def test_stages_may_leave_too_many_heads_on_a_gpu() -> None:
    made = plan("dev", SHARED.format(2), "workloads.glm.pipelineParallelSize=4", "workloads.glm.toolCalling=false")
    assert refusals(made) == {
        "dcp-hopper": "there are 32 attention heads on each GPU, and FlashMLA's sparse backend shares a cache out with fewer "
        "than 32 only"
    }


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stack", "overrides", "said"),
    [
        ("dev", (SHARED.format(3),), "3 does not divide the tensor parallel size, 8; use 1, 2, 4 or 8"),
        ("dev", (SHARED.format(16),), "16 does not divide the tensor parallel size, 8; use 1, 2, 4 or 8"),
        (
            "dev",
            (SHARED.format(8), "workloads.glm.pipelineParallelSize=2"),
            "8 does not divide the tensor parallel size, 4; use 1, 2 or 4",
        ),
        (
            "h200-bf16-two-nodes",
            (SHARED.format(32),),
            "32 does not divide the tensor parallel size, 16; use 1, 2, 4, 8 or 16",
        ),
        *(
            (
                "dev",
                (SHARED.format(bad),),
                f"{bad} is not allowed; expected a whole number of GPUs from 1 to 32 that keep a request's KV cache together; "
                "it divides the tensor parallel size",
            )
            for bad in (0, 33, 2.5)
        ),
    ],
)
def test_one_sentence_for_each_mistake(stack: str, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan(stack, *overrides)
    assert error.value.problems == [f"Pulumi.{stack}.yaml: workloads.glm.decodeContextParallelSize: {said}"]


def test_ranks_that_cannot_be_are_one_mistake_not_two() -> None:
    with pytest.raises(ConfigError) as error:
        plan("dev", SHARED.format(7), "workloads.glm.pipelineParallelSize=3")
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("tensor_parallel_size", range(1, 33))
def test_the_sizes_that_are_named_are_those_that_divide(tensor_parallel_size: int) -> None:
    for size in range(1, 33):
        problem = context_problem(tensor_parallel_size, size)
        assert (problem is None) is (tensor_parallel_size % size == 0)
        if problem:
            named = problem.partition("; use ")[2].replace(" or ", ", ").split(", ")
            assert all(context_problem(tensor_parallel_size, int(name)) is None for name in named)


RELEASES: dict[str, set[str]] = {
    "0.23.0": {"dcp-any"},
    "0.24.0": {"dcp-any"},
    "0.26.0": {"dcp-any"},
    "0.28.0": {"dcp-any", "dcp-028"},
    "0.29.0": {"dcp-any", "dcp-029"},
    "0.30.0": {"dcp-any"},
    "0.31.0": set(),
    "0.33.0": set(),
}
"""By release: the rules that refuse eight shares on H200. Only a release whose source has all the code passes."""


def test_every_release_of_the_catalogue_is_asked_about() -> None:
    assert list(RELEASES) == list(catalogue.engines())


@pytest.mark.parametrize("release", RELEASES)
def test_releases_on_h200(release: str) -> None:
    overrides = (f"workloads.glm.vllmVersion='{release}'", f"workloads.glm.image=vllm/vllm-openai@sha256:{'a' * 64}")
    alone, shared = refusals(plan("dev", *overrides)), refusals(plan("dev", *overrides, SHARED.format(8)))
    assert shared.keys() - alone.keys() == RELEASES[release]
    if RELEASES[release]:
        assert shared["dcp-any"] == (
            f"decode context parallel size is 8, for which vLLM {release} is not known to have all the code"
        )


@pytest.mark.parametrize("stack", ["b200-fp8-1m", "b200-nvfp4", "b300-bf16"])
def test_blackwell_is_refused_with_the_reason(stack: str) -> None:
    made = plan(stack, SHARED.format(8))
    gpu = made.workloads["glm"].facts.gpu.name
    assert refusals(made) == {
        "dcp-workspace": f"decode context parallel size is 8 on {gpu}, where FlashInfer's MLA kernel overflows its workspace"
    }


def test_a_bf16_cache_is_refused_as_it_is_without() -> None:
    """FlashMLA's sparse backend shares out an fp8_ds_mla cache only, and a BF16 cache has no place on Hopper anyway."""
    made = plan("dev", SHARED.format(8), "workloads.glm.kvCacheDtype=bfloat16")
    assert set(refusals(made)) == {"kv-auto-hopper", "long-context-quality"}


@pytest.mark.parametrize("dtype", ["fp8", "fp8_ds_mla"])
def test_an_fp8_cache_is_shared_out(dtype: str) -> None:
    assert plan("dev", SHARED.format(8), f"workloads.glm.kvCacheDtype={dtype}").violations == []


@pytest.mark.parametrize("tokens", [0, 3, 8])
def test_mtp_goes_with_it(tokens: int) -> None:
    """The MTP path of FlashMLA's sparse backend came with its decode context parallelism (vllm#46514)."""
    made = plan("dev", SHARED.format(8), f"workloads.glm.speculativeTokens={tokens}")
    assert made.violations == []


def test_kv_offload_goes_with_it_and_holds_more() -> None:
    """Each rank writes out its own share (vllm#41549), so host memory, too, holds a token once for each group of ranks."""
    made = plan("dev", SHARED.format(8), "workloads.glm.kvOffloadGiB=512")
    assert made.violations == []
    line = next(line for line in as_markdown(made).splitlines() if line.startswith("- KV offload: "))
    assert line.endswith(f" {512 * 2**30 // 54_728:,} tokens or more")


def test_a_length_that_does_not_fit_is_named_with_the_longest_that_does() -> None:
    """The rules compute the longest length with the same shares."""
    why = refusals(plan("dev", A_MILLION, SHARED.format(2)))["h200-len"]
    longest = int(why.rpartition("the longest that fits is ")[2].removesuffix(" tokens").replace(",", ""))
    assert 600_000 < longest < 1_048_576
    assert glm("dev", f"workloads.glm.maxModelLen={longest}", SHARED.format(2)).memory.fits
