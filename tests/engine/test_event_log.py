"""A real preview's event log, as `python -m serving diff --previewed` reads it."""

from __future__ import annotations

import shutil

import pytest

from serving.review.resources import ResourceChanges, of_preview
from tests.engine.conftest import Project


def previewed(project: Project, stack: str, monkeypatch: pytest.MonkeyPatch) -> ResourceChanges:
    """Preview a stack with the options of scripts/preview, but for the policy pack."""
    monkeypatch.setenv("PULUMI_DEBUG_COMMANDS", "true")
    log = project.folder.parent / "events.jsonl"
    project.pulumi("preview", "--suppress-outputs", "--stack", stack, "--event-log", str(log))
    return of_preview(log.read_text(encoding="utf-8"), str(log))


def test_a_refused_preview(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.succeed("stack", "init", "dev")
    project.succeed("config", "set", "--stack", "dev", "--path", "glm-on-gpus:workloads.glm.precision", "bf16")
    found = previewed(project, "dev", monkeypatch)
    assert (found.failed, found.changes) == (True, ())
    assert "workloads.glm: bf16-one-node: BF16 needs 178.8 GiB of weights" in "\n".join(found.errors)


@pytest.mark.skipif(shutil.which("pulumi-resource-kubernetes") is None, reason="no pulumi-resource-kubernetes on PATH")
def test_an_accepted_preview(project_on_no_cluster: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    found = previewed(project_on_no_cluster, "mine", monkeypatch)
    assert (found.failed, found.errors, found.policies) == (False, (), ())
    assert {change.operation for change in found.changes} == {"create"}
    names = {f"{change.type} {change.name}" for change in found.changes}
    assert {"kubernetes:apps/v1:Deployment glm-deployment", "pulumi:providers:kubernetes cluster-provider"} <= names
    # Components and the stack are none.
    assert not [name for name in names if name.startswith(("glm-on-gpus:", "pulumi:pulumi:Stack"))]
