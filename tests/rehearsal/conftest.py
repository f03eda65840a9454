"""One control plane for the whole tier: building it takes minutes the first time, starting it seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rehearsal.control_plane import ControlPlane, Programs, build_programs


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> Programs:
    """The control plane's programs, built on first use with its progress on the terminal."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    writer = request.config.get_terminal_writer()

    def progress(line: str) -> None:
        with capture.global_and_fixture_disabled():
            writer.line(line)
            writer.flush()

    return build_programs(progress)


@pytest.fixture(scope="session")
def control_plane(programs: Programs) -> Iterator[ControlPlane]:
    """A running control plane. Tests share it: each keeps to a namespace and to nodes of its own."""
    with ControlPlane(programs) as plane:
        yield plane
    assert plane.leftovers() == []
