"""Control planes that were left running on purpose: a record of each, and how to stop them later."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rehearsal.control_plane.access import write_private
from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.control_plane.identity import Process
from rehearsal.control_plane.supervision import STOP_SECONDS, end_remains

DIRECTORY_PREFIX = "control-plane-"
"""How the name of every control plane's directory begins."""


@dataclass(frozen=True)
class Kept:
    """One control plane that outlives the process that started it."""

    directory: str
    server: str
    kubeconfig: str
    keeper: Process
    programs: dict[str, Process]

    def alive(self) -> list[str]:
        """Its processes that still run, as `name (pid n)`."""
        everything = {**self.programs, "keeper": self.keeper}
        return [f"{name} (pid {process.pid})" for name, process in everything.items() if process.alive()]

    def leftovers(self) -> list[str]:
        """What there still is of it, processes and directory: empty after `stop` when all is well."""
        return self.alive() + ([self.directory] if Path(self.directory).exists() else [])

    def stop(self) -> None:
        """End its processes, by number only where the number still means the same process, and remove its files."""
        self.keeper.signal(signal.SIGTERM)
        if not self.keeper.wait(STOP_SECONDS):
            self.keeper.signal(signal.SIGKILL)
        end_remains(self.programs.values(), Path(self.directory))


def record(kept: Kept) -> None:
    """Remember a control plane for a later `stop_all`."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_private(folder / f"{Path(kept.directory).name}.json", json.dumps(asdict(kept), indent=2))


def stop_all() -> list[Kept]:
    """Stop every remembered control plane of this user and forget it; return what there was to stop."""
    stopped: list[Kept] = []
    for file in sorted(_folder().glob("*.json")):
        kept = _read(file)
        kept.stop()
        stopped.append(kept)
        file.unlink()
    return stopped


def _folder() -> Path:
    return cache_folder() / "kept"


def _read(file: Path) -> Kept:
    """A record, if it is one beyond doubt: what it names is going to be killed and deleted."""
    try:
        fields: dict[str, Any] = json.loads(file.read_text())
        programs = {name: Process(**process) for name, process in fields.pop("programs").items()}
        kept = Kept(keeper=Process(**fields.pop("keeper")), programs=programs, **fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _not_a_record(file) from None
    name = Path(kept.directory).name
    if name != file.stem or not name.startswith(DIRECTORY_PREFIX):
        raise _not_a_record(file)
    return kept


def _not_a_record(file: Path) -> ControlPlaneError:
    return ControlPlaneError(
        f"{file} is not the record of a kept control plane: end its processes yourself, then delete the file"
    )
