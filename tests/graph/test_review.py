"""`python -m serving diff`: the whole comment for prepared changes, kept in golden files.

The resources that change come from real renderings of the program on both sides, where a change is accepted. Renew the files
with `python -m tests.graph.test_review` and read what changed.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import unified_diff
from functools import cache
from pathlib import Path

import pytest

from rehearsal.run import resources
from serving.__main__ import ACCEPTED, BAD_INPUT, REFUSED, main
from serving.review.markdown import MARKER
from tests.fixtures.repository import SERVING, STACK_FILES, ScratchRepository
from tests.fixtures.stacks import ROOT

GOLDEN = Path(__file__).parent / "reviews"
RENEW = "python -m tests.graph.test_review"

DEV, PROD, TWO_NODES = "Pulumi.dev.yaml", "Pulumi.prod.yaml", "Pulumi.two-nodes.yaml"


@dataclass(frozen=True)
class Prepared:
    """A change to the stack files, and what it amounts to. `overrides` say the same to the renderer, for the stack named."""

    name: str
    change: Callable[[ScratchRepository], None]
    code: int = ACCEPTED
    said: str = ""
    stack: str | None = None
    overrides: tuple[str, ...] = ()
    base: Callable[[ScratchRepository], None] | None = None


def new_stack(scratch: ScratchRepository) -> None:
    text = (scratch.folder / DEV).read_text(encoding="utf-8")
    scratch.write(
        "Pulumi.trial.yaml",
        text.replace("p5en.48xlarge", "p6-b300.48xlarge").replace("precision: fp8", "precision: bf16"),
    )


def broken_base(scratch: ScratchRepository) -> None:
    scratch.edit(DEV, ("maxModelLen: 131072", "maxModelLen: 128k"))
    scratch.commit("a base that cannot be used")


def scheduled_base(scratch: ScratchRepository) -> None:
    scratch.edit(PROD, ("cdef0 }", 'cdef0, phase: scheduled, startsAt: "2026-12-01T11:30:00Z" }'))
    scratch.commit("a block that has not started")


def base_of_two_nodes(scratch: ScratchRepository) -> None:
    scratch.write(TWO_NODES, (ROOT / "examples" / "Pulumi.h200-bf16-two-nodes.yaml").read_text(encoding="utf-8"))
    scratch.commit("a stack of two nodes for each replica")


PREPARED = (
    Prepared(
        "context-length",
        lambda scratch: scratch.edit(DEV, ("maxModelLen: 131072", "maxModelLen: 262144")),
        stack="dev",
        overrides=("workloads.glm.maxModelLen=262144",),
    ),
    Prepared(
        "shared-cache",
        lambda scratch: scratch.edit(
            DEV, ("maxModelLen: 131072", "maxModelLen: 1048576\n      decodeContextParallelSize: 8")
        ),
        stack="dev",
        overrides=("workloads.glm.maxModelLen=1048576", "workloads.glm.decodeContextParallelSize=8"),
    ),
    Prepared(
        "digest",
        lambda scratch: scratch.edit(PROD, ('vllmVersion: "0.31.0"', 'vllmVersion: "0.30.0"')),
        stack="prod",
        overrides=('workloads.glm.vllmVersion="0.30.0"',),
    ),
    Prepared(
        "replicas",
        lambda scratch: scratch.edit(PROD, ("nodes: 2", "nodes: 3"), ("replicas: 2", "replicas: 3")),
        stack="prod",
        overrides=("nodePools.b200.nodes=3", "workloads.glm.replicas=3"),
    ),
    Prepared(
        "block-ends",
        lambda scratch: scratch.edit(PROD, ("cdef0 }", "cdef0, phase: ended }")),
        stack="prod",
        overrides=("nodePools.b200.capacity.phase=ended",),
    ),
    Prepared("block-starts", lambda scratch: scratch.edit(PROD, ("scheduled", "active")), base=scheduled_base),
    Prepared(
        "machines",
        lambda scratch: scratch.edit(DEV, ("nodes: 1", "nodes: 1\n      rootVolumeGiB: 300")),
        stack="dev",
        overrides=("nodePools.h200.rootVolumeGiB=300",),
    ),
    Prepared(
        "advice",
        lambda scratch: scratch.edit(DEV, ('vllmVersion: "0.31.0"', 'vllmVersion: "0.24.0"\n      toolCalling: false')),
    ),
    Prepared(
        "only-group",
        lambda scratch: scratch.edit(
            TWO_NODES, ("nodes: 2", "nodes: 4"), ("maxModelLen: 131072", "maxModelLen: 65536")
        ),
        base=base_of_two_nodes,
    ),
    Prepared("no-change", lambda scratch: scratch.edit(DEV, ("# One 8xH200", "# Only words change: one 8xH200"))),
    Prepared("added-stack", new_stack),
    Prepared("removed-stack", lambda scratch: (scratch.folder / DEV).unlink()),
    Prepared(
        "refused",
        lambda scratch: scratch.edit(PROD, ("precision: fp8", "precision: bf16\n      revision: main")),
        REFUSED,
        "stack prod is refused: bf16-one-node of glm, model-revision of glm\n",
    ),
    Prepared(
        "bad-input",
        lambda scratch: scratch.edit(DEV, ("precision: fp8", "precision: fp61"), ("nodes: 1", "nodes: 0")),
        BAD_INPUT,
        "Pulumi.dev.yaml: nodePools.h200.nodes: 0 is not allowed; expected a whole number of nodes from 1 to 64\n",
    ),
    Prepared(
        "not-yaml",
        lambda scratch: scratch.edit(DEV, ("nodes: 1", "nodes: ```")),
        BAD_INPUT,
        "Pulumi.dev.yaml: line 13: not valid YAML: ",
    ),
    Prepared("broken-base", lambda scratch: scratch.edit(DEV, ("128k", "131072")), base=broken_base),
)


BY_NAME = {prepared.name: prepared for prepared in PREPARED}


@cache
def rendered(stack: str, overrides: tuple[str, ...]) -> str:
    return json.dumps(resources(stack, overrides))


def renderings(prepared: Prepared, folder: Path) -> list[str]:
    """Write what `python -m rehearsal resources` says of both sides; return the options that hand it over."""
    if prepared.stack is None:
        return []
    for side, overrides in (("base", ()), ("head", prepared.overrides)):
        (folder / side).mkdir(parents=True)
        (folder / side / f"{prepared.stack}.json").write_text(rendered(prepared.stack, overrides), encoding="utf-8")
    return ["--rendered", str(folder)]


def made(prepared: Prepared, folder: Path, form: str = "markdown") -> tuple[int, str, str]:
    """Return the exit code, the comment without the base's commit, and stderr."""
    scratch = ScratchRepository(folder / "repository", STACK_FILES, SERVING)
    if prepared.base:
        prepared.base(scratch)
    prepared.change(scratch)
    words = ["diff", "--base", "main", "--format", form, *renderings(prepared, folder / "rendered")]
    out, err, here = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(scratch.folder)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main(words)
    finally:
        os.chdir(here)
    return code, re.sub(r"\b[0-9a-f]{12}, head", "0123456789ab, head", out.getvalue()), err.getvalue()


