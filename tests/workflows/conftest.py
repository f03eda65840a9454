"""actionlint, built on first use with its progress on the terminal, and a stand-in for GitHub's API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workflows.actionlint import build_actionlint
from tests.workflows.github_api import GitHub


@pytest.fixture(scope="session")
def actionlint(progress: Callable[[str], None]) -> Path:
    """The program."""
    return build_actionlint(progress)


@pytest.fixture
def github() -> Iterator[GitHub]:
    """An empty repository on a GitHub of its own."""
    with GitHub() as fake:
        yield fake
