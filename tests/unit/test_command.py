"""The command and environment that a plan renders for vLLM: whole, so that a change of one flag shows."""

from __future__ import annotations

import pytest

from serving import argv, catalogue
from serving.command import default_kv_cache_dtype
from serving.rules import CACHE_VARIABLES
from tests.fixtures.stacks import glm

REVISION = "31cba24fb749908a485082bdeed6eb1ac6cffc2f"


def test_command_of_the_dev_stack() -> None:
    assert glm("dev").command == (
        *("vllm", "serve", "zai-org/GLM-5.2-FP8"),
        *("--revision", REVISION),
        *("--served-model-name", "glm-5.2-fp8"),
        *("--host", "0.0.0.0"),
        *("--port", "8000"),
        *("--tensor-parallel-size", "8"),
        *("--max-model-len", "131072"),
        *("--max-num-seqs", "128"),
        *("--max-num-batched-tokens", "8192"),
        *("--gpu-memory-utilization", "0.92"),
        *("--kv-cache-dtype", "fp8"),
        *("--load-format", "auto"),
        *("--shutdown-timeout", "300"),
        *("--disable-access-log-for-endpoints", "/health,/metrics,/ping"),
        *("--speculative-config", '{"method":"mtp","num_speculative_tokens":3}'),
        *("--enable-auto-tool-choice", "--tool-call-parser", "glm47"),
        *("--reasoning-parser", "glm45"),
    )


def test_command_of_the_prod_stack_differs_where_the_machine_does() -> None:
    dev, prod = glm("dev").command, glm("prod").command
    assert [(a, b) for a, b in zip(dev, prod, strict=True) if a != b] == [("131072", "1048576"), ("fp8", "fp8_e4m3")]


def test_environment_of_the_dev_stack() -> None:
    folder = "/caches/c1c9f6fd5c10/glm-0"
    assert glm("dev").env == {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": "/models",
        "HF_HOME": f"{folder}/huggingface",
        "VLLM_CACHE_ROOT": f"{folder}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "TRITON_CACHE_DIR": f"{folder}/triton",
        "FLASHINFER_WORKSPACE_BASE": f"{folder}/flashinfer",
        "DG_JIT_CACHE_DIR": f"{folder}/deep_gemm",
        "CUDA_CACHE_PATH": f"{folder}/cuda",
        "XDG_CACHE_HOME": f"{folder}/xdg",
        "OMP_NUM_THREADS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": "3000",
        "VLLM_MAX_N_SEQUENCES": "128",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }


def test_blackwell_with_mtp_avoids_the_allreduce_that_lowers_acceptance() -> None:
    # llm-d's GLM guide; only with MTP, and not on Hopper.
    assert glm("prod").env["VLLM_FLASHINFER_ALLREDUCE_BACKEND"] == "trtllm"
    assert set(glm("prod").env) - set(glm("dev").env) == {"VLLM_FLASHINFER_ALLREDUCE_BACKEND"}
    without = glm("prod", "workloads.glm.speculativeTokens=0")
    assert "VLLM_FLASHINFER_ALLREDUCE_BACKEND" not in without.env


def test_every_cache_the_rule_judges_is_set() -> None:
    for stack in ("dev", "prod"):
        assert set(CACHE_VARIABLES) <= set(glm(stack).env)


@pytest.mark.parametrize(
    ("override", "gone"),
    [
        ("toolCalling=false", {"enable-auto-tool-choice", "tool-call-parser"}),
        ("reasoning=false", {"reasoning-parser"}),
        ("speculativeTokens=0", {"speculative-config"}),
    ],
)
def test_a_switch_that_is_off_leaves_its_flags_out(override: str, gone: set[str]) -> None:
    usual = argv.read(glm("dev").command).flags
    changed = argv.read(glm("dev", f"workloads.glm.{override}").command).flags
    assert set(usual) - set(changed) == gone
    assert set(changed) <= set(usual)


@pytest.mark.parametrize(
    ("override", "flag", "value"),
    [
        ("maxNumSeqs=48", "--max-num-seqs", "48"),
        ("maxNumBatchedTokens=16384", "--max-num-batched-tokens", "16384"),
        ("gpuMemoryUtilization=0.9", "--gpu-memory-utilization", "0.9"),
        ("gpuMemoryUtilization=1", "--gpu-memory-utilization", "1.0"),
        ("gpuMemoryUtilization=0.923456789", "--gpu-memory-utilization", "0.923456789"),
        ("kvCacheDtype=bfloat16", "--kv-cache-dtype", "bfloat16"),
        ("loadFormat=fastsafetensors", "--load-format", "fastsafetensors"),
        (f"revision={'a' * 40}", "--revision", "a" * 40),
        ("speculativeTokens=5", "--speculative-config", '{"method":"mtp","num_speculative_tokens":5}'),
    ],
)
def test_a_setting_reaches_its_flag(override: str, flag: str, value: str) -> None:
    words = glm("dev", f"workloads.glm.{override}").command
    assert words[words.index(flag) + 1] == value


def test_variables_of_the_stack_file_come_on_top() -> None:
    changed = glm("dev", "workloads.glm.env={NCCL_DEBUG: INFO, VLLM_NO_USAGE_STATS: '0'}")
    assert changed.env == {**glm("dev").env, "NCCL_DEBUG": "INFO", "VLLM_NO_USAGE_STATS": "0"}


@pytest.mark.parametrize(("gpu", "dtype"), [("H200", "fp8"), ("B200", "fp8_e4m3"), ("B300", "fp8_e4m3")])
def test_default_cache_type(gpu: str, dtype: str) -> None:
    # vLLM source: fp8_e4m3 has no attention backend on Hopper, and `auto` is a BF16 cache.
    assert default_kv_cache_dtype(catalogue.gpu(gpu)) == dtype


@pytest.mark.parametrize(
    ("image", "folder"),
    [
        (f"vllm/vllm-openai@sha256:{'ab' * 32}", "/caches/abababababab/glm-0"),
        ("vllm/vllm-openai:v0.31.0", "/caches/unpinned/glm-0"),  # refused by image-digest
    ],
)
def test_compile_caches_are_one_folder_for_each_image(image: str, folder: str) -> None:
    workload = glm("dev", f"workloads.glm.image={image}")
    assert workload.cache_path == folder
    assert {workload.env[name].startswith(f"{folder}/") for name in CACHE_VARIABLES} == {True}
