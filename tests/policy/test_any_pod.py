"""Any pod gets a verdict from the pack, and it is the rules' own: never a crash, never an analyzer's error."""

from __future__ import annotations

import os
from collections import Counter

from hypothesis import HealthCheck, given, settings

from serving.manifest import UNKNOWN, read
from serving.rules import apply
from tests.fixtures.manifests import Object
from tests.policy import analyzer, pod_specs
from tests.policy.agreement import BY_ID
from tests.policy.analyzer import Analyzer

# A few in every run; `make policy-tests` asks for 10,000.
SPECS = int(os.environ.get("POD_SPECS", "100"))


def seen(value: object) -> object:
    """Return a value as the pack sees it."""
    if isinstance(value, dict):
        return {key: seen(item) for key, item in value.items()}
    if isinstance(value, list):
        return [seen(item) for item in value]
    return UNKNOWN if value == analyzer.UNKNOWN else value


def expected(body: Object) -> list[tuple[str, str]]:
    """Return which policies refuse an object, and which container."""
    readings = read(seen(body))
    refused = [("readable", reading.facts.workload) for reading in readings if reading.unreadable]
    for rule in BY_ID.values():
        for reading in readings:
            outcome = apply(rule, reading.facts).outcome
            if not outcome.passed and outcome.why != f"cannot be judged: {reading.unreadable}":
                refused.append((rule.id, reading.facts.workload))
    return refused


def test_any_pod_gets_the_verdict_of_the_rules(pack: Analyzer) -> None:
    verdicts = Counter[str]()

    @settings(max_examples=SPECS, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(pod_specs.objects())
    def judged(body: Object) -> None:
        found = pack.analyze(body)
        said = [(row.policy, row.message.partition("\n")[2].partition(":")[0]) for row in found]
        assert said == expected(body)
        verdicts["unreadable" if ("readable" in dict(said)) else "refused" if said else "accepted"] += 1

    judged()
    # Whatever is generated, some of it is of each sort.
    assert verdicts.total() >= SPECS
    assert set(verdicts) == {"unreadable", "refused", "accepted"}
