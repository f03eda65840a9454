"""THE rule table: each row is data plus one pure check over `WorkloadFacts`.

A check says whether the workload passed and why, in one sentence with the numbers. An unknown value is refused: a rule that
cannot be judged has not been passed. Ids are stable; `source` names what the rule rests on.
"""

from __future__ import annotations

from collections.abc import Iterable

from serving.facts import WorkloadFacts
from serving.rules import loading, memory, offload, output, parallelism, pins, precision, releases
from serving.rules.memory import DECODE_SCRATCH_LIMIT_GIB
from serving.rules.pins import CACHE_VARIABLES, NODE_DISK, image_problem
from serving.rules.rule import Level, Outcome, Parameter, Rule, Verdict, Violation, apply

__all__ = [
    "CACHE_VARIABLES",
    "DECODE_SCRATCH_LIMIT_GIB",
    "NODE_DISK",
    "RULES",
    "Level",
    "Outcome",
    "Parameter",
    "Rule",
    "Verdict",
    "Violation",
    "advice",
    "apply",
    "image_problem",
    "judge",
    "violations",
]

RULES: tuple[Rule, ...] = (
    *memory.RULES,
    *precision.RULES,
    *pins.RULES,
    *output.RULES,
    *releases.RULES,
    *loading.RULES,
    *parallelism.RULES,
    *offload.RULES,
)


def judge(facts: WorkloadFacts) -> list[Verdict]:
    """Apply every rule to a workload, in the table's order."""
    return [apply(rule, facts) for rule in RULES]


def violations(verdicts: Iterable[Verdict]) -> list[Violation]:
    """Return the refusals among verdicts."""
    return [_violation(verdict) for verdict in verdicts if _not_passed(verdict, "mandatory")]


def advice(verdicts: Iterable[Verdict]) -> list[Violation]:
    """Return what advisory rules have to say; it refuses nothing."""
    return [_violation(verdict) for verdict in verdicts if _not_passed(verdict, "advisory")]


def _not_passed(verdict: Verdict, level: Level) -> bool:
    return verdict.rule.level == level and not verdict.outcome.passed


def _violation(verdict: Verdict) -> Violation:
    rule = verdict.rule
    return Violation(rule.id, verdict.workload, verdict.outcome.why, rule.remedy, rule.source)
