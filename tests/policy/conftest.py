"""The pack's analyzer, started once for all tests of this tier, in the pack's own environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rehearsal.policy_environment import PACK, policy_environment
from tests.policy.analyzer import Analyzer, running


@pytest.fixture(scope="session")
def environment(progress: Callable[[str], None]) -> Path:
    """The pack's Python environment."""
    return policy_environment(progress)


@pytest.fixture(scope="session")
def _pack(environment: Path) -> Iterator[Analyzer]:
    with running(environment, PACK) as analyzer:
        yield analyzer


@pytest.fixture
def pack(_pack: Analyzer) -> Iterator[Analyzer]:
    """The running pack, with every policy at its own level."""
    yield _pack
    _pack.configure({})
