"""The latest report as Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from gate.report import Report


def exposition(report: Report | None, *, ready: bool) -> bytes:
    """Return the latest report as Prometheus text. Checks that did not run have no value."""
    registry = CollectorRegistry()
    _gauge(registry, "gate_ready", "Whether the pod may take traffic").set(ready)
    if report is None:
        return generate_latest(registry)
    _gauge(registry, "gate_passed", "Whether every check of the latest run passed").set(report.passed)
    _gauge(registry, "gate_run_seconds", "How long the latest run took").set(report.seconds)
    _gauge(registry, "gate_run_timestamp_seconds", "When the latest run ended").set(report.finished)
    passed = _gauge(registry, "gate_check_passed", "Whether a check of the latest run passed", "check")
    seconds = _gauge(registry, "gate_check_seconds", "How long a check of the latest run took", "check")
    for result in report.results:
        if result.verdict in {"passed", "failed"}:
            passed.labels(result.id).set(result.verdict == "passed")
            seconds.labels(result.id).set(result.seconds)
    first = _gauge(registry, "gate_time_to_first_token_seconds", "Of one prompt, alone in the engine", "prompt")
    per_token = _gauge(registry, "gate_time_per_output_token_seconds", "Of one prompt, alone in the engine", "prompt")
    for latency in report.latencies:
        first.labels(latency.prompt).set(latency.first_token_seconds)
        if latency.per_token_seconds is not None:
            per_token.labels(latency.prompt).set(latency.per_token_seconds)
    if report.kv_cache_tokens is not None:
        _gauge(registry, "gate_kv_cache_tokens", "Tokens of KV cache").set(report.kv_cache_tokens)
    if report.speculation is not None:
        acceptance = _gauge(registry, "gate_speculation_acceptance", "Share of draft tokens accepted in the latest run")
        acceptance.set(report.speculation.acceptance)
    return generate_latest(registry)


def _gauge(registry: CollectorRegistry, name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, registry=registry)
