"""What the component says of a workload is read back as the plan has it; what is missing or unknown is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.component import properties, read
from serving.facts import WorkloadFacts
from serving.manifest import UNKNOWN
from serving.rules import judge, violations
from tests.fixtures.stacks import glm


def outcomes(facts: WorkloadFacts) -> list[object]:
    return [verdict.outcome for verdict in judge(facts)]


@pytest.mark.parametrize(
    ("stack", "override"),
    [
        ("dev", "workloads.glm.maxModelLen=131072"),
        ("dev", "workloads.glm.precision=bf16"),
        ("dev", "workloads.glm.maxModelLen=1048576"),
        ("dev", "workloads.glm.image=vllm/vllm-openai:v0.31.0"),
        ("prod", "workloads.glm.revision=main"),
        ("prod", 'workloads.glm.env.VLLM_SERVER_DEV_MODE="1"'),
    ],
)
def test_a_workload_is_read_back_as_the_plan_has_it(stack: str, override: str) -> None:
    plan = glm(stack, override)
    # As the engine sends it: numbers are floats.
    reading = read(json.loads(json.dumps(properties(plan)), parse_int=float))
    assert reading.unreadable is None
    assert outcomes(reading.facts) == outcomes(plan.facts)


def test_the_names_are_a_contract() -> None:
    plan = glm("dev")
    found = properties(plan)
    assert found.pop("command") == list(plan.command)
    assert found.pop("env") == plan.env
    assert found == {
        "checkpoint": "zai-org/GLM-5.2-FP8",
        "precision": "fp8",
        "revision": plan.revision,
        "engineVersion": "0.31.0",
        "replicas": 1,
        "tensorParallelSize": 8,
        "maxModelLen": plan.max_model_len,
        "instanceType": "p5en.48xlarge",
        "nodesPerReplica": 1,
        "image": plan.image,
        "sharedMemoryGib": 16.0,
        "memoryLimited": True,
        "hostPaths": [{"path": "/mnt/k8s-disks/0", "type": "Directory"}],
        "gated": True,
    }


@pytest.mark.parametrize("name", [name for name in properties(glm("dev")) if name != "sharedMemoryGib"])
def test_a_component_that_does_not_say_all_is_refused(name: str) -> None:
    given = properties(glm("dev"))
    del given[name]
    assert read(given).unreadable == f"{name} is not what the component says of itself"
    assert [row.rule for row in violations(judge(read(given).facts))][:2] == ["fit", "bf16-one-node"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image": UNKNOWN}, "a property is known only after the update"),
        ({"env": {"A": UNKNOWN}}, "a property is known only after the update"),
        ({"replicas": UNKNOWN}, "a property is known only after the update"),
        ({"command": "vllm serve"}, "command is not what the component says of itself"),
        ({"instanceType": "m5.large"}, "the catalogue does not know the machine m5.large"),
        ({"command": ["sleep", "1"]}, "the command is not `vllm serve`"),
    ],
)
def test_a_component_that_cannot_be_read_is_refused(change: dict[str, Any], why: str) -> None:
    reading = read({**properties(glm("dev")), **change})
    assert reading.unreadable == why
    assert {"fit", "bf16-one-node", "image-digest"} <= {row.rule for row in violations(judge(reading.facts))}


def test_what_another_release_says_beside_it_is_no_matter() -> None:
    assert read({**properties(glm("dev")), "more": 1}).unreadable is None
