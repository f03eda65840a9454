"""The command of every stack is one that vLLM takes, and our reader of commands reads as vLLM does: both asked of vLLM's own
argument parser, of the pinned version.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rehearsal.vllm_cpu.environment import Environment, locked_version
from serving import argv, catalogue
from tests.fixtures.command_forms import FORMS, Form
from tests.fixtures.stacks import EXAMPLES
from tests.serving.vllm_parser import Flag, Verdict, parse

STACKS = ("dev", "prod", *EXAMPLES)
# The FP8 cache type that a machine's GPUs have an attention backend for (vLLM 0.31.0, v1/attention/backends/mla:
# flashmla_sparse.py for Hopper, flashinfer_mla_sparse.py for Blackwell). `auto` would be BF16 on both.
KV_CACHE_DTYPE = {"p5en.48xlarge": "fp8", "p6-b200.48xlarge": "fp8_e4m3", "p6-b300.48xlarge": "fp8_e4m3"}

# What the LeaderWorkerSet controller and Kubernetes make of a group's commands, for its second pod.
GROUP = {"$(LWS_WORKER_INDEX)": "1", "$(LWS_LEADER_ADDRESS)": "glm-group-0.glm-group.glm"}

Command = list[str]

ACCEPTED: Command = [
    *("vllm", "serve", "zai-org/GLM-5.2-FP8", "--served-model-name", "glm-5.2-fp8"),
    *("--max-model-len", "131072", "--kv-cache-dtype", "fp8"),
    *("--speculative-config", '{"method":"mtp","num_speculative_tokens":3}', "--shutdown-timeout", "300"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "glm47", "--reasoning-parser", "glm45"),
]
"""What the refused commands are made of: each differs in one thing only."""


def _with(flag: str, value: str) -> Callable[[Command], Command]:
    """Give one flag of a command another value."""

    def change(command: Command) -> Command:
        at = command.index(flag) + 1
        return [*command[:at], value, *command[at + 1 :]]

    return change


def _misspelt(flag: str, misspelling: str) -> Callable[[Command], Command]:
    return lambda command: [misspelling if word == flag else word for word in command]


def _without(flag: str, words: int) -> Callable[[Command], Command]:
    """Drop a flag and the values that follow it, `words` in all."""

    def change(command: Command) -> Command:
        at = command.index(flag)
        return [*command[:at], *command[at + words :]]

    return change


REFUSED: dict[str, tuple[Callable[[Command], Command], str]] = {
    "misspelt flag": (
        _misspelt("--max-model-len", "--max-modle-len"),
        "unrecognized arguments: --max-modle-len 131072",
    ),
    "flag of an older release": (lambda command: [*command, "--disable-log-requests"], "unrecognized arguments: "),
    "KV cache type": (_with("--kv-cache-dtype", "fp8_e4m4"), "argument --kv-cache-dtype: invalid choice: 'fp8_e4m4'"),
    "unit in a number": (_with("--shutdown-timeout", "5m"), "argument --shutdown-timeout: invalid int value: '5m'"),
    "tool parser": (_with("--tool-call-parser", "glm99"), "Tool parser 'glm99' not found"),
    "reasoning parser": (_with("--reasoning-parser", "glm99"), "Reasoning parser 'glm99' not found"),
    "tool choice without parser": (
        _without("--tool-call-parser", 2),
        "Error: --enable-auto-tool-choice requires --tool-call-parser",
    ),
    "speculation: no JSON": (
        _with("--speculative-config", "{method: mtp}"),
        "argument --speculative-config/-sc: Value {method: mtp} cannot be converted",
    ),
    "speculation: no object": (_with("--speculative-config", "[3]"), "--speculative-config: [3] is not a JSON object"),
    "speculation: key": (
        _with("--speculative-config", '{"method":"mtp","num_speculative_token":3}'),
        "--speculative-config: unknown key 'num_speculative_token'",
    ),
    "speculation: method": (
        _with("--speculative-config", '{"method":"mpt","num_speculative_tokens":3}'),
        "--speculative-config: method='mpt': Input should be",
    ),
    "speculation: tokens": (
        _with("--speculative-config", '{"method":"mtp","num_speculative_tokens":0}'),
        "--speculative-config: num_speculative_tokens=0: Input should be greater than 0",
    ),
    "exchange of shares": (
        lambda command: [*command, "--dcp-comm-backend", "ag-rs"],
        "argument --dcp-comm-backend: invalid choice: 'ag-rs'",
    ),
    "no model": (lambda command: [*command[:2], *command[3:]], "`model` should be provided as the first positional"),
    "not vllm serve": (lambda command: ["vllm", "server", *command[2:]], "expected a command that starts with"),
}
"""By name: what is done to ACCEPTED, and what vLLM then says, in part."""


def _in_a_group(command: Sequence[str]) -> Command:
    return [GROUP.get(word, word) for word in command]


def _workload(stack: str) -> Mapping[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "serving", "plan", "--stack", stack, "--format", "json"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"the plan of {stack} is refused:\n{done.stdout}{done.stderr}"
    plan = json.loads(done.stdout)
    (pool,) = plan["nodePools"].values()
    workload: Mapping[str, Any] = {**plan["workloads"]["glm"], "instanceType": pool["instanceType"]}
    return workload


@pytest.fixture(scope="module")
def workloads() -> Mapping[str, Mapping[str, Any]]:
    """The planned workload of each stack, by the interface that everything else reads."""
    return {stack: _workload(stack) for stack in STACKS}


@pytest.fixture(scope="module")
def asked(
    workloads: Mapping[str, Mapping[str, Any]],
    environment: Environment,
) -> tuple[Mapping[str, Verdict], Sequence[Flag]]:
    """All of this module's questions at once: importing vLLM costs far more than each of them."""
    commands: dict[str, Sequence[str]] = {}
    for stack, workload in workloads.items():
        commands[stack] = _in_a_group(workload["command"])
        if workload["workerCommand"]:
            commands[f"{stack}, other nodes"] = _in_a_group(workload["workerCommand"])
    commands["accepted"] = ACCEPTED
    for name, (change, _) in REFUSED.items():
        commands[name] = change(ACCEPTED)
    commands |= {f"form {form.id}": form.command for form in FORMS}
    verdicts, flags = parse(environment, list(commands.values()))
    return dict(zip(commands, verdicts, strict=True)), flags


