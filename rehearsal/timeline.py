"""What a watcher sees of a rehearsal: a timeline while it runs, a verdict at its end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

_TOPIC_STYLES = {
    "plan": "cyan",
    "setup": "bright_black",
    "preview": "magenta",
    "policy": "cyan",
    "aws": "yellow",
    "cluster": "blue",
    "nodes": "blue",
    "kubernetes": "blue",
    "pods": "green",
    "kubectl": "red",
    "gate": "bold green",
    "client": "cyan",
    "update": "magenta",
    "upgrade": "magenta",
    "teardown": "bright_black",
}


class Timeline:
    """Lines with the seconds since the start; safe to call from any thread. Recorded so that a picture can be exported."""

    def __init__(self, console: Console | None = None, width: int | None = None) -> None:
        self.console = console or Console(record=True, highlight=False, width=width)
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def tell(self, topic: str, line: str) -> None:
        """Add a line under a topic."""
        seconds = time.monotonic() - self._start
        text = Text(f"{seconds:6.1f} s  ", style="dim")
        text.append(f"{topic:<11}", style=_TOPIC_STYLES.get(topic, ""))
        text.append(line, style="default not dim")
        with self._lock:
            self.console.print(text, soft_wrap=True)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def verdict(self, title: str, *, passed: bool, rows: Iterable[tuple[str, str]]) -> None:
        """Print the verdict with what it rests on."""
        rows = list(rows)
        labels = max(len(label) for label, _ in rows)
        with self._lock:
            self.console.print()
            mark, style = ("✓", "bold green") if passed else ("✗", "bold red")
            self.console.print(Text(f"{mark} {title}", style=style), soft_wrap=True)
            for label, value in rows:
                # Not folded: some of these lines are there to be copied.
                line = Text(f"  {label:<{labels}}  ", style="dim")
                self.console.print(line.append(value, style="default not dim"), soft_wrap=True)

    def save_picture(self, path: Path, title: str) -> None:
        """Write everything printed so far as an SVG."""
        svg = self.console.export_svg(title=title)
        # Rich's template names fonts on a server of others; a picture in a repository loads nothing from elsewhere.
        path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")
