"""The table of workloads notices every change of a rule, and the tool that says so notices what the table does not."""

from __future__ import annotations

import pytest

from serving.rules import RULES
from tests import mutation
from tests.fixtures.edge_cases import EDGE_CASES
from tests.fixtures.rule_cases import CASES
from tests.mutation import EQUIVALENT, Mutant, code_mutants, rule_mutants, run


def test_no_rule_can_change_unnoticed() -> None:
    found = run()
    assert set(found.alive) == set(EQUIVALENT), "\n".join(mutation.report(found))
    # Removed, passing always, refusing always, inverted, and at least one change of its code.
    assert {rule.id for rule in RULES if found.made[rule.id] < 5} == set()


def test_every_function_and_constant_of_the_rules_is_reached_by_a_check() -> None:
    assert [mutant.name for mutant in code_mutants() if not mutant.rules] == []


def test_a_rule_that_stays_as_it_is_survives() -> None:
    for rule in RULES:
        assert Mutant("unchanged", frozenset({rule.id}), lambda: RULES).noticed_by() is None


@pytest.mark.parametrize("rule", [pytest.param(rule.id, id=rule.id) for rule in RULES])
def test_without_its_refused_workloads_a_rule_may_pass_always(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tuple((case, case.facts) for case in CASES if case.rule == rule and case.passes)
    monkeypatch.setattr(mutation, "_cases", lambda: kept)
    alive = {mutant.name for mutant in rule_mutants() if rule in mutant.rules and mutant.noticed_by() is None}
    assert alive == {f"{rule}: passes always"}


def test_without_the_workloads_at_the_edges_changes_go_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tuple((case, case.facts) for case in CASES if case not in EDGE_CASES)
    monkeypatch.setattr(mutation, "_cases", lambda: kept)
    assert "memory._decode_scratch: scratch <= DECODE_SCRATCH_LIMIT_GIB: Lt" in run().alive
