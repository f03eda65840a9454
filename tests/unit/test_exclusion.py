"""Releases that no stack may serve with: judged by the rule table, not by a list."""

from __future__ import annotations

import pytest

from serving import catalogue
from serving.config import WorkloadConfig
from serving.exclusion import excluded


def test_a_release_that_loses_tool_calls_is_excluded_with_every_reason() -> None:
    assert [(violation.rule, violation.message) for violation in excluded("0.23.0")] == [
        ("parser-old", "vLLM 0.23.0 loses or garbles streamed tool calls with MTP; the GLM parser came with 0.24.0"),
        (
            "b200-garbage-023",
            "vLLM 0.23.0 with zai-org/GLM-5.2-FP8 on 8xB200 serves garbage (about 1 % MTP acceptance)",
        ),
    ]


@pytest.mark.parametrize(("version", "rules"), [("0.24.0", ["tools-forced-024"]), ("0.26.0", ["tools-required-026"])])
def test_a_release_that_serves_tool_calls_wrong_on_every_machine_is_excluded(version: str, rules: list[str]) -> None:
    assert [violation.rule for violation in excluded(version)] == rules


WRONG = {"0.23.0", "0.24.0", "0.26.0"}


@pytest.mark.parametrize("version", [version for version in catalogue.engines() if version not in WRONG])
def test_a_release_that_one_machine_takes_is_not_excluded(version: str) -> None:
    assert excluded(version) == ()


def test_the_release_of_stacks_that_name_none_is_not_excluded() -> None:
    assert excluded(WorkloadConfig.model_fields["vllm_version"].default) == ()
