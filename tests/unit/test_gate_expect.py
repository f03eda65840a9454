"""The expect file: what it must say, what a mistake in it is answered with, and that every plan writes a right one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gate.expect import InputError, load
from serving import catalogue
from serving.config import parse
from serving.expectations import acceptance_floor
from serving.plan import WorkloadPlan, build
from tests.fixtures.stacks import glm

GOOD: dict[str, Any] = dict(glm("prod").expectations)


def read(tmp_path: Path, given: object) -> Any:
    path = tmp_path / "expect.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    return load(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"maxModelLen": "131072"}, 'maxModelLen: "131072" is not allowed; expected a whole number of tokens'),
        ({"maxModelLen": 0}, "maxModelLen: 0 is not allowed; expected a whole number of tokens"),
        ({"maxModelLen": True}, "maxModelLen: true is not allowed; expected a whole number of tokens"),
        ({"servedModelName": ""}, 'servedModelName: "" is not allowed; expected text'),
        ({"toolCalling": 1}, "toolCalling: 1 is not allowed; expected true or false"),
        ({"thinking": "off"}, 'thinking: "off" is not allowed; expected switchable, always, none'),
        ({"acceptanceFloor": 1.5}, "acceptanceFloor: 1.5 is not allowed; expected a fraction from 0 to 1"),
        ({"deadlineSeconds": 0}, "deadlineSeconds: 0 is not allowed; expected a number of seconds, at least 0.1"),
        (
            {"longNeedleTokens": 0.5},
            "longNeedleTokens: 0.5 is not allowed; expected a whole number of tokens, or null for no longer needle",
        ),
        ({"recheckSeconds": "x" * 90}, f'recheckSeconds: "{"x" * 76}... is not allowed; expected a whole number of '
         "seconds, or null for no re-check"),
        ({"model": "glm"}, f"model: unknown key; allowed are {', '.join(GOOD)}"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_in_one_sentence(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path, {**GOOD, **changes})
    assert str(raised.value) == f"{tmp_path}/expect.json: {problem}"


@pytest.mark.parametrize("key", GOOD)
def test_nothing_is_left_to_a_default(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=rf"expect\.json: {key}: missing; expected "):
        read(tmp_path, {name: value for name, value in GOOD.items() if name != key})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ("[]", f"[] is not allowed; expected an object with {', '.join(GOOD)}"),
    ],
)
def test_a_file_that_is_no_object(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path, text)
    assert str(raised.value) == f"{tmp_path}/expect.json: {problem}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        load(tmp_path / "expect.json")
    assert str(raised.value) == (
        f"{tmp_path}/expect.json: No such file or directory; name the expect file of a workload"
    )


# --- from the plan -----------------------------------------------------------------------------------------------------

B300 = {"instanceType": "p6-b300.48xlarge", "availabilityZoneId": "usw2-az2", "capacity": {"kind": "onDemand"}}


def workload(**settings: Any) -> WorkloadPlan:
    """The plan of one workload on 8xB300, where every checkpoint fits."""
    stack = {
        "aws:region": "us-west-2",
        "glm-on-gpus:cluster": {"kind": "eks", "availabilityZoneIds": ["usw2-az2", "usw2-az1"]},
        "glm-on-gpus:nodePools": {"gpu": {**B300, "nodes": 1}},
        "glm-on-gpus:workloads": {
            "glm": {"nodePool": "gpu", "precision": "fp8", "replicas": 1, "maxModelLen": 131072, **settings}
        },
    }
    return build(parse(stack), "test").workloads["glm"]


REVISION = "0" * 40


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"model": row.model, "precision": row.precision, "revision": REVISION, "vllmVersion": "0.31.0"}
            for row in catalogue.checkpoints().values()
        ),
        *({"speculativeTokens": tokens} for tokens in range(9)),
        {"toolCalling": False, "reasoning": False},
        {"maxModelLen": 1024},
        {"gate": {"longNeedleShare": 0.95, "recheckMinutes": 60}},
    ],
    ids=str,
)
def test_every_plan_writes_an_expect_file_that_the_gate_reads(tmp_path: Path, settings: dict[str, Any]) -> None:
    plan = workload(**settings)
    expect = read(tmp_path, dict(plan.expectations))
    flags = dict(zip(plan.command, plan.command[1:], strict=False))
    assert expect.served_model_name == flags["--served-model-name"]
    assert expect.max_model_len == int(flags["--max-model-len"])
    assert expect.model_revision == flags["--revision"]
    assert expect.tool_calling == ("--tool-call-parser" in flags)
    assert expect.reasoning == ("--reasoning-parser" in flags)
    assert bool(expect.speculative_tokens) == ("--speculative-config" in flags)
    assert expect.image == plan.image
    assert expect.engine_version == plan.engine_version
    assert expect.kv_cache_tokens_least < expect.kv_cache_tokens_predicted == plan.memory.kv_pool_tokens
    assert expect.deadline_seconds == plan.timing.gate_deadline_seconds


def test_the_expectations_of_the_prod_stack() -> None:
    assert dict(glm("prod").expectations) == {
        "servedModelName": "glm-5.2-fp8",
        "image": "vllm/vllm-openai@sha256:c1c9f6fd5c109ba7f0546a59f5b2f15fb87f64c77782e90a27b648b42a8e67c3",
        "modelRevision": "31cba24fb749908a485082bdeed6eb1ac6cffc2f",
        "engineVersion": "0.31.0",
        "maxModelLen": 1_048_576,
        "kvCacheTokensPredicted": glm("prod").memory.kv_pool_tokens,
        "kvCacheTokensLeast": int(glm("prod").memory.kv_pool_tokens * 0.9),
        "toolCalling": True,
        "reasoning": True,
        "thinking": "switchable",
        "reasoningEffort": "high",
        "speculativeTokens": 3,
        "acceptanceFloor": 0.166,
        "accuracyThreshold": 0.75,
        "longNeedleTokens": None,
        "recheckSeconds": None,
        "requestSeconds": 120,
        "deadlineSeconds": 300,
    }


def test_what_a_stack_file_asks_of_the_gate() -> None:
    plan = workload(gate={"longNeedleShare": 0.5, "recheckMinutes": 60})
    assert plan.expectations["longNeedleTokens"] == 65_536
    assert plan.expectations["recheckSeconds"] == 3_600
    assert plan.timing.expected_gate_seconds == 68
    assert plan.expectations["deadlineSeconds"] == 420 == plan.timing.gate_deadline_seconds


@pytest.mark.parametrize(
    ("tokens", "floor"),
    # InferenceX: mean acceptance lengths 1.84, 2.99 and 4.06 for 1, 3 and 8 draft tokens; a quarter of that counts as alive.
    [(0, 0.0), (1, 0.21), (3, 0.166), (8, 0.096)],
)
def test_the_floor_lies_between_a_healthy_and_a_broken_layer(tokens: int, floor: float) -> None:
    assert acceptance_floor(tokens) == floor
    if tokens:
        broken = 0.01  # vllm#46367, #46834
        assert broken < floor < 0.5
