"""vLLM's own argument parser, of the version that the serving image carries, on a machine without GPUs."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.vllm_cpu.environment import Environment

__all__ = ["Flag", "Verdict", "parse"]

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


def parse(environment: Environment, commands: Sequence[Sequence[str]]) -> tuple[list[Verdict], list[Flag]]:
    """Ask about command lines that serve; one process answers all, in their order, and lists the parser's flags.

    Raises:
        RuntimeError: the parser itself cannot be run; quotes the end of what it wrote.

    """
    with tempfile.TemporaryDirectory() as home:
        # No variable of the caller's: a VLLM_* or HF_* of theirs would change the answers.
        env = {"HOME": home, "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        done = subprocess.run(
            [environment.python, "-I", _CHECK],
            input=json.dumps([list(command) for command in commands]),
            env=env,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(
            f"{environment.python} {_CHECK} ended with exit status {done.returncode}: {done.stderr[-2000:]}"
        )
    said = json.loads(done.stdout)
    return [Verdict(**answer) for answer in said["answers"]], [
        Flag(tuple(options), nargs) for options, nargs in said["flags"]
    ]
