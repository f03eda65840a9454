"""What this tier installs or builds on first use."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from rehearsal.vllm_cpu.environment import Environment, build_environment
from rehearsal.vllm_cpu.tiny_glm import TinyGlm, gate_rows, trained
from tests.fixtures.stacks import glm
from tests.serving.distribution import build_registry
from tests.serving.launcher import Launcher


@pytest.fixture(scope="session")
def registry_program(progress: Callable[[str], None]) -> Path:
    """The reference registry."""
    return build_registry(progress)


@pytest.fixture(scope="session")
def environment(progress: Callable[[str], None]) -> Environment:
    """The environment that holds vLLM."""
    return build_environment(progress)


@pytest.fixture(scope="session")
def good(environment: Environment, progress: Callable[[str], None]) -> TinyGlm:
    """The model that answers the gate right, trained on first use."""
    return trained(environment, gate_rows(), progress)


@pytest.fixture(scope="session")
def launcher(environment: Environment, good: TinyGlm) -> Generator[Launcher]:
    """Starts servers; vLLM is imported when the model is trained, for both at once would only take longer."""
    assert good.complete()
    with Launcher(environment, glm("prod").env) as started:
        yield started
