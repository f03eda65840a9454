"""The program under the real Pulumi CLI, with a backend in a folder. Runs only where `pulumi` is on PATH (make engine-tests).

All here is refused before a provider plugin is asked for.
"""

from __future__ import annotations

import pytest

from tests.engine.conftest import Project


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_a_refused_plan_says_why_and_registers_nothing(project: Project, stack: str) -> None:
    project.succeed("stack", "init", stack)
    project.succeed("config", "set", "--stack", stack, "--path", "glm-on-gpus:workloads.glm.precision", "bf16")
    result = project.pulumi("preview", "--stack", stack)
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "workloads.glm: bf16-one-node: BF16 needs 178.8 GiB of weights on each GPU of one 8x" in said
    assert "Traceback" not in said
    assert "aws:" not in said.replace("aws:region", "")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "workloads.glm.maxModelLne",
            "131072",
            "Pulumi.dev.yaml: workloads.glm.maxModelLne: unknown key; allowed are",
        ),
        (
            "workload.glm.replicas",
            "1",
            "Pulumi.dev.yaml: glm-on-gpus:workload: unknown key; allowed are cluster, nodePools",
        ),
        (
            "workloads.glm.maxModelLen",
            "128k",
            "Pulumi.dev.yaml: workloads.glm.maxModelLen: '128k' is not allowed; expected",
        ),
        (
            "nodePools.h200.nodes",
            "-1",
            "Pulumi.dev.yaml: nodePools.h200.nodes: -1 is not allowed; expected a whole number",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(project: Project, path: str, value: str, said: str) -> None:
    project.succeed("stack", "init", "dev")
    project.succeed("config", "set", "--stack", "dev", "--path", f"glm-on-gpus:{path}", "--", value)
    result = project.pulumi("preview", "--stack", "dev")
    assert result.returncode != 0
    assert said in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
