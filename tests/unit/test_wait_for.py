"""Which LeaderWorkerSet controller a rehearsal runs, and what it waits for where a stack has Pulumi wait."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rehearsal.groups import program
from rehearsal.resource import RehearsalError
from rehearsal.run import ROOT
from rehearsal.wait_for import WAIT_FOR, conditions
from serving import catalogue

READY = "jsonpath={.status.readyReplicas}=2"


def test_the_controller_is_of_the_release_that_a_stack_installs() -> None:
    required = (ROOT / "rehearsal" / "groups" / "module" / "go.mod").read_text(encoding="utf-8")
    assert re.findall(r"sigs\.k8s\.io/lws (\S+)", required) == [program.VERSION] == [catalogue.image("lws").version]


def awaited(annotation: str | None, *, generation: int = 1, **status: Any) -> bool:
    """Whether an object with an annotation and a status has what it is waited for."""
    annotations = {} if annotation is None else {WAIT_FOR: annotation}
    metadata = {"name": "glm", "generation": generation, "annotations": annotations, "labels": {"a/b": "c"}}
    body = {"metadata": metadata, "status": status}
    return all(condition.holds(body) for condition in conditions(body, "glm"))


@pytest.mark.parametrize(
    ("annotation", "status", "holds"),
    [
        (READY, {"readyReplicas": 2}, True),
        (READY, {"readyReplicas": 1}, False),
        (READY, {}, False),
        ("jsonpath={.status.replicas}", {"replicas": 0}, True),
        ("jsonpath={.status.replicas}", {}, False),
        ("jsonpath={.metadata.labels['a/b']}=c", {}, True),
        ("jsonpath={.metadata.labels['a/b']}=d", {}, False),
        (f'["{READY}", "jsonpath={{.status.replicas}}=2"]', {"readyReplicas": 2, "replicas": 2}, True),
        (f'["{READY}", "jsonpath={{.status.replicas}}=2"]', {"readyReplicas": 2, "replicas": 3}, False),
        # Of kinds that say which generation their status is of, an old status counts for nothing.
        (READY, {"readyReplicas": 2, "observedGeneration": 6}, False),
        (READY, {"readyReplicas": 2, "observedGeneration": 7}, True),
    ],
)
def test_what_is_waited_for(annotation: str, status: dict[str, Any], holds: bool) -> None:
    assert awaited(annotation, generation=7, **status) is holds


def test_what_says_nothing_is_not_waited_for() -> None:
    assert conditions({"metadata": {"name": "glm"}}, "glm") == []


@pytest.mark.parametrize("text", ["condition=Ready", "jsonpath={.status.conditions[0]}=1", "jsonpath=.status"])
def test_what_is_not_rehearsed_is_said(text: str) -> None:
    body = {"metadata": {"name": "glm", "annotations": {WAIT_FOR: text}}}
    with pytest.raises(RehearsalError) as refused:
        conditions(body, "glm")
    assert str(refused.value) == (
        f"glm: metadata.annotations.pulumi.com/waitFor: {text!r} is not rehearsed; a path of names is, such as "
        "jsonpath={.status.readyReplicas}=2"
    )
