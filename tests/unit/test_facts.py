"""Reading a vLLM command back: what the plan renders, and what other people write by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import catalogue
from serving.command import EngineSettings, KvOffload, command, environment
from serving.facts import WorkloadFacts, short_digest
from serving.reading import from_command
from serving.spelling import InputError
from tests.fixtures.rule_cases import REPOSITORY, UNKNOWN_IMAGE, image

P5EN = catalogue.instance_type("p5en.48xlarge")
P6_B200 = catalogue.instance_type("p6-b200.48xlarge")
MODEL = "zai-org/GLM-5.2-FP8"

SETTINGS = st.builds(
    EngineSettings,
    checkpoint=st.sampled_from(list(catalogue.checkpoints().values())),
    revision=st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    gpu=st.sampled_from([catalogue.gpu(name) for name in ("H200", "B200", "B300")]),
    nodes=st.integers(1, 4),
    tensor_parallel_size=st.integers(1, 16),
    layer_partition=st.sampled_from([(78,), (38, 40)]),
    decode_context_parallel_size=st.sampled_from([1, 2, 8]),
    max_model_len=st.integers(1024, 1_048_576),
    max_num_seqs=st.integers(1, 4096),
    max_num_batched_tokens=st.integers(1024, 131_072),
    gpu_memory_utilization=st.floats(0, 1, exclude_min=True),
    kv_cache_dtype=st.sampled_from(["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_ds_mla", "nvfp4_ds_mla"]),
    speculative_tokens=st.integers(0, 8),
    tool_calling=st.booleans(),
    reasoning=st.booleans(),
    load_format=st.sampled_from(["auto", "safetensors", "fastsafetensors", "instanttensor", "runai_streamer"]),
    kv_offload=st.sampled_from([None, KvOffload("OffloadingConnector", 512)]),
    shutdown_timeout_seconds=st.integers(0, 900),
    engine_ready_timeout_seconds=st.integers(600, 7200),
    rendezvous_timeout_seconds=st.integers(600, 7200),
    cache_path=st.just("/caches/c1c9f6fd5c10/glm-0"),
)


def read(*words: str, image_reference: str = UNKNOWN_IMAGE) -> WorkloadFacts:
    return from_command("glm", ("vllm", "serve", MODEL, *words), {}, image_reference, P5EN)


@given(SETTINGS)
def test_a_rendered_command_reads_back_as_its_settings(settings: EngineSettings) -> None:
    env = environment(settings)
    facts = from_command("glm", command(settings), env, image("0.31.0"), P5EN)
    assert facts == WorkloadFacts(
        workload="glm",
        image=image("0.31.0"),
        engine=catalogue.engine("0.31.0"),
        model=settings.checkpoint.repository,
        revision=settings.revision,
        checkpoint=settings.checkpoint,
        instance=P5EN,
        nodes_per_replica=settings.nodes,
        tensor_parallel_size=settings.tensor_parallel_size,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        kv_cache_dtype=settings.kv_cache_dtype,
        speculative_tokens=settings.speculative_tokens,
        load_format=settings.load_format,
        tool_call_parser="glm47" if settings.tool_calling else None,
        reasoning_parser="glm45" if settings.reasoning else None,
        auto_tool_choice=settings.tool_calling,
        pipeline_parallel_size=len(settings.layer_partition),
        decode_context_parallel_size=settings.decode_context_parallel_size,
        dcp_comm_backend="ag_rs" if settings.decode_context_parallel_size > 1 and settings.gpu.name == "H200" else None,
        kv_connector=settings.kv_offload and settings.kv_offload.connector,
        offload_gib=settings.kv_offload.gib if settings.kv_offload else 0.0,
        env=env,
    )


@given(SETTINGS)
def test_both_ways_to_write_a_flag_read_alike(settings: EngineSettings) -> None:
    words = command(settings)
    serve, rest = words[:3], words[3:]
    joined: list[str] = []
    for word in rest:
        if joined and not word.startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word.replace("-", "_").replace("__", "--", 1))
    env = environment(settings)
    assert from_command("glm", (*serve, *joined), env, UNKNOWN_IMAGE, P5EN) == from_command(
        "glm", words, env, UNKNOWN_IMAGE, P5EN
    )


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        pytest.param((), 0, id="left-out"),
        pytest.param(("--speculative-config", '{"method":"mtp","num_speculative_tokens":5}'), 5, id="json"),
        pytest.param(('--speculative-config={"num_speculative_tokens": 3}',), 3, id="json-in-one-word"),
        pytest.param(
            ("--speculative-config", '{"method":"mtp"}'), 1, id="json-without-tokens"
        ),  # the model's MTP layers
        pytest.param(("--speculative-config", '{"num-speculative-tokens":5}'), 5, id="json-with-dashes"),
        pytest.param(("--spec-method", "mtp", "--spec-tokens", "5"), 5, id="flags-of-their-own"),
        pytest.param(("--spec-method", "mtp"), 1, id="flags-of-their-own-without-tokens"),
        pytest.param(("-sc.method", "mtp", "--spec-tokens", "2"), 2, id="dotted-and-a-flag"),
        pytest.param(("-sc", '{"num_speculative_tokens":5}'), 5, id="short-flag"),
        pytest.param(
            ("--speculative-config.method", "mtp", "--speculative-config.num_speculative_tokens", "5"),
            5,
            id="dotted-as-the-recipe-writes-it",
        ),
        pytest.param(("--speculative-config.num-speculative-tokens=5",), 5, id="dotted-with-dashes"),
    ],
)
def test_speculative_tokens(words: tuple[str, ...], tokens: int) -> None:
    facts = read(*words)
    assert facts.speculative_tokens == tokens
    assert facts.mtp is (tokens > 0)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # As vLLM reads numbers (`human_readable_int`): a small letter is decimal, a capital one binary.
        ("131072", 131_072),
        ("128k", 128_000),
        ("128K", 131_072),
        ("1M", 1_048_576),
        ("1m", 1_000_000),
        ("25.6k", 25_600),
        ("auto", None),
        ("-1", None),
    ],
)
def test_lengths(text: str, tokens: int | None) -> None:
    facts = read("--max-model-len", text)
    assert facts.max_model_len == tokens
    assert facts.context_tokens == (tokens or 1_048_576)


def test_defaults_of_flags_left_out() -> None:
    # vLLM 0.23 to 0.33: 1,024 requests, 0.92 of memory, cache and loader auto, tensor parallel size 1.
    facts = read()
    assert (facts.revision, facts.max_model_len, facts.max_num_seqs, facts.tool_call_parser) == (None, None, None, None)
    assert (facts.sequences, facts.gpu_memory_utilization, facts.tensor_parallel_size) == (1024, 0.92, 1)
    assert (facts.kv_cache_dtype, facts.load_format, facts.speculative_tokens) == ("auto", "auto", 0)
    assert facts.context_tokens == 1_048_576  # the checkpoint's own limit


@pytest.mark.parametrize(("machine", "tokens"), [(P5EN, 8192), (P6_B200, 16_384)])
def test_default_batch_depends_on_the_gpu(machine: catalogue.InstanceType, tokens: int) -> None:
    # vLLM's API server: 8,192 tokens on an H200, 16,384 on GPUs of 160 GiB and more.
    facts = from_command("glm", ("vllm", "serve", MODEL), {}, UNKNOWN_IMAGE, machine)
    assert facts.max_num_batched_tokens == tokens


@pytest.mark.parametrize(
    ("words", "requests", "tokens"),
    [
        pytest.param(("--performance-mode", "throughput"), 2048, 16_384, id="throughput"),
        pytest.param(
            ("--performance-mode", "throughput", "--max-num-seqs", "8"), 8, 16_384, id="throughput-with-requests"
        ),
        pytest.param(("--performance-mode", "interactivity"), 1024, 8_192, id="interactivity"),
        pytest.param(
            ("--no-enable-chunked-prefill", "--max-model-len", "200k"), 1024, 200_000, id="prompts-in-one-step"
        ),
        pytest.param(
            ("--no-enable-chunked-prefill", "--max-model-len", "4096"), 1024, 8_192, id="short-prompts-in-one-step"
        ),
        pytest.param(("--no-enable-chunked-prefill", "--max-num-batched-tokens", "4k"), 1024, 4_000, id="tokens-given"),
    ],
)
def test_flags_that_change_defaults(words: tuple[str, ...], requests: int, tokens: int) -> None:
    facts = read(*words)
    assert (facts.sequences, facts.max_num_batched_tokens) == (requests, tokens)


@pytest.mark.parametrize(
    ("words", "model"),
    [
        pytest.param(("vllm", "serve", MODEL, "--port", "8000"), MODEL, id="after-serve"),
        pytest.param(("vllm", "serve", "--model", MODEL), MODEL, id="as-a-flag"),
        pytest.param(("python", "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL), MODEL, id="as-a-module"),
        pytest.param(("/usr/local/bin/vllm", "serve", MODEL), MODEL, id="with-a-path"),
        pytest.param(("vllm", "serve"), "", id="none"),
    ],
)
def test_model(words: tuple[str, ...], model: str) -> None:
    facts = from_command("glm", words, {}, UNKNOWN_IMAGE, P5EN)
    assert facts.model == model
    assert (facts.checkpoint is None) is (model == "")


def test_the_release_is_told_by_the_digest() -> None:
    assert read(image_reference=image("0.28.0")).engine == catalogue.engine("0.28.0")
    assert read(image_reference=f"registry.example.com/copy@{catalogue.engine('0.28.0').digest}").engine == (
        catalogue.engine("0.28.0")
    )
    assert read(image_reference=UNKNOWN_IMAGE).engine is None
    assert read(image_reference=f"{REPOSITORY}:v0.28.0").engine is None


def test_a_stated_release_wins_over_the_digest() -> None:
    stated = catalogue.engine("0.33.0")
    assert from_command("glm", ("vllm", "serve", MODEL), {}, image("0.28.0"), P5EN, engine=stated).engine == stated


def test_memory_needs_a_known_release_and_model() -> None:
    assert read(image_reference=UNKNOWN_IMAGE).memory is None
    assert from_command("glm", ("vllm", "serve", "acme/GLM"), {}, image("0.31.0"), P5EN).memory is None
    assert read(image_reference=image("0.31.0")).memory is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-model-len", "long"), "--max-model-len long: expected a whole number such as 131072 or 128K"),
        (("--max-model-len", "-5"), "--max-model-len -5: expected a whole number such as 131072 or 128K"),
        (("--max-num-seqs",), "vLLM would not read the command: --max-num-seqs lacks its value"),
        (("--max-num-seqs", "auto"), "--max-num-seqs auto: expected a whole number such as 131072 or 128K"),
        (("-tp", "0"), "--tensor-parallel-size 0: expected a whole number such as 131072 or 128K"),
        (
            ("--max-model-len", f"{'9' * 5000}k"),
            f"--max-model-len {'9' * 5000}k: expected a whole number such as 131072 or 128K",
        ),
        (("--gpu-memory-utilization", "nan"), "--gpu-memory-utilization nan: expected a fraction such as 0.92"),
        (("--gpu-memory-utilization", "1.1"), "--gpu-memory-utilization 1.1: expected a fraction such as 0.92"),
        (("-tp", "eight"), "--tensor-parallel-size eight: expected a whole number such as 131072 or 128K"),
        (("--gpu-memory-utilization", "92%"), "--gpu-memory-utilization 92%: expected a fraction such as 0.92"),
        (
            ("--speculative-config", "mtp"),
            '--speculative-config mtp: expected JSON such as {"method":"mtp","num_speculative_tokens":3}',
        ),
        (
            ("--speculative-config", '{"num_speculative_tokens":"5"}'),
            '--speculative-config {"num_speculative_tokens":"5"}: expected JSON such as '
            '{"method":"mtp","num_speculative_tokens":3}',
        ),
    ],
)
def test_a_value_that_vllm_would_not_read(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as refusal:
        read(*words)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("reference", "digits"),
    [
        (image("0.31.0"), "c1c9f6fd5c10"),
        (f"{REPOSITORY}:v0.31.0", None),
        ("localhost:5000/vllm", None),
        (f"{image('0.31.0')}\n", None),
        ("", None),
    ],
)
def test_short_digest(reference: str, digits: str | None) -> None:
    assert short_digest(reference) == digits
