"""The one error of this package, and how it quotes what a program left behind."""

from __future__ import annotations

import signal
from pathlib import Path

QUOTED_LINES = 12
QUOTED_CHARACTERS = 2000


class ControlPlaneError(Exception):
    """A control plane could not be built, started or kept running; the message is written for a person."""


def describe_status(status: int) -> str:
    """How a program ended, from its exit status as `subprocess` gives it: negative for a signal."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"


def last_lines(log: Path) -> str:
    """The end of a log, to follow a sentence: a semicolon, and the lines indented below it."""
    try:
        text = log.read_text(errors="replace").strip()
    except FileNotFoundError:
        text = ""
    if not text:
        return "; it wrote nothing"
    lines = text[-QUOTED_CHARACTERS:].splitlines()[-QUOTED_LINES:]
    return "; its last lines:\n" + "\n".join(f"    {line}" for line in lines)
