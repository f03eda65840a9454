"""What a run found: as JSON to keep, and as the last words of a container."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gate.expect import Expectations
from gate.metrics import Speculation

SCHEMA = 1

# The kubelet keeps 4,096 bytes of a container's termination message.
_LAST_WORDS_BYTES = 4096

Verdict = Literal["passed", "failed", "notApplicable", "notRun"]


@dataclass(frozen=True)
class Result:
    """What one check found. `found` is the pass or the failure in words, or why the check did not run."""

    id: str
    proves: str
    verdict: Verdict
    found: str
    seconds: float = 0.0
    sent: str = ""
    received: str = ""
    cause: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain data; request, answer and cause only where something failed."""
        row: dict[str, Any] = {
            "id": self.id,
            "proves": self.proves,
            "verdict": self.verdict,
            "seconds": round(self.seconds, 3),
            "found": self.found,
        }
        if self.verdict == "failed":
            row |= {"sent": self.sent, "received": self.received, "usualCause": self.cause}
        return row


@dataclass(frozen=True)
class Latency:
    """Times of one streamed prompt, alone in the engine: to the first token, and for each token after it (None for one)."""

    prompt: str
    tokens: int
    first_token_seconds: float
    per_token_seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the times as plain data."""
        per_token = None if self.per_token_seconds is None else round(self.per_token_seconds, 6)
        return {
            "prompt": self.prompt,
            "tokens": self.tokens,
            "timeToFirstTokenSeconds": round(self.first_token_seconds, 6),
            "timePerOutputTokenSeconds": per_token,
        }


@dataclass(frozen=True)
class Report:
    """A whole run. `finished` is in seconds since the epoch; tokens are those of all answers together."""

    endpoint: str
    expect: Expectations
    results: tuple[Result, ...]
    latencies: tuple[Latency, ...]
    engine_version: str | None
    kv_cache_tokens: int | None
    speculation: Speculation | None
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    finished: float

    @property
    def passed(self) -> bool:
        """Whether every check that the plan calls for has passed."""
        return all(result.verdict in {"passed", "notApplicable"} for result in self.results)

    @property
    def failures(self) -> list[Result]:
        """The checks that failed, in order."""
        return [result for result in self.results if result.verdict == "failed"]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data: the schema of docs/gate.md."""
        expect = self.expect
        return {
            "schema": SCHEMA,
            "verdict": "passed" if self.passed else "failed",
            "endpoint": self.endpoint,
            "servedModelName": expect.served_model_name,
            "image": expect.image,
            "modelRevision": expect.model_revision,
            "engineVersion": self.engine_version,
            "finished": self.finished,
            "seconds": round(self.seconds, 3),
            "promptTokens": self.prompt_tokens,
            "completionTokens": self.completion_tokens,
            "kvCacheTokens": self.kv_cache_tokens,
            "speculation": _speculation(self.speculation),
            "latency": [latency.as_json() for latency in self.latencies],
            "checks": [result.as_json() for result in self.results],
        }


def _speculation(seen: Speculation | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    return {
        "draftTokens": seen.draft_tokens,
        "acceptedTokens": seen.accepted_tokens,
        "acceptance": round(seen.acceptance, 4),
    }


def last_words(report: Report) -> str:
    """Return why a pod takes no traffic, in at most 4,096 bytes: the first failure whole, what else failed or did not run."""
    return "\n".join(_last_lines(report)).encode()[:_LAST_WORDS_BYTES].decode(errors="ignore")


def _last_lines(report: Report) -> Iterator[str]:
    first, others = report.failures[:1], report.failures[1:]
    for result in first:
        yield f"{result.id} failed: {result.found}"
        yield f"usual cause: {result.cause}"
        yield f"sent: {result.sent}"
        yield f"came back: {result.received or 'nothing'}"
    if others:
        yield "also failed: " + "; ".join(f"{result.id}: {result.found}" for result in others)
    not_run = [result for result in report.results if result.verdict == "notRun"]
    if not_run:
        yield f"not run: {', '.join(result.id for result in not_run)}: {not_run[0].found}"
