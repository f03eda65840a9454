"""Programs that cannot outlive this process: the starter's side of keeper.py."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.control_plane.identity import Process

ANSWER_SECONDS = 30.0
"""How long the keeper may take to answer. It needs milliseconds; a machine that swaps needs more."""

STOP_SECONDS = 40.0
"""How long the keeper may take to end everything: five programs, a second of grace each, and a margin."""

_SCRIPT = Path(__file__).with_name("keeper.py")


class Keeper:
    """A running keeper.py: starts programs, knows which have ended, ends all of them and removes the directory.

    Safe to use from several threads. A program never outlives this object's process, however that process ends,
    unless `detach` was called.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._pending = b""
        self._programs: dict[str, Process] = {}
        self._ended: dict[str, int] = {}
        with (directory / "keeper.log").open("ab") as log:
            self._process = subprocess.Popen(
                # -I and -S: nothing of the caller's environment decides what this runs, and it starts at once.
                [sys.executable, "-I", "-S", str(_SCRIPT), str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.process = Process.of(self._process.pid)

    @property
    def programs(self) -> dict[str, Process]:
        """What was started, by name, in the order of the start; ended ones included."""
        return dict(self._programs)

    def everything(self) -> dict[str, Process]:
        """The programs, and the keeper itself under that name."""
        return self.programs | ({} if self.process is None else {"keeper": self.process})

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start a program that writes to `log`; an environment of None is this process's own."""
        request = {
            "start": name,
            "argv": list(argv),
            "log": str(log),
            "cwd": None if cwd is None else str(cwd),
            "env": None if env is None else dict(env),
        }
        answer = self._ask(request, ("started", "refused"))
        if "refused" in answer:
            raise ControlPlaneError(f"{name} could not be started: {argv[0]}: {answer['reason']}")
        # It may have ended already; then it has no birth to read, and `ended` will tell.
        self._programs[name] = Process.of(answer["pid"]) or Process(answer["pid"], "ended")

    def ended(self) -> dict[str, int]:
        """The programs that have ended, with their exit status (negative: the signal that ended them)."""
        with self._lock:
            self._read(0.0)
            return dict(self._ended)

    def detach(self) -> None:
        """Let the programs live on after this process; only a SIGTERM to the keeper ends them then."""
        self._ask({"detach": True}, ("detached",))

    def stop(self) -> None:
        """End every program, the last started first, and remove the directory. Safe to call again."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            stdout.close()
        end_remains(self._programs.values(), self.directory)

    def _ask(self, request: dict[str, Any], expected: tuple[str, ...]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                raise self._gone() from None
            deadline = time.monotonic() + ANSWER_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                for message in self._read(left):
                    if any(key in message for key in expected):
                        return message
        raise self._gone()

    def _gone(self) -> ControlPlaneError:
        return ControlPlaneError(
            f"the keeper of the control plane's programs (pid {self._process.pid}) does not answer: was it killed?"
        )

    def _read(self, seconds: float) -> list[dict[str, Any]]:
        """Take what the keeper has said, waiting up to `seconds` for it; the caller holds the lock."""
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while selector.select(seconds):
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    raise self._gone()
                self._pending += chunk
                seconds = 0.0
        *lines, self._pending = self._pending.split(b"\n")
        messages: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._ended.update({said["ended"]: said["status"] for said in messages if "ended" in said})
        return messages


def end_remains(programs: Iterable[Process], directory: Path) -> None:
    """Kill what a keeper that was itself killed has left, and remove its directory."""
    remaining = [program for program in programs if program.alive()]
    for program in remaining:
        program.signal(signal.SIGKILL)
    for program in remaining:
        program.wait(STOP_SECONDS)
    shutil.rmtree(directory, ignore_errors=True)
