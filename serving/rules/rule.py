"""What a rule is, and what comes of applying it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from serving.facts import UnknownFactError, WorkloadFacts

Level = Literal["mandatory", "advisory"]


@dataclass(frozen=True)
class Outcome:
    """What a check found: whether the workload passed, and why, in one sentence with the numbers."""

    passed: bool
    why: str


@dataclass(frozen=True)
class Parameter:
    """A figure of a rule that the pack's configuration may set stricter than the table, never laxer.

    `name` is what a configuration calls it, `keyword` what the check does; without a value the check takes the table's own
    figure. `schema` is JSON Schema and bounds the value by that figure.
    """

    name: str
    keyword: str
    meaning: str
    schema: Mapping[str, object]


def at_least(name: str, keyword: str, meaning: str, figure: int) -> Parameter:
    """Return a parameter that is stricter the larger it is."""
    return Parameter(name, keyword, meaning, {"type": "integer", "default": figure, "minimum": figure})


def at_most(name: str, keyword: str, meaning: str, figure: float) -> Parameter:
    """Return a parameter that is stricter the smaller it is, down to 0; one whose figure is an integer is an integer."""
    kind = "integer" if isinstance(figure, int) else "number"
    return Parameter(name, keyword, meaning, {"type": kind, "default": figure, "minimum": 0, "maximum": figure})


@dataclass(frozen=True)
class Rule:
    """A combination that is known to break: what it checks, what happens otherwise, what to do, and the evidence.

    `mandatory` refuses: output that is wrong in silence, an engine that dies or never starts, an endpoint that is open.
    `advisory` is told and refuses nothing: slower, or reported once and not measured. A `locked` rule cannot be switched off in
    any layer. `parameters` are keyword arguments of the check, all of them optional.
    """

    id: str
    title: str
    effect: str
    remedy: str
    source: str
    check: Callable[..., Outcome]
    level: Level = "mandatory"
    locked: bool = False
    parameters: tuple[Parameter, ...] = field(default=(), kw_only=True)


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


_AS_IN_THE_TABLE: Mapping[str, object] = MappingProxyType({})


def apply(rule: Rule, facts: WorkloadFacts, given: Mapping[str, object] = _AS_IN_THE_TABLE) -> Verdict:
    """Apply one rule, with the values that are given for its parameters, by name.

    What cannot be known where the verdict depends on it is not passed.
    """
    values = {row.keyword: given[row.name] for row in rule.parameters if row.name in given}
    try:
        outcome = rule.check(facts, **values)
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
