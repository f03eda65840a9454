"""actionlint, built on first use with its progress on the terminal, and a stand-in for GitHub's API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.actionlint import build_actionlint
from tests.workflows.github_api import GitHub


@pytest.fixture(scope="session")
def actionlint(request: pytest.FixtureRequest) -> Path:
    """The program."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    writer = request.config.get_terminal_writer()

    def progress(line: str) -> None:
        with capture.global_and_fixture_disabled():
            writer.line(line)
            writer.flush()

    return build_actionlint(progress)


@pytest.fixture
def github() -> Iterator[GitHub]:
    """An empty repository on a GitHub of its own."""
    with GitHub() as fake:
        yield fake
