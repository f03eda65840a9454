"""The rules as the API server judges them against the rules themselves: every workload of the shared table, every disguise."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from kubernetes.client.exceptions import ApiException

from rehearsal.control_plane import ControlPlane
from serving.rules import RULES, apply
from tests.fixtures.disguises import DISGUISES, GOOD, Disguise
from tests.fixtures.manifests import in_kind, manifest, pod
from tests.fixtures.rule_cases import CASES, RuleCase
from tests.rehearsal.admission import Server, policies_of

JUDGED = {row.rule: row for row in policies_of("dev")}
SHARED = [case for case in CASES if case.rule in JUDGED]
BY_ID = {rule.id: rule for rule in RULES}


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which an object labelled with a rule is judged by that rule alone."""
    server = Server(control_plane, tmp_path_factory.mktemp("server"))
    server.install(JUDGED)
    for rule in JUDGED:
        deployment = {
            **in_kind("Deployment", Disguise("good", {"command": list(GOOD)}).pod),
            "metadata": {"name": rule},
        }
        server.cluster.create(server.placed(deployment, rule))
    yield server
    server.close()


def refused_by_itself(refusal: str | None) -> bool:
    """Whether the API server's own checks refuse an object, for which no policy is asked: an image that is empty, say."""
    return refusal is not None and "ValidatingAdmissionPolicy" not in refusal


def test_every_rule_is_one_of_the_table() -> None:
    assert {case.rule for case in SHARED} == JUDGED.keys() <= BY_ID.keys()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in SHARED])
def test_the_api_server_agrees_with_the_rule_on_a_new_pod(server: Server, case: RuleCase) -> None:
    outcome = apply(BY_ID[case.rule], case.facts).outcome
    refusal = server.refusal(manifest(case), judged_by=case.rule)
    assert (refusal is None) is outcome.passed, refusal
    if refusal is not None and not outcome.passed and not refused_by_itself(refusal):
        # The same words, but for the overhead: the API server knows only the least there can be.
        said = re.sub(r"at least [0-9.]+ GiB", "X GiB", refusal)
        assert re.sub(r"[0-9.]+ GiB of overhead", "X GiB of overhead", outcome.why) in said


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in SHARED if case.nodes_per_replica == 1])
def test_the_api_server_agrees_with_the_rule_on_an_update(server: Server, case: RuleCase) -> None:
    outcome = apply(BY_ID[case.rule], case.facts).outcome
    labels = manifest(case)["metadata"]["labels"]
    template = {"metadata": {"labels": labels}, "spec": {**pod(case), "$patch": "replace"}}
    try:
        server.apps.patch_namespaced_deployment(
            case.rule, server.namespace, {"spec": {"template": template}}, dry_run="All"
        )
    except ApiException as error:
        assert not outcome.passed, error.body
    else:
        assert outcome.passed


@pytest.mark.parametrize("rule", [rule for rule in JUDGED if rule != "host-path"])
@pytest.mark.parametrize("disguise", [pytest.param(row, id=row.id) for row in DISGUISES])
def test_a_disguise_is_seen_through(server: Server, disguise: Disguise, rule: str) -> None:
    refusal = server.refusal(in_kind("Pod", disguise.pod), judged_by=rule)
    assert (refusal is not None) is (rule in disguise.refused), refusal
    assert not refused_by_itself(refusal)


def test_no_two_disguises_have_one_name() -> None:
    assert len({row.id for row in DISGUISES}) == len(DISGUISES)


def test_what_costs_too_much_to_judge_is_refused(server: Server) -> None:
    variables = [{"name": f"V{number}", "value": "x"} for number in range(2_000)]
    body = in_kind("Pod", Disguise("long", {"command": [*GOOD, *["$(V0)"] * 1_000], "env": variables}).pod)
    refusal = server.refusal(body, judged_by="image-digest")
    assert refusal is not None
    assert "actual cost limit exceeded" in refusal
