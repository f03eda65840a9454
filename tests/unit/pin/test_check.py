"""`python -m serving pin --check`: whether pins still hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.__main__ import ACCEPTED, NO_ANSWER, REFUSED
from tests.fixtures.catalogue import forget
from tests.fixtures.images import digest_of, index
from tests.unit.pin.fake_registry import (
    DIGEST,
    IMAGE,
    VLLM,
    FakeRegistry,
    Reply,
    index_reply,
    pin,
)

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def two_pins(lock: Path) -> None:
    rows = "".join(
        f'[{image}."{tag}"]\ndigest = "{DIGEST}"\ndate = "2026-11-23"\nsource = "a test"\n\n'
        for image, tag in (("vllm", "v0.31.0"), ("device-plugin", "v0.20.0"))
    )
    lock.write_text(rows, encoding="utf-8")
    forget()


MOVED = index("linux/amd64", name="moved")
NEW_TAG = f"/v2/{VLLM}/manifests/v0.31.0"
PLUGIN_TAG = "/v2/nvidia/k8s-device-plugin/manifests/v0.20.0"
BY_DIGEST = f"/v2/{VLLM}/manifests/{DIGEST}"


@pytest.mark.parametrize(
    ("tag", "by_digest", "code", "said"),
    [
        pytest.param(index_reply(IMAGE), Reply(500), ACCEPTED, f"holds: {DIGEST}", id="holds"),
        pytest.param(
            index_reply(MOVED),
            index_reply(IMAGE),
            REFUSED,
            f"moved: {{host}}/{VLLM}:v0.31.0 is {digest_of(MOVED)} now; nodes can still pull the pinned {DIGEST}",
            id="moved",
        ),
        pytest.param(
            Reply(404),
            index_reply(IMAGE),
            REFUSED,
            f"moved: {{host}}/{VLLM}:v0.31.0: the registry has no such tag or digest (404 Not Found); nodes can still pull the "
            f"pinned {DIGEST}",
            id="untagged",
        ),
        pytest.param(
            index_reply(MOVED),
            Reply(404),
            REFUSED,
            f"gone: {{host}}/{VLLM}:v0.31.0 is {digest_of(MOVED)} now; no node can pull the pinned {DIGEST} any more",
            id="gone",
        ),
        pytest.param(
            index_reply(MOVED),
            index_reply(MOVED),
            NO_ANSWER,
            f"unknown: {{host}}/{VLLM}@{DIGEST}: what came has the digest {digest_of(MOVED)}, and not {DIGEST} as the registry "
            "or the lock has it: something on the way changes answers",
            id="another-under-the-digest",
        ),
        pytest.param(
            Reply(429, {"Retry-After": "5"}),
            Reply(500),
            NO_ANSWER,
            f"unknown: {{host}}/{VLLM}:v0.31.0: the registry limits requests (429 Too Many Requests); try again in 5 s",
            id="limited",
        ),
    ],
)
@pytest.mark.usefixtures("two_pins")
def test_every_pin_is_checked(
    registry: FakeRegistry, lock: Path, capsys: Captured, *, tag: Reply, by_digest: Reply, code: int, said: str
) -> None:
    before = lock.read_bytes()
    registry.replies = {NEW_TAG: tag, BY_DIGEST: by_digest, PLUGIN_TAG: index_reply(IMAGE)}
    assert pin(registry, "--check") == code
    first, second = (
        f"vllm v0.31.0: {said}\n".replace("{host}", registry.host),
        f"device-plugin v0.20.0: holds: {DIGEST}\n",
    )
    assert capsys.readouterr() == ((first + second, "") if code == ACCEPTED else (second, first))
    assert lock.read_bytes() == before


@pytest.mark.usefixtures("two_pins")
def test_a_pin_that_fell_weighs_more_than_one_nobody_could_ask_for(registry: FakeRegistry) -> None:
    registry.replies = {NEW_TAG: index_reply(MOVED), BY_DIGEST: Reply(404), PLUGIN_TAG: Reply(500)}
    assert pin(registry, "--check") == REFUSED


@pytest.mark.parametrize("words", [("device-plugin",), ("device-plugin", "v0.20.0")])
@pytest.mark.usefixtures("two_pins")
def test_one_image_is_checked(registry: FakeRegistry, words: tuple[str, ...]) -> None:
    registry.replies = {PLUGIN_TAG: index_reply(IMAGE)}
    assert pin(registry, *words, "--check") == ACCEPTED
    assert [request.path for request in registry.requests] == [PLUGIN_TAG]
