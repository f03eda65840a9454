"""The pack against the shared table of workloads, and what the table notices when a policy is changed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import pytest

from serving.rules import RULES
from tests.fixtures.manifests import KINDS
from tests.fixtures.rule_cases import CASES, RuleCase
from tests.policy.agreement import disagreement
from tests.policy.analyzer import Analyzer, running

MUTANTS = Path(__file__).with_name("mutants")


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_the_pack_agrees_with_the_rules(pack: Analyzer, case: RuleCase) -> None:
    assert disagreement(pack, case) is None


def test_objects_judged_at_once_do_not_mix(pack: Analyzer) -> None:
    # The engine registers resources, and has them judged, in parallel.
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(disagreement, repeat(pack), CASES[::5])) == {None}


def test_the_table_is_met_in_every_kind_of_object() -> None:
    refused = {KINDS[number % len(KINDS)] for number, case in enumerate(CASES) if not case.passes}
    assert refused == set(KINDS)


@pytest.fixture(scope="module")
def changed(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Analyzer, Path]]:
    """A pack of which one policy is changed, and the file that says which and how."""
    file = tmp_path_factory.mktemp("mutants") / "change"
    file.write_text("nothing unchanged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHANGE", str(file))
        with running(environment, MUTANTS) as analyzer:
            yield analyzer, file


@pytest.mark.parametrize("change", ["removed", "inverted"])
@pytest.mark.parametrize("rule", [rule.id for rule in RULES])
def test_no_policy_can_be_removed_or_inverted_unnoticed(changed: tuple[Analyzer, Path], rule: str, change: str) -> None:
    pack, file = changed
    case = next(case for case in CASES if case.rule == rule and not case.passes)
    file.write_text(f"{rule} unchanged")
    assert disagreement(pack, case) is None
    file.write_text(f"{rule} {change}")
    assert disagreement(pack, case) is not None
