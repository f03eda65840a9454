"""The reference registry, github.com/distribution/distribution: built once for each user, run on loopback for the tests."""

from __future__ import annotations

import hashlib
import platform
import re
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from rehearsal.control_plane.build import packages_so_far
from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.errors import last_lines
from rehearsal.control_plane.install import Workshop, install_once
from rehearsal.control_plane.supervision import Keeper
from rehearsal.control_plane.toolchain import find_go
from tests.fixtures.images import CONFIG, digest_of, manifest

_MODULE = Path(__file__).with_name("module")
_PROGRAM = "registry"
_BUILD_FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")
_START_SECONDS = 60.0


def build_registry(progress: Callable[[str], None]) -> Path:
    """The registry's program, built first if this user has none for these modules, flags and platform."""
    parts = [(_MODULE / name).read_text(encoding="utf-8") for name in ("go.mod", "go.sum", "main.go")]
    key = hashlib.sha256(repr([*parts, _BUILD_FLAGS, sys.platform, platform.machine()]).encode()).hexdigest()[:12]
    target = cache_folder() / f"registry-{key}"
    install_once(target, _build, complete=lambda folder: (folder / _PROGRAM).is_file(), progress=progress)
    return target / _PROGRAM


def _build(workshop: Workshop) -> None:
    go, environment = find_go(workshop.progress)
    workshop.progress(f"building a container registry for the tests, once, with {go}")
    argv = [str(go), "build", "-v", *_BUILD_FLAGS, "-o", str(workshop.content / _PROGRAM), "."]
    environment |= {"GOTMPDIR": str(workshop.scratch)}
    seconds = workshop.run(_PROGRAM, argv, cwd=_MODULE, env=environment, still=packages_so_far)
    workshop.progress(f"  built in {seconds:.0f} s")


@dataclass(frozen=True)
class Registry:
    """A running registry; `authorization` is what it wants from those who push."""

    host: str
    authorization: Mapping[str, str]

    @property
    def url(self) -> str:
        """What --registry takes."""
        return f"http://{self.host}"

    def push_image(self, repository: str, name: str) -> None:
        """Push an image without layers, to be named by an index."""
        document, config = manifest(name)
        self._push_blob(repository, config)
        self.push(repository, digest_of(document), document, "application/vnd.oci.image.manifest.v1+json")

    def push(self, repository: str, reference: str, document: bytes, media_type: str) -> str:
        """Push a manifest or an index under a tag; return the digest that the registry gives it."""
        answer = self._ask("PUT", f"/v2/{repository}/manifests/{reference}", content=document, media_type=media_type)
        return answer.headers["docker-content-digest"]

    def delete(self, repository: str, reference: str) -> None:
        """Delete a tag, or a manifest by its digest."""
        self._ask("DELETE", f"/v2/{repository}/manifests/{reference}")

    def _push_blob(self, repository: str, content: bytes) -> None:
        upload = self._ask("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
        self._ask("PUT", upload, content=content, params={"digest": digest_of(content)}, media_type=CONFIG)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        params: Mapping[str, str] | None = None,
        media_type: str = "",
    ) -> httpx2.Response:
        url = httpx2.URL(self.url).join(path).copy_merge_params(dict(params or {}))
        headers = {**self.authorization, **({"Content-Type": media_type} if media_type else {})}
        answer = httpx2.request(method, url, content=content, headers=headers)
        assert answer.is_success, answer.text
        return answer


@contextmanager
def running(
    program: Path,
    folder: Path,
    *,
    auth: Mapping[str, Any] | None = None,
    authorization: Mapping[str, str] | None = None,
) -> Generator[Registry]:
    """Run a registry on a free port of loopback, with its data in memory; `auth` is that section of its configuration."""
    folder.mkdir()
    settings: dict[str, Any] = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"inmemory": {}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
        **({"auth": auth} if auth else {}),
    }
    configuration, log = folder / "config.yaml", folder / "registry.log"
    configuration.write_text(yaml.safe_dump(settings), encoding="utf-8")
    keeper = Keeper(folder)
    try:
        argv = [str(program), "serve", str(configuration)]
        keeper.start(_PROGRAM, argv, log=log, env={"OTEL_TRACES_EXPORTER": "none"})
        yield Registry(_host(keeper, log), authorization or {})
    finally:
        keeper.stop()


def _host(keeper: Keeper, log: Path) -> str:
    """Wait until the registry says where it listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and _PROGRAM not in keeper.ended():
        said = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(encoding="utf-8"))
        if said:
            return said[1]
        time.sleep(0.02)
    raise AssertionError(f"the registry does not listen{last_lines(log)}")
