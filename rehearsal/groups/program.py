"""The LeaderWorkerSet controller's own program and what its chart brings beside it, from the pinned Go module, into the cache.

It is built apart from the control plane, and only where a stack has groups: it needs another release of Kubernetes' libraries,
and nobody else should wait for it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from rehearsal.control_plane.build import packages_so_far
from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.control_plane.install import Workshop, install_once
from rehearsal.control_plane.toolchain import find_go

VERSION = "v0.7.0"
"""The release that module/go.mod requires and that a stack's chart is of; a test holds the three together."""

_MODULE = "sigs.k8s.io/lws"
_FOLDER = Path(__file__).with_name("module")
_PROGRAM = "lws"
_FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w -X {_MODULE}/pkg/version.GitVersion={VERSION}"]

_DEFINITION = Path("config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml")
_WEBHOOKS = Path("charts/lws/templates/webhook/webhook.yaml")
# The one thing that the chart fills in there is the namespace of a Service, which a rehearsal's webhooks do not have.
_NAMESPACE = "{{ .Release.Namespace }}"

Object = dict[str, Any]


@dataclass(frozen=True)
class ControllerProgram:
    """A folder with the controller and its manifests."""

    folder: Path

    @property
    def path(self) -> Path:
        """The executable."""
        return self.folder / _PROGRAM

    def definition(self) -> Object:
        """Return the CustomResourceDefinition."""
        return self._read("definition.json")[0]

    def webhooks(self) -> list[Object]:
        """Return the webhook configurations of the chart."""
        return self._read("webhooks.json")

    def complete(self) -> bool:
        """Whether everything is there."""
        return all((self.folder / name).is_file() for name in (_PROGRAM, "definition.json", "webhooks.json"))

    def _read(self, name: str) -> list[Object]:
        return cast("list[Object]", json.loads((self.folder / name).read_text(encoding="utf-8")))


def build_controller(progress: Callable[[str], None]) -> ControllerProgram:
    """Return the controller, built first if this user has none for this module, flags and platform.

    Raises:
        ControlPlaneError: it does not build, or no Go can be had; quotes the end of the log.

    """
    controller = ControllerProgram(cache_folder() / f"leader-worker-set-{_key()}")
    install_once(
        controller.folder, _build, complete=lambda folder: ControllerProgram(folder).complete(), progress=progress
    )
    return controller


def _key() -> str:
    """What the program depends on, as 12 hexadecimal digits."""
    locks = [(_FOLDER / name).read_text(encoding="utf-8") for name in ("go.mod", "go.sum")]
    parts = [*locks, repr([_FLAGS, sys.platform, platform.machine()])]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _build(workshop: Workshop) -> None:
    go, environment = find_go(workshop.progress)
    # A go command that is ended early leaves its temporary files; here they go with the workshop.
    environment |= {"GOTMPDIR": str(workshop.scratch)}
    workshop.progress(f"building the LeaderWorkerSet controller ({VERSION}), once, with {go}")
    seconds = workshop.run(
        _PROGRAM,
        [str(go), "build", "-v", *_FLAGS, "-o", str(workshop.content / _PROGRAM), f"{_MODULE}/cmd"],
        cwd=_FOLDER,
        env=environment,
        still=packages_so_far,
    )
    size = (workshop.content / _PROGRAM).stat().st_size
    workshop.progress(f"  {_PROGRAM}: built in {seconds:.0f} s ({size / 1e6:.0f} MB)")
    source = _source(go, environment)
    _write(workshop.content / "definition.json", (source / _DEFINITION).read_text(encoding="utf-8"))
    _write(workshop.content / "webhooks.json", (source / _WEBHOOKS).read_text(encoding="utf-8"))


def _source(go: Path, environment: dict[str, str]) -> Path:
    """Return the folder that the module's source was unpacked in."""
    command = [str(go), "list", "-m", "-f", "{{.Dir}}", _MODULE]
    answer = subprocess.run(command, cwd=_FOLDER, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode or not answer.stdout.strip():
        raise ControlPlaneError(f"{' '.join(command)}: {answer.stderr.strip() or 'names no folder'}")
    return Path(answer.stdout.strip())


def _write(path: Path, documents: str) -> None:
    """Keep YAML documents as JSON: the definition is 1.2 MB, which takes seconds to parse as YAML."""
    objects = list(yaml.safe_load_all(documents.replace(_NAMESPACE, "lws-system")))
    path.write_text(json.dumps(objects), encoding="utf-8")
