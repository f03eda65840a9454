"""What `python -m rehearsal render` writes is valid for kubeconform, with the schemas of the Kubernetes that is rehearsed on."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from rehearsal.control_plane import ControlPlane
from rehearsal.groups.program import build_controller
from rehearsal.rendering import as_yaml
from rehearsal.run import render
from tests.fixtures.stacks import EXAMPLES
from tests.rehearsal.json_schemas import published, schemas
from tests.rehearsal.kubeconform import Verdict, build_kubeconform, judge, write_schemas

Judge = Callable[[str], Verdict]

GROUPS = "h200-bf16-two-nodes"


@pytest.fixture(scope="module")
def kubeconform(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory, progress: Callable[[str], None]
) -> Judge:
    folder = tmp_path_factory.mktemp("schemas")
    write_schemas(folder, schemas(published(control_plane), build_controller(progress).definition()))
    program = build_kubeconform(progress)
    return lambda documents: judge(program, folder, documents)


def rendered(stack: str) -> str:
    return as_yaml(list(render(stack, (), lambda _: None)))


def is_server(document: str) -> bool:
    return re.search(r"^kind: (Deployment|LeaderWorkerSet)$", document, re.MULTILINE) is not None


@pytest.mark.parametrize("stack", ["dev", "prod", *EXAMPLES])
def test_a_rendering_is_valid(kubeconform: Judge, stack: str) -> None:
    documents = rendered(stack)
    assert kubeconform(documents) == Verdict(documents.count("\n---\n") + 1, [])


@pytest.mark.parametrize(
    ("stack", "old", "new", "problem"),
    [
        ("dev", "GracePeriodSeconds:", "GraceSeconds:", "'terminationGraceSeconds' not allowed"),
        ("dev", "  replicas: 1", "  replicas: one", "got string, want integer"),
        ("dev", "  selector:\n", "  selectors:\n", "'selectors' not allowed"),
        ("dev", "kind: Deployment", "kind: Deploymint", "could not find schema for Deploymint"),
        (GROUPS, "  startupPolicy:", "  startPolicy:", "'startPolicy' not allowed"),
        (GROUPS, "GracePeriodSeconds:", "GraceSeconds:", "'terminationGraceSeconds' not allowed"),
    ],
)
def test_a_mistake_is_noticed(kubeconform: Judge, stack: str, old: str, new: str, problem: str) -> None:
    (document,) = (text for text in rendered(stack).split("\n---\n") if is_server(text))
    assert kubeconform(document) == Verdict(1, [])
    assert old in document
    verdict = kubeconform(document.replace(old, new))
    assert verdict.valid == 0
    assert problem in verdict.problems[0][-1]
