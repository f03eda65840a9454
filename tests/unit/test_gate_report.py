"""What is left of a run: the report, the last words, the metrics."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gate.exposition import exposition
from gate.report import Report, Result, last_words
from gate.run import run_checks
from gate.table import CHECKS
from tests.fixtures.fake_engine import EXPECT, FakeEngine, Json, running

DOCS = Path(__file__).parents[2] / "docs"


@cache
def good() -> Report:
    with running(FakeEngine()) as url:
        return asyncio.run(run_checks(url, EXPECT, "none"))


def wrong_sum(_: Json, choice: Json) -> None:
    if choice["message"]["content"]:
        choice["message"]["content"] = "0"


@cache
def bad() -> Report:
    with running(FakeEngine(spoil=wrong_sum, acceptance=0.0)) as url:
        return asyncio.run(run_checks(url, EXPECT, "none", [row for row in CHECKS if row.stage != "tools"]))


def report_of(*results: Result) -> Report:
    return Report("http://engine", EXPECT, results, (), None, None, None, 0, 0, 1.0, 2.0)


def schema() -> Any:
    """The schema that docs/gate.md shows."""
    text = (DOCS / "gate.md").read_text(encoding="utf-8")
    return json.loads(text.partition("<!-- report schema -->\n```json\n")[2].partition("\n```")[0])


@pytest.mark.parametrize("report", [good, bad])
def test_a_report_is_as_documented(report: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator(schema()).validate(report().as_json())


def test_a_report_to_keep_names_image_revision_and_release() -> None:
    found = good().as_json()
    assert {key: found[key] for key in ("verdict", "image", "modelRevision", "engineVersion", "kvCacheTokens")} == {
        "verdict": "passed",
        "image": EXPECT.image,
        "modelRevision": EXPECT.model_revision,
        "engineVersion": "0.31.0",
        "kvCacheTokens": 600_000,
    }
    assert [row["id"] for row in found["checks"]] == [check.id for check in CHECKS]
    assert all(row["seconds"] > 0 for row in found["checks"] if row["verdict"] == "passed" and row["id"] != "usage")
    assert found["seconds"] > 0
    assert found["promptTokens"] > 20_000
    assert found["speculation"] == {"draftTokens": 792, "acceptedTokens": 554, "acceptance": 0.6995}


# --- last words ----------------------------------------------------------------------------------------------------------


def test_the_last_words_of_a_run() -> None:
    assert last_words(
        report_of(
            Result("kv-cache", "", "failed", "the KV cache has 9 tokens", 1.0, "GET /metrics", "9 tokens", "a leak"),
            Result("accuracy", "", "failed", "0 of 8 sums right", 1.0, "POST", "", "weights"),
            Result("usage", "", "passed", "in 9 answers"),
            Result("speculation", "", "notRun", "the engine had stopped answering"),
        )
    ).splitlines() == [
        "kv-cache failed: the KV cache has 9 tokens",
        "usual cause: a leak",
        "sent: GET /metrics",
        "came back: 9 tokens",
        "also failed: accuracy: 0 of 8 sums right",
        "not run: speculation: the engine had stopped answering",
    ]


def test_the_last_words_fit_into_what_the_kubelet_keeps() -> None:
    """4,096 bytes, not letters, and no half a letter at the end."""
    many = [Result(f"check-{number}", "", "failed", "ä" * 300, 1.0, "€" * 900, "€" * 900, "x") for number in range(20)]
    words = last_words(report_of(*many))
    assert 4_000 < len(words.encode()) <= 4_096
    assert words.startswith("check-0 failed: ä")
    assert "�" not in words


def test_the_deadline_alone_can_fail_a_run() -> None:
    """Where nothing failed but something did not run, the words still say why."""
    words = last_words(report_of(Result("usage", "", "notRun", "the run's 300 s were over")))
    assert words == "not run: usage: the run's 300 s were over"


# --- metrics -----------------------------------------------------------------------------------------------------------


def samples(report: Report | None, *, ready: bool) -> dict[str, dict[str, float]]:
    text = exposition(report, ready=ready).decode()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})["".join(sample.labels.values())] = sample.value
    return found


def test_metrics_of_a_run_that_passed() -> None:
    found = samples(good(), ready=True)
    ran = {check.id for check in CHECKS} - {"needle-long"}
    assert found["gate_ready"] == {"": 1.0}
    assert found["gate_passed"] == {"": 1.0}
    assert found["gate_check_passed"] == dict.fromkeys(ran, 1.0)
    assert set(found["gate_check_seconds"]) == ran
    assert set(found["gate_time_to_first_token_seconds"]) == {"coding", "tool-call"}
    assert set(found["gate_time_per_output_token_seconds"]) == {"coding", "tool-call"}
    assert found["gate_kv_cache_tokens"] == {"": 600_000.0}
    assert found["gate_speculation_acceptance"][""] == pytest.approx(0.7, abs=0.01)
    assert found["gate_run_timestamp_seconds"][""] == good().finished


def test_metrics_of_a_run_that_failed() -> None:
    found = samples(bad(), ready=False)
    assert found["gate_ready"] == {"": 0.0}
    assert found["gate_passed"] == {"": 0.0}
    wrong = {check for check, passed in found["gate_check_passed"].items() if not passed}
    assert wrong == {row.id for row in bad().failures} >= {"accuracy", "needle-3k", "speculation"}


def test_metrics_before_the_first_run() -> None:
    assert samples(None, ready=False) == {"gate_ready": {"": 0.0}}
