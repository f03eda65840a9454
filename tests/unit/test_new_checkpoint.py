"""A checkpoint that is new is an entry in the catalogue's data and nothing else: a made-up one goes all the way to a command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.plan import WorkloadPlan
from tests.fixtures.catalogue import copied_catalogue
from tests.fixtures.stacks import glm

REVISION = "0123456789abcdef0123456789abcdef01234567"
ENTRY = f"""
[model."glm-5.2-vision"]
architecture = "GLM-5.2"
thinking = "switchable"
least_effort = "high"
minimum_engine = "0.24.0"
source = "made up for this test"

[checkpoint."example/GLM-5.2-Vision-FP8"]
model = "glm-5.2-vision"
precision = "fp8"
bytes = 760_000_000_000
revision = "{REVISION}"
source = "made up for this test"
"""


@pytest.fixture
def with_a_new_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalogue's own files, with one more entry."""
    with copied_catalogue(tmp_path, monkeypatch) as data:
        with (data / "checkpoints.toml").open("a", encoding="utf-8") as file:
            file.write(ENTRY)
        yield


@pytest.mark.usefixtures("with_a_new_checkpoint")
def test_a_new_checkpoint_is_planned_like_any_other() -> None:
    workload = glm("dev", "workloads.glm.model=glm-5.2-vision")
    assert workload.command[:6] == (
        *("vllm", "serve", "example/GLM-5.2-Vision-FP8", "--revision", REVISION),
        "--served-model-name",
    )
    assert workload.checkpoint.served_name == "glm-5.2-vision-fp8"
    assert _refused(workload) == []


@pytest.mark.usefixtures("with_a_new_checkpoint")
def test_its_bytes_are_what_is_fetched_and_timed() -> None:
    assert glm("dev", "workloads.glm.model=glm-5.2-vision").checkpoint.bytes == 760_000_000_000
    slower = glm("dev", "workloads.glm.model=glm-5.2-vision").timing.expected_fetch_seconds
    assert slower > glm("dev").timing.expected_fetch_seconds


def test_without_the_entry_it_is_unknown() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'glm-5\.2-vision'; allowed are glm-5\.2 or glm-5\.3"):
        glm("dev", "workloads.glm.model=glm-5.2-vision")


def _refused(workload: WorkloadPlan) -> list[str]:
    return [verdict.rule.id for verdict in workload.verdicts if not verdict.outcome.passed]
