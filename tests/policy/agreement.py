"""What the pack must say of a workload of the shared table, and whether it does."""

from __future__ import annotations

from functools import cache

from serving.rules import RULES, Rule, judge
from tests.fixtures.manifests import KINDS, manifest
from tests.fixtures.rule_cases import CASES, RuleCase
from tests.policy.analyzer import Analyzer, Diagnostic

BY_ID = {rule.id: rule for rule in RULES}


def diagnostic(rule: Rule, where: str, why: str) -> Diagnostic:
    """Return what a rule's policy says of a container that it refuses."""
    return Diagnostic(rule.id, rule.level, f"{rule.title}\n{where}: {why}. To do: {rule.remedy}")


def disagreement(pack: Analyzer, case: RuleCase) -> str | None:
    """Return what the pack says of a workload that the rules do not, or the other way round; None if they agree.

    Each workload is an object of another kind, so that every kind is met.
    """
    kind, expected, of_case = _expected(CASES.index(case))
    found = pack.analyze(manifest(case, kind), f"kubernetes:{kind}")
    said = [row for row in found if row.policy == case.rule]
    return (
        None if (found, said) == (expected, of_case) else f"{kind}: {found} instead of {expected}, of which {of_case}"
    )


@cache
def _expected(number: int) -> tuple[str, list[Diagnostic], list[Diagnostic]]:
    """Return in which kind of object a workload is, what the rules say of it, and what the table says for its own rule."""
    case, kind = CASES[number], KINDS[number % len(KINDS)]
    where = "worker container vllm" if kind == "LeaderWorkerSet" else "container vllm"
    verdicts = [verdict for verdict in judge(case.facts) if not verdict.outcome.passed]
    told = [diagnostic(verdict.rule, where, verdict.outcome.why) for verdict in verdicts]
    return kind, told, [] if case.passes else [diagnostic(BY_ID[case.rule], where, case.message)]