@pytest.mark.parametrize("prepared", PREPARED, ids=lambda prepared: prepared.name)
def test_golden(prepared: Prepared, tmp_path: Path) -> None:
    code, now, said = made(prepared, tmp_path)
    assert code == prepared.code
    assert said.startswith(prepared.said)
    assert bool(said) is (code != ACCEPTED)
    assert now.startswith(f"{MARKER}\n## ")
    path = GOLDEN / f"{prepared.name}.md"
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    if now != kept:
        name = str(path.relative_to(ROOT))
        diff = "".join(unified_diff(kept.splitlines(True), now.splitlines(True), f"{name} (kept)", "made now"))
        pytest.fail(f"{diff}\n{name} is not what the change amounts to. If you meant it: {RENEW}", pytrace=False)


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {prepared.name for prepared in PREPARED}


def test_json_says_the_same(tmp_path: Path) -> None:
    code, text, _ = made(BY_NAME["replicas"], tmp_path, "json")
    found = json.loads(text)
    assert code == ACCEPTED
    assert found["program"] == found["notes"] == []
    dev, prod = found["stacks"]["dev"], found["stacks"]["prod"]
    assert (dev["isChange"], prod["isChange"]) == (False, True)
    assert prod["verdict"] == {"before": "accepted", "after": "accepted"}
    assert prod["hourlyUsd"] == {"before": pytest.approx(2 * 113.9328), "after": pytest.approx(3 * 113.9328)}
    assert prod["settings"] == [
        {"name": "nodePools.b200.nodes", "before": 2, "after": 3},
        {"name": "workloads.glm.replicas", "before": 2, "after": 3},
    ]
    glm = prod["workloads"]["glm"]
    assert glm["consequence"] == {"kind": "scaled", "stopsServingSeconds": 0, "fetchesWeights": False}
    assert glm["memory"]["before"] == glm["memory"]["after"]
    assert [(row["operation"], row["name"]) for row in prod["resources"]["changes"]] == [
        ("update", "b200-nodes"),
        ("update", "glm-deployment"),
    ]


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for row in PREPARED:
        with tempfile.TemporaryDirectory() as scratch_folder:
            (GOLDEN / f"{row.name}.md").write_text(made(row, Path(scratch_folder))[1], encoding="utf-8")
