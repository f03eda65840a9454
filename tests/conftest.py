from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# What programs print is compared word for word: no terminal and no CI service may ask them for colours.
for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"):
    os.environ.pop(name, None)

# The same examples on every machine and every run: a property that fails here fails for everybody.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("fixed")

# Each collection of the oldest generation walks all that was ever imported, Pulumi's SDKs with it: an eighth of the time of a
# run. What tests leave open is looked for once, in the end: `everything_is_closed`.
gc.set_threshold(20_000, 50, 50)


_IN_PROCESSES = {"unit", "graph", "policy"}  # the other tiers share one control plane, one engine, one vLLM


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run whole tiers in a process for each core; what is picked by hand starts sooner in this one."""
    tiers = {Path(argument).name for argument in config.args}
    return None if tiers <= _IN_PROCESSES else 0


@pytest.fixture(scope="session", autouse=True)
def temporary_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every `tmp_path` lies: made before any test names another TMPDIR, or it would lie in that test's folder."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session", autouse=True)
def everything_is_closed() -> Generator[None]:
    """Fail the last test of a process if one of its tests left a file or a socket open: xdist loses what is said later."""
    yield
    gc.collect()
    gc.freeze()  # what is left is imported: to walk it again on the way out takes seconds


@pytest.fixture(scope="session")
def progress(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write a line past pytest's capture, for what takes minutes the first time."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(line, file=sys.__stderr__, flush=True)

    return write
