"""The real gate, as a process, against the stand-in with every fault: caught by the right check, in time, without a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rehearsal.run import ROOT
from rehearsal.vllm.faults import FAULTS, Fault
from tests.fixtures.stacks import glm
from tests.fixtures.stand_in import LENGTH, MTP, running, settings, settings_of_stack

# Shorter than in a plan, so that servers which never answer do not hold up the tests. The margin is for the process itself:
# starting Python and importing openai, on a machine that does other things too.
REQUEST_SECONDS, DEADLINE_SECONDS, MARGIN_SECONDS = 4.0, 40.0, 60.0

TOOLS = {f"tools-{choice}{stream}" for choice in ("auto", "required", "named") for stream in ("", "-stream")}
FORCED = {name for name in TOOLS if "auto" not in name}
STREAMED = {name for name in TOOLS if name.endswith("-stream")}
NO_ARGUMENTS = "tools-no-arguments"
NEEDLES = {"needle-3k", "needle-5k", "needle-8k-tools"}
# Gibberish is where an answer belongs: the check of quiet answers wants no more.
SENSE = {"accuracy", "thinking-on", NO_ARGUMENTS, "tool-result", "tool-conversation"} | TOOLS | NEEDLES


@dataclass(frozen=True)
class Verdict:
    """What the gate's process said."""

    code: int
    report: dict[str, Any]
    words: str

    def ids(self, verdict: str) -> set[str]:
        return {row["id"] for row in self.report["checks"] if row["verdict"] == verdict}


def judged(port: int, expect: dict[str, object], folder: Path) -> Verdict:
    """Run the gate against an engine, within its time bound."""
    file = folder / "expect.json"
    file.write_text(json.dumps(expect), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "gate", "--base-url", f"http://127.0.0.1:{port}", "--expect", str(file)],
        cwd=ROOT,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS + MARGIN_SECONDS,
        check=False,
    )
    assert "Traceback" not in result.stderr
    return Verdict(result.returncode, json.loads(result.stdout), result.stderr)


def expectations(*overrides: str, stack: str = "dev", **changed: object) -> dict[str, object]:
    """The expect file of a stack's plan, with less patience."""
    bounds = {"requestSeconds": REQUEST_SECONDS, "deadlineSeconds": DEADLINE_SECONDS}
    return {**glm(stack, *overrides).expectations, **bounds, **changed}


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_a_healthy_engine_passes(stack: str, tmp_path: Path) -> None:
    with running(settings_of_stack(stack)) as engine:
        verdict = judged(engine.port, expectations(stack=stack), tmp_path)
    assert (verdict.code, verdict.words, verdict.ids("failed"), verdict.ids("notRun")) == (0, "", set(), set())
    tokens = verdict.report["promptTokens"] + verdict.report["completionTokens"]
    assert 20_000 < tokens < 40_000


@dataclass(frozen=True)
class Case:
    """A fault and every check that fails; `asked` is what the stack file asks for."""

    fault: Fault
    failed: set[str]
    asked: tuple[str, ...] = ()


