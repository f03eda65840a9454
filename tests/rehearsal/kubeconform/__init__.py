"""kubeconform, built from its pinned Go module, with JSON schemas from the API server instead of from the internet."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fixtures.go_tool import build_go_tool

_PACKAGE = "github.com/yannh/kubeconform/cmd/kubeconform"
_SCHEMA = "{{.ResourceKind}}{{.KindSuffix}}.json"


@dataclass(frozen=True)
class Verdict:
    """What kubeconform says of documents: how many are valid, and of each other one its kind, status and words."""

    valid: int
    problems: list[tuple[str, str, str]]


def build_kubeconform(progress: Callable[[str], None]) -> Path:
    """Return the program; raise `ControlPlaneError` if it cannot be built."""
    return build_go_tool(Path(__file__).parent, _PACKAGE, progress)


def judge(program: Path, schemas: Path, documents: str) -> Verdict:
    """Judge YAML documents by the schemas of a folder and no others; a kind without a schema is a problem."""
    argv = [
        str(program),
        "-strict",
        "-verbose",
        "-output",
        "json",
        "-summary",
        "-schema-location",
        f"{schemas}/{_SCHEMA}",
    ]
    run = subprocess.run([*argv, "-"], input=documents, capture_output=True, text=True, check=False)
    assert run.returncode in {0, 1}, run.stderr
    said: dict[str, Any] = json.loads(run.stdout)
    bad = [row for row in said["resources"] if row["status"] != "statusValid"]
    assert len(bad) == sum(said["summary"][name] for name in ("invalid", "errors", "skipped"))
    return Verdict(said["summary"]["valid"], [(row["kind"], row["status"], row["msg"]) for row in bad])


def write_schemas(folder: Path, schemas: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """Write schemas by group, version and kind under the names by which kubeconform looks for them."""
    for (group, version, kind), schema in schemas.items():
        short = group.partition(".")[0]
        name = "-".join(part for part in (kind, short, version) if part).lower()
        (folder / f"{name}.json").write_text(json.dumps(schema), encoding="utf-8")
