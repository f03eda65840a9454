"""What nobody knows before an update is refused where a verdict depends on it; what is secret is judged, and never told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.manifests import Object, manifest
from tests.fixtures.rule_cases import RuleCase, on_h200
from tests.policy.analyzer import UNKNOWN, UNKNOWNS, Analyzer, Diagnostic, secret

WHY = "a value of it is known only after the update"
GOOD = manifest(RuleCase("", "", True, "", on_h200()), "Deployment")
POD = ("spec", "template", "spec")
ENGINE = (*POD, "containers", 0)


def named(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def changed(path: tuple[str | int, ...], value: object) -> Object:
    body: Any = copy.deepcopy(GOOD)
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return body


def at(path: tuple[str | int, ...]) -> Any:
    place: Any = GOOD
    for key in path:
        place = place[key]
    return place


def said(found: list[Diagnostic]) -> dict[str, str]:
    assert {row.level for row in found} <= {"mandatory", "advisory"}
    # The SDK's own words for a policy that met an unknown value, which would refuse nothing.
    assert not [row for row in found if "can't run policy" in row.message]
    return {row.policy: row.message for row in found if row.level == "mandatory"}


def test_the_workload_itself_is_accepted(pack: Analyzer) -> None:
    assert pack.analyze(GOOD) == []


UNREADABLE = [
    ("spec",),
    ("spec", "template"),
    POD,
    (*POD, "containers"),
    ENGINE,
    (*POD, "initContainers"),
    (*POD, "ephemeralContainers"),
    (*ENGINE, "command"),
    (*ENGINE, "args"),
    (*ENGINE, "command", 0),
]


@pytest.mark.parametrize("value", UNKNOWNS.values(), ids=UNKNOWNS)
@pytest.mark.parametrize("path", UNREADABLE, ids=named)
def test_a_pod_that_cannot_be_known_is_refused(pack: Analyzer, path: tuple[str | int, ...], value: str) -> None:
    found = said(pack.analyze(changed(path, value)))
    assert f": cannot be judged: {WHY}. To do: write the command out" in found["readable"]


@pytest.mark.parametrize("path", UNREADABLE, ids=named)
def test_a_file_in_the_place_of_a_value_is_refused(pack: Analyzer, path: tuple[str | int, ...]) -> None:
    # The signature of an asset (pulumi `sdk/go/common/resource/properties.go`).
    asset = {"4dabf18193072939515e22adb298388d": "c44067f5952c0a294b673a41bacd8c17", "text": "vllm serve"}
    assert "readable" in said(pack.analyze(changed(path, asset)))


JUDGED = [
    ((*ENGINE, "image"), "image-digest", WHY),
    ((*ENGINE, "command", 2), "model-revision", WHY),
    ((*ENGINE, "command", 4), "model-revision", WHY),
    ((*ENGINE, "command", 8), "h200-len", WHY),
    ((*ENGINE, "env"), "dev-mode", f"env: {WHY}"),
    ((*ENGINE, "env", 0, "value"), "ready-600", "VLLM_ENGINE_READY_TIMEOUT_S is known only after the update"),
    ((*POD, "nodeSelector"), "fit", "the pod does not say which machine it runs on: "),
    (
        (*POD, "nodeSelector", "node.kubernetes.io/instance-type"),
        "fit",
        "the pod does not say which machine it runs on: ",
    ),
    ((*POD, "volumes"), "host-path", f"volumes: {WHY}"),
    ((*POD, "volumes", 0, "hostPath"), "host-path", f"volumes: {WHY}"),
    ((*POD, "volumes", 0, "hostPath", "path"), "host-path", f"volumes: {WHY}"),
]


@pytest.mark.parametrize(("path", "rule", "why"), JUDGED, ids=[named(path) for path, *_ in JUDGED])
def test_a_value_that_cannot_be_known_is_refused_by_the_rule_that_needs_it(
    pack: Analyzer, path: tuple[str | int, ...], rule: str, why: str
) -> None:
    found = said(pack.analyze(changed(path, UNKNOWN)))
    assert f": cannot be judged: {why}" in found[rule]
    assert "readable" not in found


@pytest.mark.parametrize("path", [("metadata", "name"), ("spec", "replicas"), (*POD, "automountServiceAccountToken")])
def test_a_value_that_no_rule_needs_may_be_unknown(pack: Analyzer, path: tuple[str | int, ...]) -> None:
    assert pack.analyze(changed(path, UNKNOWN)) == []


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value below one."""
    children: Any = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


@pytest.mark.parametrize("path", list(places(GOOD)), ids=named)
def test_a_secret_is_judged_as_any_other_value_and_never_told(pack: Analyzer, path: tuple[str | int, ...]) -> None:
    assert pack.analyze(changed(path, secret(at(path)))) == []
    for value in ("hunter2", [{"hunter2": "hunter2"}]):
        plain, concealed = pack.analyze(changed(path, value)), pack.analyze(changed(path, secret(value)))
        assert [(row.policy, row.level) for row in concealed] == [(row.policy, row.level) for row in plain]
        assert not [row for row in concealed if "hunter2" in row.message]


@pytest.mark.parametrize("path", [ENGINE, (*POD, "containers"), POD, ("spec",)], ids=named)
def test_what_stands_beside_a_secret_is_not_told_either(pack: Analyzer, path: tuple[str | int, ...]) -> None:
    body = changed((*ENGINE, "command"), [*at((*ENGINE, "command")), "--api-key", "hunter2", "--revision", "main"])
    place: Any = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = secret(place[path[-1]])
    assert pack.analyze(body) == [
        Diagnostic(
            "model-revision",
            "mandatory",
            "The model is pinned by revision\n"
            "a container does not pass; why is not told, because the object holds a secret value (a variable from a Kubernetes "
            "Secret, with valueFrom, holds none). To do: set revision to a commit of the model's repository, or leave it out "
            "for the catalogue's",
        )
    ]


def test_a_variable_that_is_named_like_a_secret_is_never_told(pack: Analyzer) -> None:
    rows = [{"name": name, "value": "hunter2"} for name in ("HF_TOKEN", "API_KEY", "DB_PASSWORD")]
    command = ["vllm", "serve", "$(HF_TOKEN)", "--revision", "$(API_KEY)", "--max-model-len", "$(DB_PASSWORD)"]
    body = changed((*ENGINE, "command"), command)
    body["spec"]["template"]["spec"]["containers"][0]["env"] = rows
    found = pack.analyze(body)
    assert "HF_TOKEN is named like a secret" in said(found)["model-revision"]
    assert not [row for row in found if "hunter2" in row.message]