CASES = [
    Case(Fault.GIBBERISH, SENSE),
    Case(Fault.LOW_ACCURACY, {"accuracy"}),
    Case(Fault.WRONG_BEYOND_2048, NEEDLES),
    Case(Fault.WRONG_BEYOND_4096, NEEDLES - {"needle-3k"}),
    Case(Fault.WRONG_AT_5400_WITH_TOOLS, {"needle-8k-tools"}),
    Case(Fault.FORCED_CALL_IN_CONTENT, FORCED),
    Case(Fault.REQUIRED_REPEATS, {"tools-required", "tools-required-stream"}),
    Case(Fault.CALL_IN_THINKING, TOOLS | {"tool-conversation"}),
    Case(Fault.CALL_NEVER_ISSUED, TOOLS - FORCED | {NO_ARGUMENTS, "tool-conversation", "needle-8k-tools"}),
    Case(Fault.STREAMED_CALL_LOST, STREAMED | {NO_ARGUMENTS, "tool-conversation"}),
    Case(Fault.ZERO_ARGUMENT_CALL_LOST, {NO_ARGUMENTS}),
    Case(Fault.CALL_LOST_NEAR_MAX_CONTEXT, {"needle-long"}, ("workloads.glm.gate.longNeedleShare=0.95",)),
    Case(Fault.TURN_THREE_REASONING, {"tool-conversation"}),
    Case(Fault.DEAD_MTP, {"speculation"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault.value)
def test_a_wrong_answer_is_caught_by_its_check(case: Case, tmp_path: Path) -> None:
    with running(settings_of_stack("dev"), case.fault) as engine:
        verdict = judged(engine.port, expectations(*case.asked), tmp_path)
    assert verdict.code == 1
    (first,) = FAULTS[case.fault].caught_by
    assert verdict.words.startswith(f"gate: {first} failed: ")
    assert (verdict.ids("failed"), verdict.ids("notRun")) == (case.failed, set())


NO_ANSWER = f"no complete answer within {REQUEST_SECONDS:g} s"
BROKEN = {
    Fault.GRAMMAR_HANG: NO_ANSWER,
    Fault.STREAMS_FOREVER: NO_ANSWER,
    Fault.STALLS_MID_LINE: NO_ANSWER,
    Fault.EVERY_THIRD_500: "HTTP 500",
}
"""Servers that do not answer as servers do, and what is said of it."""


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault.value)
def test_a_broken_server_gets_its_verdict_in_time(fault: Fault, tmp_path: Path) -> None:
    with running(settings_of_stack("dev"), fault) as engine:
        verdict = judged(engine.port, expectations(), tmp_path)
    assert verdict.code == 1
    assert verdict.report["seconds"] < DEADLINE_SECONDS
    assert f" failed: {BROKEN[fault]}" in verdict.words.splitlines()[0]
    assert next(row["id"] for row in verdict.report["checks"] if row["verdict"] == "failed") in FAULTS[fault].caught_by


NO_PARSER = ("--reasoning-parser", "glm45")
# Without a parser every request with tools is refused; what is left generates too few tokens to judge speculation by.
REFUSED = TOOLS | {NO_ARGUMENTS, "tool-result", "tool-conversation", "needle-8k-tools", "speculation"}
ENABLED = ("--enable-auto-tool-choice", "--tool-call-parser")
FLAGS = {
    "no-tool-parser": (NO_PARSER, "tools-auto", REFUSED),
    "auto-tool-choice-not-enabled": (
        (*NO_PARSER, "--tool-call-parser", "glm47"),
        "tools-auto",
        REFUSED,
    ),
    "wrong-tool-parser": (
        (*NO_PARSER, *ENABLED, "hermes"),
        "tools-auto",
        TOOLS | {NO_ARGUMENTS, "tool-conversation", "needle-8k-tools"},
    ),
    "no-reasoning-parser": (
        (*ENABLED, "glm47"),
        "thinking-on",
        {"thinking-on", "tools-auto", "tools-auto-stream", "tool-conversation"},
    ),
    "wrong-reasoning-parser": (
        (*ENABLED, "glm47", "--reasoning-parser", "deepseek_r1"),
        "thinking-off",
        {"thinking-off", "accuracy", NO_ARGUMENTS, "tool-result"} | TOOLS - STREAMED | NEEDLES,
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_missing_or_wrong_flag_is_caught(name: str, tmp_path: Path) -> None:
    flags, first, failed = FLAGS[name]
    with running(settings(*LENGTH, *MTP, *flags)) as engine:
        verdict = judged(engine.port, expectations(kvCacheTokensLeast=1), tmp_path)
    assert verdict.code == 1
    assert verdict.words.startswith(f"gate: {first} failed: ")
    assert (verdict.ids("failed"), verdict.ids("notRun")) == (failed, set())


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"servedModelName": "glm-5.2-bf16"}, "served-model"),
        ({"maxModelLen": 200_000}, "served-model"),
        ({"kvCacheTokensLeast": 10_000_000}, "kv-cache"),
        ({"engineVersion": "0.30.0"}, "engine-version"),
    ],
)
def test_another_engine_than_planned_is_caught(changed: dict[str, object], first: str, tmp_path: Path) -> None:
    with running(settings_of_stack("dev")) as engine:
        verdict = judged(engine.port, expectations() | changed, tmp_path)
    assert verdict.code == 1
    assert verdict.words.startswith(f"gate: {first} failed: ")


# Seen from outside of the process: below, and as a pod in the tests of upgrades.
AT_THE_PROCESS = {Fault.DIES_MID_CHECK, Fault.NEVER_HEALTHY}


def test_every_fault_is_judged() -> None:
    judged_here = [*(case.fault for case in CASES), *BROKEN]
    assert sorted([*judged_here, *AT_THE_PROCESS]) == sorted(Fault)
    assert {fault for fault, row in FAULTS.items() if not row.caught_by} == AT_THE_PROCESS


# --- the stand-in as a process ---------------------------------------------------------------------------------------------


def stand_in(*flags: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = ["vllm", "serve", "zai-org/GLM-5.2-FP8", "--served-model-name", "glm-5.2-fp8", "--kv-cache-dtype", "fp8"]
    machine = ["--listen", "0", "--instance-type", "p5en.48xlarge", "--engine-version", "0.31.0", *options]
    parallel = ["--tensor-parallel-size", "8", "--max-num-batched-tokens", "8192"]
    return subprocess.Popen(
        [sys.executable, "-m", "rehearsal.vllm", *machine, "--", *command, *parallel, *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_server_that_dies_in_the_middle(tmp_path: Path) -> None:
    with stand_in(*LENGTH, *MTP, *NO_PARSER, *ENABLED, "glm47", options=("--fault", "dies-mid-check")) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        verdict = judged(port, expectations(kvCacheTokensLeast=1), tmp_path)
        process.communicate()
    assert (process.returncode, verdict.code) == (1, 1)
    assert verdict.ids("notRun")
    assert verdict.report["seconds"] < DEADLINE_SECONDS


def test_a_server_that_vllm_would_not_start() -> None:
    with stand_in(*LENGTH, "--enable-auto-tool-choice", "--tool-call-parser", "glm99") as process:
        output, error = process.communicate(timeout=MARGIN_SECONDS)
    assert (process.returncode, output) == (1, "")
    assert error.startswith("KeyError: 'invalid tool call parser: glm99 (chose from { dots,")


def test_bad_input_is_one_sentence() -> None:
    with stand_in(*LENGTH, options=("--fault", "giberish")) as process:
        output, error = process.communicate(timeout=MARGIN_SECONDS)
    assert (process.returncode, output) == (2, "")
    assert error.startswith("unknown fault 'giberish'; allowed are gibberish, ")
    assert error.endswith("did you mean gibberish?\n")


def test_sigterm_ends_a_server_that_serves_and_one_that_never_will() -> None:
    for options in ((), ("--fault", "never-healthy"), ("--load-seconds", "600")):
        with stand_in(*LENGTH, options=options) as process:
            if not options:
                assert process.stdout is not None
                process.stdout.readline()
            process.terminate()
            _, error = process.communicate(timeout=MARGIN_SECONDS)
        assert process.returncode == (-15 if options else 0)
        assert error == ""
