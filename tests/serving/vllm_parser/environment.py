"""The Python environment that holds vLLM for its argument parser: built once for each lock and user."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.install import Workshop, install_once

LOCK = Path(__file__).with_name("requirements.txt")
"""Exact versions and hashes; what is left out of vLLM's own requirements is in excludes.txt."""

_PYTHON = Path("bin", "python")


def build_environment(progress: Callable[[str], None]) -> Path:
    """The Python of the environment, built first if this user has none for the lock.

    Raises ControlPlaneError if it cannot be built, with the end of the installer's log.
    """
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    target = cache_folder() / f"vllm-parser-{digest}"
    # The link to the interpreter is followed: one whose Python was removed is built again.
    install_once(target, _build, complete=lambda folder: (folder / _PYTHON).exists(), progress=progress)
    return target / _PYTHON


def _build(workshop: Workshop) -> None:
    workshop.progress("installing vLLM's argument parser, once (2.9 GB to download, 5.2 GB on disk)")
    # uv's cache beside the new environment: files are linked, not copied, and what is not installed goes away again.
    env = {**os.environ, "UV_CACHE_DIR": str(workshop.content.parent / "uv-cache")}
    uv = [sys.executable, "-m", "uv"]
    # Relocatable, because the folder gets its final name only when it is complete.
    workshop.run(
        "environment",
        [*uv, "venv", "--relocatable", "--python", sys.executable, str(workshop.content)],
        env=env,
    )
    seconds = workshop.run(
        "packages",
        [*uv, "pip", "sync", "--require-hashes", "--python", str(workshop.content / _PYTHON), str(LOCK)],
        env=env,
        still=_downloads_so_far,
    )
    workshop.progress(f"  installed in {seconds:.0f} s")


def _downloads_so_far(log: str) -> str:
    begun = [line.split()[1] for line in log.splitlines() if line.startswith("Downloading ")]
    ended = {line.split()[1] for line in log.splitlines() if line.startswith(" Downloaded ")}
    left = [name for name in begun if name not in ended]
    return f"downloading {', '.join(left)}" if left else "unpacking"
