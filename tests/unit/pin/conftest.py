"""A lock of the test's own, and a registry on loopback."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2
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


@pytest.fixture(scope="session")
def certificates() -> ssl.SSLContext:
    """The certificates that a client trusts."""
    return httpx2.create_ssl_context()


@pytest.fixture(autouse=True)
def trusted(certificates: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients share certificates: each would read its own, in more time than a whole command takes, and none needs any."""
    monkeypatch.setattr(httpx2, "Client", partial(httpx2.Client, verify=certificates))


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    with fake.serving():
        yield fake
