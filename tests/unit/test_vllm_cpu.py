"""The pure half of the real vLLM on a CPU: a pod's command and environment made fit, and the tiny model's table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from gate.client import Answer
from gate.judge import right
from gate.prompts import Call, conversations
from rehearsal.__main__ import main
from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.kubelet.programs import EngineContainer
from rehearsal.resource import RehearsalError
from rehearsal.vllm_cpu import environment
from rehearsal.vllm_cpu.command import cpu_environment, on_cpu
from rehearsal.vllm_cpu.server import CpuVllm
from rehearsal.vllm_cpu.servers import CpuServers
from rehearsal.vllm_cpu.tiny_glm import TinyGlm
from rehearsal.vllm_cpu.tiny_glm.table import gate_rows, row
from serving.spelling import InputError
from tests.fixtures.stacks import ROOT, glm

MODEL = Path("/cache/tiny-glm")


def test_the_command_of_a_stack_less_what_a_cpu_cannot_do() -> None:
    changed = on_cpu(glm("prod").command, model=MODEL, port=8123, kv_cache_bytes=4096)
    assert changed.argv == (
        *("vllm", "serve", "/cache/tiny-glm"),
        *("--served-model-name", "glm-5.2-fp8"),
        *("--max-model-len", "1048576"),
        *("--max-num-seqs", "128"),
        *("--max-num-batched-tokens", "8192"),
        *("--load-format", "auto"),
        *("--shutdown-timeout", "300"),
        *("--disable-access-log-for-endpoints", "/health,/metrics,/ping"),
        *("--speculative-config", '{"method":"mtp","num_speculative_tokens":3}'),
        *("--enable-auto-tool-choice", "--tool-call-parser", "glm47"),
        *("--reasoning-parser", "glm45"),
        *("--host", "127.0.0.1"),
        *("--port", "8123"),
        *("--kv-cache-memory-bytes", "4096"),
        *("--dtype", "float32"),
        "--enforce-eager",
    )
    assert changed.taken_out == {
        "--revision 31cba24fb749908a485082bdeed6eb1ac6cffc2f": "the tiny model is a folder, which has no revisions",
        "--host 0.0.0.0": "nothing may listen beyond loopback",
        "--port 8000": "every server has a free port of its own",
        "--tensor-parallel-size 8": "there are no GPUs to share the model",
        "--gpu-memory-utilization 0.92": "the KV cache is given in bytes instead",
        "--kv-cache-dtype fp8_e4m3": "on a CPU the cache has the type of the model",
    }
    assert changed.put_in == {
        "--host 127.0.0.1": "nothing may listen beyond loopback",
        "--port 8123": "every server has a free port of its own",
        "--kv-cache-memory-bytes 4096": "as many tokens as the plan has for a GPU, of the tiny model's size",
        "--dtype float32": "the tiny model's answers are exact in the type that it was trained in",
        "--enforce-eager": "compiling takes longer than everything that is asked of it",
    }


@pytest.mark.parametrize(
    ("words", "taken_out"),
    [
        (["--tensor-parallel-size=8"], ["--tensor-parallel-size=8"]),
        (["-tp", "8"], ["-tp 8"]),
        (["--kv_cache_dtype", "fp8"], ["--kv_cache_dtype fp8"]),
        (["--max-model-len", "-1", "--port", "1"], ["--port 1"]),
        (["--enable-auto-tool-choice", "--host", "h"], ["--host h"]),
        ([], []),
    ],
)
def test_flags_are_found_however_they_are_spelt(words: list[str], taken_out: list[str]) -> None:
    changed = on_cpu(["vllm", "serve", "m", *words], model=MODEL, port=1, kv_cache_bytes=1)
    assert list(changed.taken_out) == taken_out
    gone = " ".join(taken_out).split()
    assert list(changed.argv[3 : -len(" ".join(changed.put_in).split())]) == [w for w in words if w not in gone]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["vllm"], "'vllm'"),
        (["vllm", "serve"], "'vllm serve'"),
        (["vllm", "serve", "--port", "1"], "'vllm serve --port'"),
        (["python3", "-m", "vllm"], "'python3 -m vllm'"),
    ],
)
def test_another_command_is_refused(command: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        on_cpu(command, model=MODEL, port=1, kv_cache_bytes=1)
    assert str(caught.value) == f"a pod's command is `vllm serve MODEL ...`, not {said}"


def test_the_environment_of_a_pod_has_its_limits_and_none_of_its_mounts() -> None:
    pod: Mapping[str, str] = glm("prod").env
    here = cpu_environment({**pod, "HF_HUB_CACHE": "/models"}, Path("/somewhere"))
    assert here == {
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": "3000",
        "VLLM_MAX_N_SEQUENCES": "128",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_FLASHINFER_ALLREDUCE_BACKEND": "trtllm",
        "HOME": "/somewhere",
        "TMPDIR": "/somewhere",
        "PATH": "/usr/bin:/bin",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }


def test_the_locked_release_is_the_one_of_the_stacks() -> None:
    assert environment.locked_version() == glm("dev").engine_version == glm("prod").engine_version


def test_too_small_a_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nearly_full(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=2 * 10**9)

    monkeypatch.setattr(environment.shutil, "disk_usage", nearly_full)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ControlPlaneError) as caught:
        environment.build_environment(print)
    assert str(caught.value) == (
        f"{tmp_path}/glm-on-gpus: vLLM for CPUs needs 6 GB of disk and 2.0 GB are free; make room, or set XDG_CACHE_HOME to"
        " a folder that has it"
    )


def test_every_prompt_of_the_gate_has_its_row() -> None:
    prompts, rows = conversations(), gate_rows()
    assert [known.messages for known in rows] == [prompt.messages for prompt in prompts]
    for prompt, known in zip(prompts, rows, strict=True):
        thoughts, end, words = known.answer.rpartition("</think>")
        assert bool(thoughts) is bool(end) is known.thinking is (prompt.thinking == "on")
        if isinstance(prompt.right, str) and prompt.right.isdecimal():
            answer = Answer(prompt, "", words, thoughts, (), "stop", None, 0.0)
            assert right(answer) is None


def test_a_call_is_written_as_glm_writes_it() -> None:
    prompt = next(prompt for prompt in conversations() if prompt.id == "tools/auto/on")
    assert isinstance(prompt.right, Call)
    assert row(prompt).answer == (
        "The user wants get_weather called, and has said all that it needs.</think>"
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value>"
        "<arg_key>days</arg_key><arg_value>1</arg_value><arg_key>metric</arg_key><arg_value>true</arg_value></tool_call>"
    )


def test_other_words_can_stand_in_a_row() -> None:
    prompt = next(prompt for prompt in conversations() if prompt.id == "simple/on")
    assert row(prompt, instead="of of").answer == (
        "I read the question again and work it out step by step. The answer is 42.</think>of of"
    )


def engine(*command: str) -> EngineContainer:
    plan = glm("dev")
    return EngineContainer(
        command=command or plan.command,
        env=plan.env,
        image=plan.image,
        engine_version=plan.engine_version,
        instance_type="p5en.48xlarge",
        port=8123,
        load_seconds=620,
        grace_seconds=345,
        rendezvous=Path("meeting"),
    )


@pytest.fixture
def servers(tmp_path: Path) -> CpuServers:
    config = {"num_hidden_layers": 1, "num_nextn_predict_layers": 1, "num_key_value_heads": 2, "head_dim": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    vllm = CpuVllm(environment.Environment(tmp_path), TinyGlm(tmp_path), warm=Path("/run/vllm.sock"))
    return CpuServers(vllm, Path("/run/vllm"))


def test_a_pods_server_has_the_pods_flags_and_the_kv_cache_that_they_leave(servers: CpuServers) -> None:
    plan, pod = glm("dev"), Path("/run/pods/glm-0")
    program = servers.program(engine(), pod)
    bytes_per_token = 2 * 2 * 2 * 16 * 4  # layers with MTP's, keys and values, heads, dimension, float32
    size = plan.memory.kv_pool_tokens * bytes_per_token
    flags = on_cpu(plan.command, model=servers.vllm.model.folder, port=8123, kv_cache_bytes=size).argv
    assert tuple(program.argv[4:]) == ("/run/vllm.sock", *flags)
    assert program.cwd == pod
    assert program.env == cpu_environment(plan.env, Path("/run/vllm"))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("vllm", "bench", "m"), "the command is not `vllm serve`"),
        (
            ("vllm", "serve", "acme/model"),
            "acme/model is no checkpoint that the catalogue knows: its KV cache has no known size",
        ),
    ],
)
def test_a_pod_that_vllm_cannot_stand_for_says_why(command: tuple[str, ...], said: str, servers: CpuServers) -> None:
    with pytest.raises(RehearsalError) as refused:
        servers.program(engine(*command), Path("/run/pods/glm-0"))
    assert str(refused.value) == said


def test_nothing_of_vllm_is_loaded_for_a_rehearsal_without_it() -> None:
    code = (
        "import sys, rehearsal.__main__, rehearsal.kubelet.kubelet; print([m for m in sys.modules if 'vllm_cpu' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_unknown_serving_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--stack", "dev", "--serving", "vlm"]) == 2
    assert capsys.readouterr().err == (
        "python -m rehearsal up: argument --serving: 'vlm' is unknown; allowed are stand-in or vllm; did you mean vllm?"
        " See python -m rehearsal up --help\n"
    )