@pytest.fixture(scope="module")
def verdicts(asked: tuple[Mapping[str, Verdict], Sequence[Flag]]) -> Mapping[str, Verdict]:
    """Return vLLM's answers by the name of the command."""
    return asked[0]


@pytest.mark.parametrize("stack", STACKS)
def test_vllm_takes_the_command_and_reads_what_the_plan_says(
    stack: str, workloads: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, Verdict]
) -> None:
    workload, verdict = workloads[stack], verdicts[stack]
    assert verdict.error is None
    assert verdict.accepted
    planned = {
        "model_tag": workload["checkpoint"],
        "revision": workload["revision"],
        "tensor_parallel_size": workload["tensorParallelSize"],
        "max_model_len": workload["memory"]["maxModelLen"],
        "max_num_seqs": workload["memory"]["maxNumSeqs"],
        "kv_cache_dtype": KV_CACHE_DTYPE[workload["instanceType"]],
        "load_format": "auto",
        "enable_auto_tool_choice": True,
        "tool_call_parser": "glm47",
        "reasoning_parser": "glm45",
        "port": 8000,
    }
    assert {dest: verdict.values.get(dest) for dest in planned} == planned
    speculation = verdict.values["speculative_config"]
    assert speculation["method"] == "mtp"
    assert speculation["num_speculative_tokens"] >= 1
    assert 0.0 < verdict.values["gpu_memory_utilization"] < 1.0


def test_the_nodes_of_a_replica_make_one_engine(verdicts: Mapping[str, Verdict]) -> None:
    first, other = verdicts["h200-bf16-two-nodes"], verdicts["h200-bf16-two-nodes, other nodes"]
    assert (first.error, other.error) == (None, None)
    assert first.values["nnodes"] == other.values["nnodes"] == 2
    assert first.values["master_addr"] == other.values["master_addr"] == "glm-group-0.glm-group.glm"
    assert first.values["distributed_timeout_seconds"] == other.values["distributed_timeout_seconds"] > 600
    differing = {name for name in other.values if other.values[name] != first.values.get(name)}
    assert {name: other.values[name] for name in differing} == {"node_rank": 1, "headless": True}
    assert first.values["node_rank"] == 0


