"""actionlint, built from its pinned Go module: on PyPI is only a package that downloads it from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fixtures.go_tool import build_go_tool


def build_actionlint(progress: Callable[[str], None]) -> Path:
    """Return the program; raise `ControlPlaneError` if it cannot be built."""
    return build_go_tool(Path(__file__).parent, "github.com/rhysd/actionlint/cmd/actionlint", progress)
