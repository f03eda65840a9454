"""Python environments from a lock, as content of a `Workshop`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from rehearsal.control_plane.install import Workshop

PYTHON = Path("bin", "python")
"""The interpreter inside an environment."""


def fill(workshop: Workshop, lock: Path, still: Callable[[str], str] = lambda _: "at work") -> float:
    """Make an environment of exactly what a lock with hashes names; return the seconds that the packages took.

    Raises ControlPlaneError if that fails, with the end of uv's log, which `still` sums up on the way.
    """
    # uv's cache beside the new environment: files are linked, not copied, and what is not installed goes away again.
    env = {**os.environ, "UV_CACHE_DIR": str(workshop.scratch)}
    uv = [sys.executable, "-m", "uv"]
    # Relocatable, because the folder gets its final name only when it is complete.
    workshop.run(
        "environment",
        [*uv, "venv", "--relocatable", "--python", sys.executable, str(workshop.content)],
        env=env,
    )
    python = str(workshop.content / PYTHON)
    return workshop.run(
        "packages", [*uv, "pip", "sync", "--require-hashes", "--python", python, str(lock)], env=env, still=still
    )
