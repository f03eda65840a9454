"""The policy pack's own Python environment, built once for each lock and user, and linked to where Pulumi looks for it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.control_plane.install import Progress, Workshop, install_once
from rehearsal.control_plane.python_environment import PYTHON, fill
from rehearsal.run import ROOT

PACK = ROOT / "policy"
LOCK = PACK / "requirements.txt"
"""Exact versions and hashes: the SDK for policies wants another protobuf than the program's lock has."""

LINK = PACK / ".venv"
"""Where PulumiPolicy.yaml says that the environment is."""


def policy_environment(progress: Progress) -> Path:
    """Return the environment's folder, built first if this user has none for the lock; raises ControlPlaneError."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    target = cache_folder() / f"policy-{digest}"
    # The link to the interpreter is followed: one whose Python was removed is built again.
    install_once(target, _build, complete=lambda folder: (folder / PYTHON).exists(), progress=progress)
    return target


def _build(workshop: Workshop) -> None:
    workshop.progress("installing the policy pack's Python packages, once (17 MB to download)")
    workshop.progress(f"  installed in {fill(workshop, LOCK):.0f} s")


def main() -> int:
    """Let `pulumi preview --policy-pack policy` run; an environment that somebody made in its place is left alone."""
    try:
        target = policy_environment(_say)
    except ControlPlaneError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if LINK.is_symlink() or not LINK.exists():
        LINK.unlink(missing_ok=True)
        LINK.symlink_to(target)
    _say(f"{LINK.relative_to(ROOT)} is ready: pulumi preview --policy-pack policy")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
