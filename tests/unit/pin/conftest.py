"""A lock of the test's own, and a registry on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.catalogue import copied_catalogue
from tests.unit.pin.fake_registry import FakeRegistry


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lock of this test's own; no credentials, and no proxy between the test and its server."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with copied_catalogue(tmp_path, monkeypatch) as folder:
        yield folder / "pins.toml"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    with fake.serving():
        yield fake
