"""vLLM's own argument parser, installed on first use with its progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.serving.vllm_parser import Flag, Verdict, parse


@pytest.fixture(scope="session")
def ask_vllm(request: pytest.FixtureRequest) -> Callable[[Sequence[Sequence[str]]], tuple[list[Verdict], list[Flag]]]:
    """Ask vLLM's parser about command lines."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    writer = request.config.get_terminal_writer()

    def progress(line: str) -> None:
        with capture.global_and_fixture_disabled():
            writer.line(line)
            writer.flush()

    return lambda commands: parse(commands, progress)
