"""Breaks the admission policies one condition at a time: on the real API server, some pod of the tables must notice each."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from rehearsal.control_plane import ControlPlane
from tests.fixtures.disguises import DISGUISES
from tests.fixtures.manifests import in_kind, manifest
from tests.rehearsal.admission import Object, Policy, Server, policies_of
from tests.rehearsal.test_agreement import SHARED

JUDGED = {row.rule: row for row in policies_of("dev")}

# A condition of CEL, and what it becomes; text inside quotes is left alone.
_OPERATORS = ((" && ", " || "), (" || ", " && "), (" == ", " != "), (" != ", " == "), (" > ", " <= "), (" < ", " >= "))
_QUOTED = re.compile(r'r?"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Mutant:
    """A policy with one change."""

    name: str
    policy: Policy


def mutants(row: Policy) -> Iterator[Mutant]:
    """Yield a policy without its condition, with the opposite one, and with every part of the refusals' conditions changed."""
    for name, expression in (("removed", "true"), ("inverted", "!(variables.refusals.size() == 0)")):
        changed = copy.deepcopy(row.policy)
        changed["spec"]["validations"][0]["expression"] = expression
        yield Mutant(f"{row.rule}: {name}", replace(row, policy=changed))
    refusals = row.policy["spec"]["variables"][-1]["expression"]
    for name, expression in _changes(refusals):
        changed = copy.deepcopy(row.policy)
        changed["spec"]["variables"][-1]["expression"] = expression
        yield Mutant(f"{row.rule}: {name}", replace(row, policy=changed))


def _changes(expression: str) -> Iterator[tuple[str, str]]:
    code = _QUOTED.sub(lambda found: "\x00" * len(found[0]), expression)
    for old, new in _OPERATORS:
        for found in re.finditer(re.escape(old), code):
            where = f"{expression[: found.start()].count(chr(10)) + 1}:{found.start()}"
            yield (
                f"{where} {old.strip()} becomes {new.strip()}",
                expression[: found.start()] + new + expression[found.end() :],
            )
    for found in re.finditer(r"!(?!=)", code):
        yield f"{found.start()} without !", expression[: found.start()] + expression[found.end() :]


def pods(rule: str) -> list[Object]:
    """Return the pods of the tables, on which test_agreement holds the policies to the rules."""
    disguised = [in_kind("Pod", row.pod) for row in DISGUISES if rule != "host-path"]
    return [*(manifest(case) for case in SHARED if case.rule == rule), *disguised]


@pytest.fixture(scope="module")
def server(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, dict[str, Mutant]]]:
    """A server with every mutant that the API server takes at all, each for objects labelled with its key."""
    server = Server(control_plane, tmp_path_factory.mktemp("server"))
    made = {
        f"mutant-{number}": row
        for number, row in enumerate(row for policy in JUDGED.values() for row in mutants(policy))
    }
    server.install({**JUDGED, **{key: row.policy for key, row in made.items()}})
    yield server, made
    server.close()


def said(server: Server, body: Object, key: str) -> str | None:
    """What the policy of a key says of a pod, without its name."""
    refusal = server.refusal(body, judged_by=key)
    return refusal and refusal.rpartition(" denied request: ")[2]


@pytest.mark.parametrize("rule", JUDGED)
def test_no_change_of_a_policy_goes_unnoticed(server: tuple[Server, dict[str, Mutant]], rule: str) -> None:
    plane, made = server
    unchanged = [(body, said(plane, body, rule)) for body in pods(rule)]
    of_rule = {key: row.name for key, row in made.items() if row.policy.rule == rule}
    assert {f"{rule}: removed", f"{rule}: inverted"} < set(of_rule.values())
    assert [
        name for key, name in of_rule.items() if all(said(plane, body, key) == text for body, text in unchanged)
    ] == []
