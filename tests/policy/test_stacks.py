"""The pack on what this project's own program registers: accepted as it is, refused where the program's own rules refuse."""

from __future__ import annotations

from typing import Any

import pytest

from components.vllm_workload import VllmWorkload
from serving.component import TYPE, properties
from serving.rules import RULES
from tests.fixtures.stacks import ROOT, glm, load_documents
from tests.graph.harness import UNKNOWN, run
from tests.policy import analyzer
from tests.policy.agreement import diagnostic
from tests.policy.analyzer import Analyzer

STACKS = ("dev", "prod", "h200-bf16-two-nodes")


@pytest.mark.parametrize("stack", STACKS)
def test_every_object_of_a_stack_is_accepted(pack: Analyzer, stack: str) -> None:
    text = (ROOT / "tests" / "graph" / "golden" / f"{stack}.yaml").read_text(encoding="utf-8")
    objects = load_documents(text)
    assert {"Deployment", "LeaderWorkerSet"} & {row["kind"] for row in objects}
    for row in objects:
        assert pack.analyze(row, f"kubernetes:{row['apiVersion']}:{row['kind']}") == []


def sent(value: Any) -> Any:
    """Return inputs as the engine sends them."""
    if isinstance(value, dict):
        return {key: sent(item) for key, item in value.items()}
    if isinstance(value, list):
        return [sent(item) for item in value]
    return analyzer.UNKNOWN if value is UNKNOWN else value


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("stack", STACKS)
def test_what_a_workload_registers_is_accepted(pack: Analyzer, stack: str, preview: bool) -> None:
    plan = glm(stack)

    def program() -> None:
        VllmWorkload("glm", plan)

    found = run(program, preview=preview)
    assert found.one(TYPE)
    for row in found.resources:
        assert pack.analyze(sent(row.inputs), row.type) == []


@pytest.mark.parametrize(
    "override",
    [
        "workloads.glm.precision=bf16",
        "workloads.glm.maxModelLen=1048576",
        "workloads.glm.image=vllm/vllm-openai:v0.31.0",
        "workloads.glm.revision=main",
    ],
)
def test_the_component_is_refused_as_the_program_refuses_it(pack: Analyzer, override: str) -> None:
    plan = glm("dev", override)
    expected = [
        diagnostic(verdict.rule, "component", verdict.outcome.why)
        for verdict in plan.verdicts
        if not verdict.outcome.passed
    ]
    assert {row.policy for row in expected} & {rule.id for rule in RULES if rule.level == "mandatory"}
    assert pack.analyze(properties(plan), TYPE) == expected


def test_a_cache_that_is_shared_out_is_judged_by_machine_and_exchange(pack: Analyzer) -> None:
    """On H200 as the plan sets it, not on Blackwell, not without its exchange; the pack reads it from the command."""
    said = properties(glm("h200-fp8-1m"))
    assert pack.analyze(said, TYPE) == []
    command = [word for word in glm("h200-fp8-1m").command if word not in {"--dcp-comm-backend", "ag_rs"}]
    refused = {
        "dcp-workspace": properties(glm("prod", "workloads.glm.decodeContextParallelSize=8")),
        "dcp-hopper": {**said, "command": command},
    }
    for rule, wrong in refused.items():
        assert [row.policy for row in pack.analyze(wrong, TYPE)] == [rule]


def test_a_component_that_says_nothing_is_refused(pack: Analyzer) -> None:
    assert "readable" in [row.policy for row in pack.analyze({}, TYPE)]
