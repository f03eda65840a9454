"""The workflows as data, and a way to run one of their steps as GitHub's runner would."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

from tests.fixtures.stacks import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(path.stem for path in FOLDER.glob("*.yml"))

_EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")

Step = Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML in which `on` is a word, as GitHub reads it."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if tag != "tag:yaml.org,2002:bool"]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@cache
def workflow(name: str) -> dict[str, Any]:
    """Return a workflow's content; booleans stay words."""
    return cast("dict[str, Any]", yaml.load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"), Loader=_Loader))


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every job with its workflow's name and its own."""
    for name in WORKFLOWS:
        for job, content in workflow(name)["jobs"].items():
            yield name, job, content


def scripts() -> dict[tuple[str, str, str], Step]:
    """Return every step that runs a script, by workflow, job and name."""
    return {
        (name, job, step.get("name", "")): step
        for name, job, content in jobs()
        for step in content["steps"]
        if "run" in step
    }


@dataclass
class Runner:
    """A machine that runs steps in a folder. `context` answers the expressions, `variables` are what every step finds.

    Programs in `tools` are found before all others.
    """

    workspace: Path
    temp: Path
    context: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.temp.mkdir(parents=True, exist_ok=True)
        self.summary = self.temp / "summary"
        self.output = self.temp / "output"
        self.tools = self.temp / "tools"
        self.tools.mkdir(exist_ok=True)

    def tool(self, name: str, script: str) -> None:
        """Put a program on PATH."""
        path = self.tools / name
        path.write_text(f"#!/bin/bash\n{script}", encoding="utf-8")
        path.chmod(0o755)

    def run(self, workflow_name: str, job: str, step: str) -> subprocess.CompletedProcess[str]:
        """Run a step with its own, its job's and its workflow's environment, under the runner's default shell."""
        content = scripts()[workflow_name, job, step]
        levels = (workflow(workflow_name), workflow(workflow_name)["jobs"][job], content)
        environment = {name: self._resolved(text) for level in levels for name, text in level.get("env", {}).items()}
        script = self.temp / "step.sh"
        script.write_text(self._resolved(content["run"]), encoding="utf-8")
        return subprocess.run(
            ["bash", "-e", str(script)],
            cwd=self.workspace,
            env={**self._machine(), **self.variables, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def outputs(self) -> dict[str, str]:
        """Return what steps have written to $GITHUB_OUTPUT."""
        lines = self.output.read_text(encoding="utf-8").splitlines() if self.output.exists() else []
        return dict(line.split("=", 1) for line in lines)

    def _machine(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "LANG") if name in os.environ}
        return {
            **kept,
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "CI": "true",
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
        }

    def _resolved(self, text: object) -> str:
        return _EXPRESSION.sub(lambda match: self.context[match[1]], str(text))
