"""What this tier installs or builds on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.serving.distribution import build_registry
from tests.serving.vllm_parser import Flag, Verdict, parse


@pytest.fixture(scope="session")
def ask_vllm(
    progress: Callable[[str], None],
) -> Callable[[Sequence[Sequence[str]]], tuple[list[Verdict], list[Flag]]]:
    """Ask vLLM's parser about command lines."""
    return lambda commands: parse(commands, progress)


@pytest.fixture(scope="session")
def registry_program(progress: Callable[[str], None]) -> Path:
    """The reference registry."""
    return build_registry(progress)
