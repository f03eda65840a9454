"""Releases that no stack may serve with: judged by the rule table, not by a list."""

from __future__ import annotations

import pytest

from serving import catalogue
from serving.config import WorkloadConfig
from serving.exclusion import excluded

EXCLUDED = {
    "0.23.0": ["parser-old", "b200-garbage-023"],
    "0.24.0": ["tools-forced-024"],
    "0.26.0": ["tools-required-026"],
}


@pytest.mark.parametrize("version", catalogue.engines())
def test_a_release_is_excluded_where_no_machine_may_serve_with_it(version: str) -> None:
    assert [violation.rule for violation in excluded(version)] == EXCLUDED.get(version, [])


def test_every_reason_is_said_once() -> None:
    # Every machine gives the first; only the B200 gives the second.
    assert [violation.message for violation in excluded("0.23.0")] == [
        "vLLM 0.23.0 loses or garbles streamed tool calls with MTP; the GLM parser came with 0.24.0",
        "vLLM 0.23.0 with zai-org/GLM-5.2-FP8 on 8xB200 serves garbage (about 1 % MTP acceptance)",
    ]


def test_the_release_of_stacks_that_name_none_is_not_excluded() -> None:
    assert excluded(WorkloadConfig.model_fields["vllm_version"].default) == ()
