"""Build the control plane's programs from pinned Go modules, once for each user, into the cache."""

from __future__ import annotations

import hashlib
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.install import Progress, Workshop, install_once
from rehearsal.control_plane.toolchain import find_go

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
}
"""Each program and the Go package that is its main package."""

KUBERNETES_VERSION = "v1.36.3"
"""The version that modules/go.mod requires; a test holds the two together."""

_MODULES = Path(__file__).with_name("modules")

_VERSION_PACKAGE = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
_LINKER_FLAGS = [
    # No symbol tables, no debug information: nobody debugs these here, and the cache folder stays small.
    "-s -w",
    # Kubernetes' own build sets these; without them clients cannot parse the version the API server tells.
    f"-X {_VERSION_PACKAGE}.gitVersion={KUBERNETES_VERSION}",
    f"-X {_VERSION_PACKAGE}.gitMajor={_MAJOR}",
    f"-X {_VERSION_PACKAGE}.gitMinor={_MINOR}",
]
_BUILD_FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(_LINKER_FLAGS)]


@dataclass(frozen=True)
class Programs:
    """A folder that holds the control plane's programs."""

    folder: Path

    def path(self, name: str) -> Path:
        """The executable of one of `PACKAGES`."""
        return self.folder / name

    def complete(self) -> bool:
        """Whether every program is there."""
        return all(self.path(name).is_file() for name in PACKAGES)


def build_programs(progress: Progress) -> Programs:
    """The control plane's programs, built first if this user has none for these modules, flags and platform.

    A cold build takes minutes; `progress` gets a line for each program and one every few seconds in between.

    Raises:
        ControlPlaneError: a program does not build, or no Go can be had; names it and quotes the end of the log.

    """
    programs = Programs(cache_folder() / f"control-plane-{_key()}")
    install_once(programs.folder, _build, complete=lambda folder: Programs(folder).complete(), progress=progress)
    return programs


def _key() -> str:
    """What the built programs depend on, as 12 hexadecimal digits."""
    parts = [
        (_MODULES / "go.mod").read_text(),
        (_MODULES / "go.sum").read_text(),
        repr([PACKAGES, _BUILD_FLAGS, sys.platform, platform.machine()]),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _build(workshop: Workshop) -> None:
    go, environment = find_go(workshop.progress)
    workshop.progress(f"building the control plane (Kubernetes {KUBERNETES_VERSION}), once, with {go}")
    for number, (name, package) in enumerate(PACKAGES.items(), start=1):
        workshop.progress(f"  {name}: {number} of {len(PACKAGES)}")
        binary = workshop.content / name
        seconds = workshop.run(
            name,
            # -v names each package as it is compiled: the only sign of life in the minutes before linking.
            [str(go), "build", "-v", *_BUILD_FLAGS, "-o", str(binary), package],
            cwd=_MODULES,
            # A go command that is ended early leaves its temporary files; here they go with the workshop.
            env=environment | {"GOTMPDIR": str(workshop.scratch)},
            still=packages_so_far,
        )
        workshop.progress(f"  {name}: built in {seconds:.0f} s ({binary.stat().st_size / 1e6:.0f} MB)")


def packages_so_far(log: str) -> str:
    """Sum up what `go build -v` has written so far."""
    compiled = sum(1 for line in log.splitlines() if line and not line.startswith("go: "))
    downloaded = sum(1 for line in log.splitlines() if line.startswith("go: downloading "))
    return f"{downloaded} modules downloaded, {compiled} packages compiled"
