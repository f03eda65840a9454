"""The real gate against the real vLLM: it passes with the stacks' own flags, and with one thing wrong it says which."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gate.prompts import CHOICES, conversations
from rehearsal.vllm_cpu.environment import Environment
from rehearsal.vllm_cpu.tiny_glm import TinyGlm, damaged, trained
from rehearsal.vllm_cpu.tiny_glm.table import row
from serving.plan import WorkloadPlan
from tests.fixtures.stacks import ROOT, glm
from tests.fixtures.vllm_behaviour import FLAGS, Change, unchanged, with_value, without
from tests.serving.launcher import Launcher

BLOCK_TOKENS = 128  # of the KV cache on a CPU; what does not fill a block is left over
NONSENSE = "of the and in the of"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a server which is healthy by its own account, and what the gate has to say to it.

    `may_fail` are checks that nonsense may pass by chance.
    """

    fails: tuple[str, ...]
    words: str
    change: Change = unchanged
    model: str = "good"
    may_fail: tuple[str, ...] = ()


TOOLS = (*(f"tools-{choice}{stream}" for choice in CHOICES for stream in ("", "-stream")), "tools-no-arguments")
NEEDLES = ("needle-3k", "needle-5k", "needle-8k-tools")
ANSWERS = ("thinking-off", "thinking-on", *TOOLS, "tool-result", "tool-conversation", "accuracy", *NEEDLES)

FAULTS = {
    "no tool parser": Fault(
        (*TOOLS, "tool-result", "tool-conversation", "needle-8k-tools"),
        "tools-auto failed: HTTP 400",
        FLAGS["no tool parser"],
    ),
    "no auto tool choice": Fault(
        (*TOOLS, "tool-result", "tool-conversation", "needle-8k-tools"),
        "tools-auto failed: HTTP 400",
        FLAGS["no auto tool choice"],
    ),
    "wrong tool parser": Fault(
        (*TOOLS, "tool-conversation", "needle-8k-tools"),
        "tools-auto failed: content holds <tool_call>",
        FLAGS["wrong tool parser"],
    ),
    "no reasoning parser": Fault(
        ("thinking-on", "tools-auto", "tools-auto-stream", "tool-conversation"),
        "thinking-on failed: content holds </think>",
        FLAGS["no reasoning parser"],
    ),
    "wrong served name": Fault(
        ("served-model", *ANSWERS, "usage", "speculation"),
        "served-model failed: served are glm-5.2, expected glm-5.2-fp8",
        with_value("--served-model-name", "glm-5.2"),
    ),
    "wrecked weights": Fault(("accuracy", "speculation", *NEEDLES), "thinking-", model="wrecked", may_fail=ANSWERS),
    "wrecked MTP layer": Fault(("speculation",), "speculation failed: ", model="wrecked MTP layer"),
    "wrong beyond 2,048 tokens": Fault(
        NEEDLES, "needle-3k failed: the answer is wrong, expected 48213", model="wrong beyond 2,048 tokens"
    ),
}

# What vLLM does not start with, and in part what it says then.
REFUSED = {
    "context larger than the KV cache": (
        "dev",
        with_value("--max-model-len", "1048576"),
        "To serve at least one request with the model's max seq len (1048576)",
    ),
    "auto tool choice without a parser": (
        "prod",
        without(("--tool-call-parser", 1)),
        "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
    ),
    "unknown tool parser": ("prod", with_value("--tool-call-parser", "glm99"), "invalid tool call parser: glm99"),
}


@pytest.fixture(scope="module")
def models(good: TinyGlm, environment: Environment, progress: Callable[[str], None]) -> Mapping[str, TinyGlm]:
    """The models by name."""
    wrong_when_long = [row(prompt, instead=NONSENSE if prompt.more_than else None) for prompt in conversations()]
    return {
        "good": good,
        "wrecked": damaged(environment, good, "main", progress),
        "wrecked MTP layer": damaged(environment, good, "mtp", progress),
        "wrong beyond 2,048 tokens": trained(environment, wrong_when_long, progress),
    }


@dataclass(frozen=True)
class Verdict:
    """How the gate ended, its report, its last words."""

    status: int
    report: Mapping[str, Any]
    words: str

    def checks(self, verdict: str) -> list[str]:
        return [check["id"] for check in self.report["checks"] if check["verdict"] == verdict]


@dataclass(frozen=True)
class Gate:
    """The real gate, run as in a pod: by the Python of vLLM's environment, with the openai package that vLLM brings."""

    python: Path
    folder: Path

    def judge(self, url: str, plan: WorkloadPlan) -> Verdict:
        expect = self.folder / "expect.json"
        expect.write_text(json.dumps(dict(plan.expectations)))
        argv = [str(self.python), "-s", "-m", "gate", "--base-url", url, "--expect", str(expect)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return Verdict(done.returncode, json.loads(done.stdout), done.stderr)


@pytest.fixture
def gate(environment: Environment, tmp_path: Path) -> Gate:
    return Gate(environment.python, tmp_path)


@pytest.mark.parametrize(("stack", "warm"), [("prod", True), ("dev", False)])
def test_the_gate_passes_with_the_flags_of_a_stack(
    stack: str, warm: bool, launcher: Launcher, models: Mapping[str, TinyGlm], gate: Gate
) -> None:
    plan = glm(stack)
    pool = plan.memory.kv_pool_tokens
    with launcher.server(plan.command, models["good"], kv_pool_tokens=pool, warm=warm) as server:
        server.wait_until_healthy()
        verdict = gate.judge(server.url, plan)
    assert server.wait_until_ended() == 0  # as a kubelet ends it
    assert verdict.checks("failed") == [], verdict.words
    assert verdict.status == 0
    assert verdict.checks("notRun") == []
    assert verdict.checks("notApplicable") == ["needle-long"]
    assert verdict.report["kvCacheTokens"] == pool - pool % BLOCK_TOKENS
    assert verdict.report["speculation"]["acceptance"] > 0.9
    assert [row["prompt"] for row in verdict.report["latency"]] == ["coding", "tool-call"]


@pytest.mark.parametrize("name", FAULTS)
def test_the_gate_names_what_is_wrong(name: str, launcher: Launcher, models: Mapping[str, TinyGlm], gate: Gate) -> None:
    fault, plan = FAULTS[name], glm("prod")
    command = fault.change(plan.command)
    with launcher.server(command, models[fault.model], kv_pool_tokens=plan.memory.kv_pool_tokens) as server:
        server.wait_until_healthy()
        verdict = gate.judge(server.url, plan)
    assert verdict.status == 1
    failed = set(verdict.checks("failed"))
    assert set(fault.fails) <= failed <= {*fault.fails, *fault.may_fail}, verdict.words
    assert verdict.words.startswith(f"gate: {fault.words}")


@pytest.mark.parametrize("name", REFUSED)
def test_an_engine_that_does_not_start_gets_a_verdict_at_once(
    name: str, launcher: Launcher, models: Mapping[str, TinyGlm], gate: Gate
) -> None:
    stack, change, said = REFUSED[name]
    plan = glm(stack)
    with launcher.server(change(plan.command), models["good"], kv_pool_tokens=plan.memory.kv_pool_tokens) as server:
        assert server.wait_until_ended() == 1
        assert said in server.log()
        verdict = gate.judge(server.url, plan)
    assert verdict.status == 1
    assert verdict.checks("passed") == []
    assert verdict.words.startswith("gate: health failed: ")
