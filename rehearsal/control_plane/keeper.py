"""The process between this project and the programs it starts: when one side goes, so does the other.

Run as a script of its own (``python -I -S keeper.py DIRECTORY``), standard library only. It starts programs on
request, reports when one of them ends, and when its own starter is gone -- returned, raised, interrupted, killed --
it ends every program, the last started first, and removes DIRECTORY. A starter that is killed with SIGKILL cannot
clean up; this can.

It is a process rather than a `preexec_fn` in the starter because Linux ties a parent-death signal to the *thread*
that forked, and the rehearsal starts things from threads that end long before the rehearsal does.

Requests on standard input, answers on standard output, one JSON object a line:

    {"start": name, "argv": [...], "log": path, "cwd": path or null, "env": {...} or null}
        -> {"started": name, "pid": n}  or  {"refused": name, "reason": text}
    {"detach": true}
        -> {"detached": true}; from then on only SIGTERM ends it
    (a program ended) -> {"ended": name, "status": exit status, negative for a signal}
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

GRACE_SECONDS = 1.0
"""How long one program may take to end after SIGTERM. kube-apiserver, the slowest, takes about one second."""

ORPHAN_CHECK_SECONDS = 0.5
"""How often to look whether the starter is still the parent: a child that it forked may hold the pipe open."""

_PR_SET_PDEATHSIG = 1


class _Keeper:
    """The started programs, in the order of their start, and the reasons to end them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pid = os.getpid()
        self._parent = os.getppid()
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._detached = False
        self._ending = False
        self._input = b""
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def run(self) -> None:
        """Serve requests until there is a reason to end, then end everything."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake)
        signal.signal(signal.SIGTERM, self._end)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(0, selectors.EVENT_READ)
                selector.register(wake, selectors.EVENT_READ)
                while not self._ending:
                    for key, _ in selector.select(ORPHAN_CHECK_SECONDS):
                        chunk = os.read(key.fd, 65536)
                        if key.fd == 0 and not self._receive(chunk):
                            selector.unregister(0)
                    self._report_ended()
                    self._check_parent()
        finally:
            self._end_programs()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _end(self, *_: object) -> None:
        self._ending = True

    def _check_parent(self) -> None:
        if not self._detached and os.getppid() != self._parent:
            self._ending = True

    def _receive(self, chunk: bytes) -> bool:
        """Take what came on standard input; return whether more may come."""
        if not chunk:
            self._ending = self._ending or not self._detached
            return False
        *lines, self._input = (self._input + chunk).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return True

    def _obey(self, request: dict[str, Any]) -> None:
        if "start" in request:
            self._start(request)
        elif "detach" in request:
            self._detached = True
            _answer({"detached": True})

    def _start(self, request: dict[str, Any]) -> None:
        name: str = request["start"]
        try:
            with Path(request["log"]).open("ab") as log:
                program = subprocess.Popen(
                    request["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=request["cwd"],
                    env=request["env"],
                    process_group=0,
                    preexec_fn=self._die_with_keeper,  # noqa: PLW1509 -- this process has one thread
                )
        except OSError as error:
            _answer({"refused": name, "reason": error.strerror or str(error)})
            return
        self._programs[name] = program
        _answer({"started": name, "pid": program.pid})

    def _die_with_keeper(self) -> None:
        """In the new process: have the kernel end it should this keeper itself be killed."""
        if self._libc is not None:
            self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
            if os.getppid() != self._pid:
                os._exit(1)

    def _report_ended(self) -> None:
        for name, program in list(self._programs.items()):
            if program.poll() is not None:
                # Now or never: once the leader is reaped its number may be given to a stranger.
                _signal_group(program, signal.SIGKILL)
                del self._programs[name]
                _answer({"ended": name, "status": program.returncode})

    def _end_programs(self) -> None:
        for program in reversed(self._programs.values()):
            if program.poll() is None:
                _signal_group(program, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.wait(GRACE_SECONDS)
            # Also after an orderly end: a program's own children share its group and may have outlived it.
            _signal_group(program, signal.SIGKILL)
            program.wait()


def _wake(number: int, frame: object) -> None:
    """Do nothing: a signal with a handler is what writes to the wake-up pipe."""
    del number, frame


def _signal_group(program: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, number)


def _answer(message: dict[str, Any]) -> None:
    # The starter may be gone by now; then nobody waits for an answer.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    _Keeper(Path(sys.argv[1])).run()
