"""`python -m serving pin` against the reference registry: what it serves, challenges and deletes is nobody's invention."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving import catalogue
from serving.__main__ import ACCEPTED, NO_ANSWER, REFUSED, main
from tests.fixtures.catalogue import copied_catalogue, forget
from tests.fixtures.images import INDEX, MANIFEST, MANIFEST_LIST, index, manifest
from tests.serving.distribution import Registry, running
from tests.unit.pin.fake_registry import FakeRegistry, Reply, Request

VLLM = "vllm/vllm-openai"
PLATFORMS = ("linux/amd64", "linux/arm64")

# A user of the registry, and the bcrypt hash of the password, as a line of htpasswd's.
USER, PASSWORD = "ann", "secret"
HTPASSWD = "ann:$2a$04$HwVOrUT8Z5bHVdZh2wmBcuycR3aXkkh8wNNgLXC6MaA.YfrEIYJLW"

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with copied_catalogue(tmp_path, monkeypatch) as folder:
        yield folder / "pins.toml"


@pytest.fixture
def registry(registry_program: Path, tmp_path: Path) -> Iterator[Registry]:
    with running(registry_program, tmp_path / "registry") as here:
        yield here


def publish(registry: Registry, tag: str, *platforms: str, repository: str = VLLM, media_type: str = INDEX) -> str:
    """Push an index with its images, as a release does; return the digest that the registry gives it."""
    for platform in (*platforms, "attestation"):
        registry.push_image(repository, f"{tag} {platform}")
    return registry.push(repository, tag, index(*platforms, name=tag, media_type=media_type), media_type)


def pin(registry: Registry, *words: str) -> int:
    return main(["pin", *words, "--registry", registry.url])


@pytest.mark.parametrize("media_type", [INDEX, MANIFEST_LIST])
def test_the_digest_is_the_registrys(registry: Registry, media_type: str) -> None:
    digest = publish(registry, "v0.33.0", *PLATFORMS, media_type=media_type)
    assert pin(registry, "vllm", "0.33.0") == ACCEPTED
    forget()
    assert catalogue.engine("0.33.0").digest == digest
    assert catalogue.pins()["vllm"]["v0.33.0"].source == (
        f"{registry.host}/{VLLM}: an index of linux/amd64 and linux/arm64"
    )
    assert pin(registry, "vllm", "0.33.0", "--check") == ACCEPTED


def test_a_mirror_below_a_path(registry: Registry) -> None:
    digest = publish(registry, "v0.33.0", *PLATFORMS, repository=f"docker-hub/{VLLM}")
    assert main(["pin", "vllm", "0.33.0", "--registry", f"{registry.url}/docker-hub"]) == ACCEPTED
    forget()
    assert catalogue.engine("0.33.0").digest == digest


def test_what_the_registry_does_not_have(registry: Registry, lock: Path, capsys: Captured) -> None:
    before = lock.read_bytes()
    assert pin(registry, "vllm", "0.33.0") == REFUSED
    publish(registry, "v0.30.0", *PLATFORMS)
    assert pin(registry, "vllm", "0.33.0") == REFUSED
    where = f"vllm 0.33.0 is not pinned: {registry.host}/{VLLM}:v0.33.0: the registry has no such tag or digest"
    # This registry tells a missing repository no other than a missing tag.
    assert capsys.readouterr().err == f"{where} (404 Not Found; MANIFEST_UNKNOWN: manifest unknown)\n" * 2
    assert lock.read_bytes() == before


def test_an_image_for_one_platform(registry: Registry, lock: Path, capsys: Captured) -> None:
    before = lock.read_bytes()
    registry.push_image(VLLM, "alone")
    registry.push(VLLM, "v0.33.0", manifest("alone")[0], MANIFEST)
    assert pin(registry, "vllm", "0.33.0") == REFUSED
    assert capsys.readouterr().err.endswith(f": is an image for one platform, not an index of images ({MANIFEST})\n")
    assert lock.read_bytes() == before


def test_an_index_without_the_nodes_platform(registry: Registry, lock: Path, capsys: Captured) -> None:
    before = lock.read_bytes()
    publish(registry, "v0.33.0", "linux/arm64")
    assert pin(registry, "vllm", "0.33.0") == REFUSED
    assert capsys.readouterr().err.endswith(
        ": the index has no image for linux/amd64, which the nodes run; it has linux/arm64\n"
    )
    assert lock.read_bytes() == before


def test_a_tag_that_moves_and_a_digest_that_goes(registry: Registry, capsys: Captured) -> None:
    old = publish(registry, "v0.33.0", *PLATFORMS)
    assert pin(registry, "vllm", "0.33.0") == ACCEPTED
    forget()
    new = publish(registry, "v0.33.0", "linux/amd64")
    capsys.readouterr()

    assert pin(registry, "vllm", "0.33.0", "--check") == REFUSED
    where = f"{registry.host}/{VLLM}:v0.33.0"
    assert capsys.readouterr().err == (
        f"vllm v0.33.0: moved: {where} is {new} now; nodes can still pull the pinned {old}\n"
    )

    registry.delete(VLLM, old)
    assert pin(registry, "vllm", "0.33.0", "--check") == REFUSED
    assert capsys.readouterr().err == (
        f"vllm v0.33.0: gone: {where} is {new} now; no node can pull the pinned {old} any more\n"
    )


def test_all_pins_of_the_lock(registry: Registry, capsys: Captured) -> None:
    assert pin(registry, "--check") == REFUSED  # this registry has none of them
    said = capsys.readouterr().err.splitlines()
    pinned = [(image, tag) for image, tags in catalogue.pins().items() for tag in tags]
    assert [line.split(":")[:2] for line in said] == [[f"{image} {tag}", " gone"] for image, tag in pinned]


# --- logins --------------------------------------------------------------------------------------------------------


def log_in(tmp_path: Path, registry: Registry, password: str) -> None:
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    settings = {"auths": {registry.host: {"auth": auth}}}
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")


@pytest.mark.parametrize(
    ("password", "code", "said"),
    [
        (PASSWORD, ACCEPTED, ""),
        (
            "wrong",
            NO_ANSWER,
            "the registry gives no access for the credentials in {config} (401 Unauthorized; UNAUTHORIZED: ",
        ),
        (None, NO_ANSWER, "the registry gives no access without credentials (401 Unauthorized; UNAUTHORIZED: "),
    ],
)
def test_user_and_password(
    registry_program: Path, tmp_path: Path, capsys: Captured, *, password: str | None, code: int, said: str
) -> None:
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(f"{HTPASSWD}\n", encoding="utf-8")
    shown = {"Authorization": f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"}
    auth = {"htpasswd": {"realm": "tests", "path": str(htpasswd)}}
    with running(registry_program, tmp_path / "registry", auth=auth, authorization=shown) as registry:
        publish(registry, "v0.33.0", *PLATFORMS)
        if password:
            log_in(tmp_path, registry, password)
        assert pin(registry, "vllm", "0.33.0") == code
    assert said.replace("{config}", str(tmp_path / "config.json")) in capsys.readouterr().err


@contextmanager
def token_service() -> Generator[FakeRegistry]:
    service = FakeRegistry()
    with service.serving():
        service.replies["/token"] = Reply(content=b'{"token": "any"}')
        yield service


def test_a_token(registry_program: Path, tmp_path: Path) -> None:
    """The registry's challenge, and a service of ours: `silly` is the access control that takes whatever token is shown."""
    with token_service() as service:
        auth: Mapping[str, Any] = {"silly": {"realm": f"{service.url}/token", "service": "registry.test"}}
        shown = {"Authorization": "Bearer any"}
        with running(registry_program, tmp_path / "registry", auth=auth, authorization=shown) as registry:
            digest = publish(registry, "v0.33.0", *PLATFORMS)
            assert pin(registry, "vllm", "0.33.0") == ACCEPTED
    forget()
    assert catalogue.engine("0.33.0").digest == digest
    asked = "/token?scope=repository%3Avllm%2Fvllm-openai%3Apull&service=registry.test"
    assert service.requests == [Request(asked, None)]
