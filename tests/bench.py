"""`make bench`: what a plan and a preview cost, each as a ratio to its floor measured in the same run.

A plan's floor is a Python that imports what it must (pydantic, the YAML and TOML readers). A preview's floor is a program that
registers the same resources with the same inputs and does nothing else. Machines differ and are shared: compare ratios.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rehearsal.engine import InProcessEngine
from rehearsal.resource import Created, Resource, World
from rehearsal.run import ROOT, load

_RUNS = 7
_STACKS = ("dev", "prod")

_FLOOR_PROGRAM = """
import json, pathlib, pulumi
for row in json.loads(pathlib.Path(__file__).with_name("resources.json").read_text()):
    pulumi.CustomResource(row["type"], row["name"], row["inputs"])
"""


class _Recorder(World):
    """A world in which everything is created at once and nothing is checked: what is measured is the program."""

    def __init__(self) -> None:
        self.seen: list[Resource] = []

    def create(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        del preview
        self.seen.append(resource)
        return None, dict(resource.inputs)

    def delete(self, created: Created) -> None:
        del created


def _process(*words: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _plan(stack: str) -> float:
    return _process("-m", "serving", "plan", "--stack", stack, "--format", "json")


def _imports() -> float:
    return _process("-c", "import argparse, pydantic, tomllib, yaml")


def _preview(folder: Path, stack: str, settings: Mapping[str, Any]) -> float:
    started = time.perf_counter()
    InProcessEngine(folder, stack, settings, _Recorder()).preview()
    return time.perf_counter() - started


def _floor(folder: Path, stack: str, settings: Mapping[str, Any]) -> None:
    """Write a program that registers what the stack's preview registers."""
    import json  # noqa: PLC0415 (only here)

    world = _Recorder()
    InProcessEngine(ROOT, stack, settings, world).preview()
    rows = [
        {"type": seen.type, "name": seen.name, "inputs": json.loads(json.dumps(dict(seen.inputs), default=str))}
        for seen in world.seen
        if not seen.type.startswith("pulumi:providers:")
    ]
    (folder / "resources.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "__main__.py").write_text(_FLOOR_PROGRAM, encoding="utf-8")


def _compare(label: str, measured: Callable[[], float], floor: Callable[[], float]) -> None:
    """Measure in turn, so that a machine that slows down slows both."""
    pairs = [(measured(), floor()) for _ in range(_RUNS + 1)][1:]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    sys.stdout.write(f"{label:<16} {ours * 1000:7.0f} ms   floor {theirs * 1000:7.0f} ms   ratio {ratio:5.2f}\n")


def main() -> None:
    """Print one line for each measurement."""
    for stack in _STACKS:
        _compare(f"plan {stack}", lambda stack=stack: _plan(stack), _imports)
    for stack in _STACKS:
        _, settings = load(stack, (), ROOT)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _floor(folder, stack, settings)
            _compare(
                f"preview {stack}",
                lambda stack=stack, settings=settings: _preview(ROOT, stack, settings),
                lambda stack=stack, settings=settings, folder=folder: _preview(folder, stack, settings),
            )


if __name__ == "__main__":
    main()
