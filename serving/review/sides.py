"""The two sides of a change: what each stack was, and what it would be.

Whose knowledge judges? The base is planned by its own code, so that a change of the catalogue or of the program shows as what it
does to a stack whose file did not change. The head is planned by the code that runs this: for a pull request of one's own that
is the head's code; for a stranger's it is trusted code, and the stranger's files are data to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from serving import report
from serving.config import PROJECT, ConfigError, parse
from serving.plan import build
from serving.review.changes import flat
from serving.review.planned import Planned
from serving.stack_file import document, read, stack_file

PACKAGE = Path(__file__).parents[1]
_CODE_SUFFIXES = (".py", ".toml")
_BAD_INPUT = 2  # the exit code of `python -m serving plan` for a stack file that cannot be used
_LIMIT_SECONDS = 120  # a plan takes half a second; this only keeps a hang from being endless

Verdict = Literal["absent", "accepted", "refused", "bad input"]


@dataclass(frozen=True)
class Side:
    """One stack at one revision; `problems` say why there is no plan.

    `settings` are the leaves of its file by path, None if it cannot be read. `note` says why a base was not planned by its
    own code.
    """

    verdict: Verdict
    planned: Planned | None = None
    problems: tuple[str, ...] = ()
    settings: Mapping[str, Any] | None = None
    note: str | None = None


ABSENT = Side("absent")


def by_this_code(stack: str, folder: Path) -> Side:
    """Plan a stack of a folder with the code that runs."""
    path = stack_file(stack, folder)
    settings = None
    try:
        settings = _settings(path)
        plan = build(parse(read(path), path.name), stack)
    except ConfigError as error:
        return Side("bad input", problems=tuple(error.problems), settings=settings)
    planned = Planned.model_validate(report.as_json(plan))
    return Side("refused" if plan.violations else "accepted", planned, settings=settings)


def by_its_own_code(stack: str, folder: Path) -> Side:
    """Plan a stack of a folder with the code in that folder, as a process of its own; with this code if that cannot be."""
    side = by_this_code(stack, folder)
    if same_code(folder):
        return side
    if not (folder / "serving" / "__main__.py").is_file():
        return replace(side, note="the base has no code of its own that plans")
    done = _plan_process(stack, folder)
    if done.returncode == _BAD_INPUT:
        return Side("bad input", problems=tuple(done.stderr.splitlines()), settings=side.settings)
    try:
        planned = Planned.model_validate_json(done.stdout)
    except ValidationError:
        return replace(side, note=f"the base's own code does not plan it ({_last_line(done.stderr)})")
    return Side("refused" if planned.violations else "accepted", planned, settings=side.settings)


def same_code(folder: Path) -> bool:
    """Whether a folder holds the same package as the one that runs."""
    return _contents(folder / PACKAGE.name) == _contents(PACKAGE)


def _contents(package: Path) -> dict[str, bytes]:
    files = (path for path in package.rglob("*") if path.suffix in _CODE_SUFFIXES)
    return {str(path.relative_to(package)): path.read_bytes() for path in files}


def _plan_process(stack: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving", "plan", "--stack", stack, "--format", "json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def _settings(path: Path) -> dict[str, Any]:
    """Return what a stack file says, by path: the project's own settings without its name, others with their namespace."""
    whole = document(path)
    config = {key.removeprefix(f"{PROJECT}:"): value for key, value in whole.pop("config").items()}
    return flat(config) | flat(whole)
