"""vLLM's own argument parser, of the version that the serving image carries, on a machine without GPUs.

vLLM cannot live in the project's own environment (its torch alone takes gigabytes), so it gets one of its own, in
the user's cache folder, built once for each lock: `requirements.txt` here, compiled by the command in its first lines.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environment import LOCK, build_environment

__all__ = ["Flag", "Verdict", "locked_version", "parse"]

_CHECK = Path(__file__).with_name("check.py")
# Importing vLLM takes 10 to 25 seconds on two cores; this only keeps a hang from being endless.
_LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Verdict:
    """What vLLM says about one command line: its own words if it refuses, else the values that were given."""

    accepted: bool
    error: str | None
    values: dict[str, Any]


@dataclass(frozen=True)
class Flag:
    """A flag of vLLM's parser: its spellings, and how many values it takes as argparse writes it (None is one)."""

    options: tuple[str, ...]
    nargs: str | int | None


def locked_version() -> str:
    """The vLLM version whose parser answers."""
    pin = next(line for line in LOCK.read_text().splitlines() if line.startswith("vllm=="))
    return pin.removeprefix("vllm==").split()[0]


def parse(commands: Sequence[Sequence[str]], progress: Callable[[str], None]) -> tuple[list[Verdict], list[Flag]]:
    """Ask about command lines that serve; one process answers all, in their order, and lists the parser's flags.

    The environment is built first if this user has none for the lock; `progress` gets a line for each step.

    Raises:
        ControlPlaneError: the environment cannot be built; quotes the end of the log.
        RuntimeError: the parser itself cannot be run; quotes the end of what it wrote.

    """
    python = build_environment(progress)
    with tempfile.TemporaryDirectory() as home:
        # No variable of the caller's: a VLLM_* or HF_* of theirs would change the answers.
        env = {"HOME": home, "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        done = subprocess.run(
            [python, "-I", _CHECK],
            input=json.dumps([list(command) for command in commands]),
            env=env,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"{python} {_CHECK} ended with exit status {done.returncode}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    return [Verdict(**answer) for answer in said["answers"]], [
        Flag(tuple(options), nargs) for options, nargs in said["flags"]
    ]
