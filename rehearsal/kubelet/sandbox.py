"""A pod's files and ports on this machine: volumes in a folder, container ports on free ones of loopback."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

from rehearsal.resource import RehearsalError

LOOPBACK = "127.0.0.1"

# Below what systems give to outgoing connections (from 32,768 on Linux): a port stays free until its program binds it.
_PORTS = range(20_000, 30_000)
_ATTEMPTS = 200

_TERMINATION_LOG = "/dev/termination-log"

Object = dict[str, Any]
Read = Callable[[str, str, str], Object | None]
"""Reads an object of the core API by kind, name and namespace."""


@dataclass(frozen=True)
class Sandbox:
    """What stands for a pod's network and file system. `ports` maps container ports to ports of loopback."""

    folder: Path
    pod: Object
    ports: Mapping[int, int]
    address: str

    def port(self, container: Object, port: int | str) -> int:
        """Return the port of loopback for a container's port, given by number or by name."""
        named = {row.get("name"): row["containerPort"] for row in container.get("ports") or []}
        return self.ports[port if isinstance(port, int) else named[port]]

    def log(self, container: str, restart: int) -> Path:
        """Return the file that a container's output goes to, from its first start (0) or from a later one."""
        return self.folder / f"{container}.{restart}.log"

    def working_folder(self, container: Object) -> Path:
        """Return the folder that a container starts in."""
        folder = container.get("workingDir")
        return Path(self._here(folder, container)) if folder else self.folder

    def termination_message(self, container: str) -> Path:
        """Return the file that a container leaves its last words in."""
        return self.folder / f"{container}.last-words"

    def argv(self, container: Object) -> list[str]:
        """Return a container's command line as it has to be on this machine."""
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        return [self._here(_expanded(word, self._variables(container)), container) for word in words]

    def env(self, container: Object) -> dict[str, str]:
        """Return a container's environment as it has to be on this machine."""
        return {name: self._here(value, container) for name, value in self._variables(container).items()}

    def _variables(self, container: Object) -> dict[str, str]:
        """Return a container's environment as Kubernetes makes it: a variable may refer to those before it."""
        variables: dict[str, str] = {}
        for row in container.get("env") or []:
            variables[row["name"]] = (
                self._from(row["valueFrom"]) if "valueFrom" in row else _expanded(row.get("value", ""), variables)
            )
        return variables

    def _from(self, source: Object) -> str:
        if source.get("fieldRef", {}).get("fieldPath") != "status.podIP":
            raise RehearsalError(f"a variable from {source} is not rehearsed")
        return self.address

    def _here(self, text: str, container: Object) -> str:
        """Translate paths of mounts and addresses of the pod in a word of a command line or a variable."""
        places = self._places(container)
        # In one pass, the longest first: a place here may itself look like a path of the container.
        paths = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
        text = re.sub(rf"(?<![\w/])(?:{paths})(?=$|[/:;,\s])", lambda match: str(places[match[0]]), text)
        for port, here in self.ports.items():
            text = re.sub(rf"\b(?:localhost|127\.0\.0\.1|0\.0\.0\.0):{port}\b", f"{LOOPBACK}:{here}", text)
        return text

    def _places(self, container: Object) -> dict[str, Path]:
        """Return every path that means something in the container, with its place here."""
        volumes = self.folder / "volumes"
        mounts = container.get("volumeMounts") or []
        return {
            **{mount["mountPath"]: volumes / mount["name"] / mount.get("subPath", "") for mount in mounts},
            container.get("terminationMessagePath", _TERMINATION_LOG): self.termination_message(container["name"]),
        }


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does: an unknown name stays as it is."""
    return re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), text)


def sandbox(pod: Object, folder: Path, read: Read, address: str) -> Sandbox:
    """Make a pod's sandbox: a folder with its volumes, a free port for each of its ports; `address` is the pod's own."""
    for volume in pod["spec"].get("volumes") or []:
        _fill(volume, pod["metadata"]["namespace"], folder / "volumes" / volume["name"], read)
    containers: Sequence[Object] = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    declared = [row["containerPort"] for container in containers for row in container.get("ports") or []]
    return Sandbox(folder, pod, {port: free_port() for port in declared}, address)


def _fill(volume: Object, namespace: str, folder: Path, read: Read) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = volume.get("configMap")
    if source is None:
        return
    found = read("ConfigMap", source["name"], namespace)
    if found is None:
        raise RehearsalError(
            f'MountVolume.SetUp failed for volume "{volume["name"]}": configmap "{source["name"]}" not found'
        )
    files = {key: text.encode() for key, text in (found.get("data") or {}).items()}
    files |= {key: base64.b64decode(data) for key, data in (found.get("binaryData") or {}).items()}
    places = {row["key"]: row["path"] for row in source.get("items") or []} or {key: key for key in files}
    for key, path in places.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(files[key])


def free_port() -> int:
    """Return a port of loopback that nobody listens at; raise `RehearsalError` if there is none."""
    for port in SystemRandom().sample(_PORTS, _ATTEMPTS):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RehearsalError(f"no free port between {_PORTS.start} and {_PORTS.stop}")
