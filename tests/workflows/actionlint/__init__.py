"""actionlint, built from its pinned Go module once for each user: on PyPI is only a package that downloads it from elsewhere."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.install import Workshop, install_once
from rehearsal.control_plane.toolchain import find_go

_MODULE = Path(__file__).parent
_PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint"


def build_actionlint(progress: Callable[[str], None]) -> Path:
    """Return the program, built first if this user has none for the lock and platform.

    Raises `ControlPlaneError` if it does not build or no Go can be had, with the end of the log.
    """
    parts = [(_MODULE / name).read_text(encoding="utf-8") for name in ("go.mod", "go.sum")]
    key = hashlib.sha256("\0".join([*parts, sys.platform, platform.machine()]).encode()).hexdigest()[:12]
    target = cache_folder() / f"actionlint-{key}"
    install_once(target, _build, complete=lambda folder: (folder / "actionlint").is_file(), progress=progress)
    return target / "actionlint"


def _build(workshop: Workshop) -> None:
    go, environment = find_go(workshop.progress)
    workshop.progress(f"building actionlint, once, with {go}")
    seconds = workshop.run(
        "actionlint",
        [str(go), "build", "-trimpath", "-buildvcs=false", "-o", str(workshop.content / "actionlint"), _PACKAGE],
        cwd=_MODULE,
        env=environment | {"GOTMPDIR": str(workshop.scratch)},
    )
    workshop.progress(f"  actionlint: built in {seconds:.0f} s")