@pytest.mark.parametrize("stack", STACKS)
def test_vllm_shares_the_cache_out_as_the_plan_says(
    stack: str, workloads: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, Verdict]
) -> None:
    size = workloads[stack]["decodeContextParallelSize"]
    shared = {"decode_context_parallel_size": 8, "dcp_comm_backend": "ag_rs"} if stack == "h200-fp8-1m" else {}
    assert size == shared.get("decode_context_parallel_size", 1)
    given = {"decode_context_parallel_size", "dcp_comm_backend"} & verdicts[stack].values.keys()
    assert {dest: verdicts[stack].values[dest] for dest in given} == shared


@pytest.mark.parametrize("stack", STACKS)
def test_every_flag_is_spelt_out(
    stack: str, workloads: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, Verdict]
) -> None:
    """vLLM takes any unambiguous beginning of a flag, until a release adds a second flag that begins so."""
    assert verdicts[stack].error is None
    flags = {word.removeprefix("--").replace("-", "_") for word in workloads[stack]["command"] if word[:2] == "--"}
    assert flags | {"model_tag"} == verdicts[stack].values.keys()


def test_vllm_takes_what_the_refused_commands_are_made_of(verdicts: Mapping[str, Verdict]) -> None:
    assert verdicts["accepted"].error is None
    assert verdicts["accepted"].accepted


@pytest.mark.parametrize("name", REFUSED)
def test_vllm_refuses(name: str, verdicts: Mapping[str, Verdict]) -> None:
    verdict = verdicts[name]
    assert not verdict.accepted
    assert verdict.error is not None
    assert REFUSED[name][1] in verdict.error


@pytest.mark.parametrize("stack", STACKS)
def test_the_parser_asked_is_the_one_deployed(stack: str, workloads: Mapping[str, Mapping[str, Any]]) -> None:
    assert workloads[stack]["engineVersion"] == locked_version()


# --- our own reader of commands --------------------------------------------------------------------------------------

# vLLM's parser makes an object of its own of these.
_OBJECTS = {"compilation_config"}


def _same(text: str, value: object) -> bool:
    """Whether a flag's text is what vLLM made of it."""
    match value:
        case bool():
            return text == str(value).lower()
        case int():
            return (-1 if text == "auto" else argv.whole_number(text)) == value
        case float():
            return float(text) == value
        case dict():
            return json.loads(text) == value
        case list():
            return text.split(" ") == value
        case _:
            return text == value


@pytest.mark.parametrize("form", [pytest.param(form, id=form.id) for form in FORMS])
def test_vllm_reads_a_form_as_we_do(form: Form, verdicts: Mapping[str, Verdict]) -> None:
    verdict = verdicts[f"form {form.id}"]
    assert verdict.accepted is (form.flags is not None), verdict.error
    if form.flags is None:
        return
    values = {name.replace("_", "-"): value for name, value in verdict.values.items()}
    assert values.pop("model-tag", None) == form.model
    assert set(values) == set(form.flags)
    differ = {name for name, text in form.flags.items() if not _same(text, values[name])}
    assert differ <= {name.replace("_", "-") for name in _OBJECTS}


def test_our_list_of_flags_is_the_parsers(asked: tuple[Mapping[str, Verdict], Sequence[Flag]]) -> None:
    table = catalogue.serve_flags()
    assert table.release == locked_version()
    kinds: dict[str, str | int | None] = {
        "switch": 0,
        "negatable": 0,
        "value": None,
        "values": "+",
        "optional_value": "?",
    }
    ours = {(frozenset(row.split()), nargs) for kind, nargs in kinds.items() for row in getattr(table, kind)}
    theirs = {
        (frozenset(option for option in flag.options if not _negates(option, flag)), flag.nargs) for flag in asked[1]
    }
    assert ours == theirs - {(frozenset({"-h", "--help"}), 0)}
    negatable = {flag.options[0] for flag in asked[1] if any(_negates(option, flag) for option in flag.options)}
    assert {row.split()[0] for row in table.negatable} == negatable


def _negates(option: str, flag: Flag) -> bool:
    return option.startswith("--no-") and f"--{option.removeprefix('--no-')}" in flag.options
