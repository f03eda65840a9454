"""What a rule is, and what comes of applying it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from serving.facts import UnknownFactError, WorkloadFacts

Level = Literal["mandatory", "advisory"]


@dataclass(frozen=True)
class Outcome:
    """What a check found: whether the workload passed, and why, in one sentence with the numbers."""

    passed: bool
    why: str


@dataclass(frozen=True)
class Rule:
    """A combination that is known to break: what it checks, what happens otherwise, what to do, and the evidence.

    `mandatory` refuses: output that is wrong in silence, an engine that dies or never starts, an endpoint that is open.
    `advisory` is told and refuses nothing: slower, or reported once and not measured. A `locked` rule cannot be switched off in
    any layer.
    """

    id: str
    title: str
    effect: str
    remedy: str
    source: str
    check: Callable[[WorkloadFacts], Outcome]
    level: Level = "mandatory"
    locked: bool = False


@dataclass(frozen=True)
class Verdict:
    """One rule applied to one workload."""

    rule: Rule
    workload: str
    outcome: Outcome


@dataclass(frozen=True)
class Violation:
    """A rule that a workload did not pass, with the sentence that says why."""

    rule: str
    workload: str
    message: str
    remedy: str
    source: str


def apply(rule: Rule, facts: WorkloadFacts) -> Verdict:
    """Apply one rule. What cannot be known where the verdict depends on it is not passed."""
    try:
        outcome = rule.check(facts)
    except UnknownFactError as error:
        outcome = refused(f"cannot be judged: {error}")
    return Verdict(rule, facts.workload, outcome)


def passed(why: str) -> Outcome:
    """Return the outcome of a check that found nothing."""
    return Outcome(passed=True, why=why)


def refused(why: str) -> Outcome:
    """Return the outcome of a check that found what its rule is about."""
    return Outcome(passed=False, why=why)


def unknown(facts: WorkloadFacts) -> str:
    """Say what the catalogue does not know of a workload."""
    missing = [
        name
        for name, value in (
            (f"the vLLM release behind image {facts.image}", facts.engine),
            (f"the checkpoint {facts.model or '(none named)'}", facts.checkpoint),
        )
        if value is None
    ]
    return f"the catalogue does not know {' nor '.join(missing)}"
