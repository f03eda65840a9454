"""Which process a number means: numbers are given again, births are not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one that was given the same number."""

    pid: int
    birth: str
    """The boot and the moment in it when the process began, as the system tells them."""

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this number now, or None when there is none (a zombie counts as none)."""
        birth = _birth(pid)
        return None if birth is None else cls(pid, birth)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _birth(self.pid) == self.birth

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process, and to no other that has its number by now."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait until the process is gone; return whether it is."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def _birth(pid: int) -> str | None:
    if sys.platform == "linux":
        try:
            # The name in parentheses may hold spaces; state is field 3, start time field 22 (proc_pid_stat(5)).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"
    listing = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return None if not listing or listing.startswith("Z") else listing.partition(" ")[2].strip()
