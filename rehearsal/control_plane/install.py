"""Make a folder in the cache once, however many ask for it: locked, atomic, and nothing half made stays."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rehearsal.control_plane.errors import ControlPlaneError, describe_status, last_lines
from rehearsal.control_plane.supervision import Keeper

Progress = Callable[[str], None]

REPORT_SECONDS = 15.0
"""How often a long job says that it is still at work."""

_POLL_SECONDS = 0.05


class Workshop:
    """A folder in the making, one for temporary files, and a way to run programs that end with this process."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.content = folder / "content"
        self.content.mkdir()
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.progress = progress
        self._folder = folder
        self._keeper = Keeper(folder)

    def run(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        still: Callable[[str], str] = lambda _: "at work",
    ) -> float:
        """Run a program to its end; return the seconds it took. `still` sums up its log so far in a few words."""
        log = self._folder / f"{name}.log"
        begin = time.monotonic()
        reported = begin
        self._keeper.start(name, argv, log=log, cwd=cwd, env=env)
        while name not in (ended := self._keeper.ended()):
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                summary = still(log.read_text(errors="replace"))
                self.progress(f"  {name}: {summary} after {reported - begin:.0f} s")
            time.sleep(_POLL_SECONDS)
        if ended[name] != 0:
            status = describe_status(ended[name])
            raise ControlPlaneError(f"{name} could not be made: {argv[0]} {status}{last_lines(log)}")
        return time.monotonic() - begin

    def close(self) -> None:
        """End what still runs and remove what was not moved away."""
        self._keeper.stop()


def install_once(
    target: Path, make: Callable[[Workshop], None], *, complete: Callable[[Path], bool], progress: Progress
) -> None:
    """Have `make` fill a new folder and give it the name `target`, unless a complete one is there.

    Two processes that ask at the same time make it once: the second waits for the first.
    """
    if complete(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target, progress):
        if complete(target):
            return
        for stale in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        workshop = Workshop(Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)), progress)
        try:
            make(workshop)
            if target.exists():
                shutil.rmtree(target)
            workshop.content.rename(target)
        finally:
            workshop.close()


@contextmanager
def _lock(target: Path, progress: Progress) -> Generator[None]:
    """Hold the lock beside `target`; the system takes it back when this process ends, however it ends."""
    with target.with_name(f"{target.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another process is making {target}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
