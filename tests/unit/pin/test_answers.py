"""Answers of a registry that are no pin, also those that no real one can be made to give: exit codes, sentences, the lock."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry import client
from serving.__main__ import NO_ANSWER, REFUSED, main
from tests.fixtures.images import INDEX, MANIFEST, MANIFEST_LIST, index, manifest
from tests.unit.pin.fake_registry import (
    DIGEST,
    IMAGE,
    TAG,
    VLLM,
    FakeRegistry,
    Reply,
    errors,
    index_reply,
    pin,
)

Captured = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Case:
    """A registry's answer, what becomes of it, and the end of the sentence; {host} is the registry's."""

    id: str
    reply: Reply
    code: int
    said: str


ONE_IMAGE = manifest("image")[0]

ANSWERS = (
    Case(
        "no-such-tag",
        Reply(404, content=errors("MANIFEST_UNKNOWN", "manifest unknown")),
        REFUSED,
        "the registry has no such tag or digest (404 Not Found; MANIFEST_UNKNOWN: manifest unknown)",
    ),
    Case(
        "no-such-repository",
        Reply(404, content=errors("NAME_UNKNOWN", "repository name not known to registry")),
        REFUSED,
        "the registry has no such repository (404 Not Found; NAME_UNKNOWN: repository name not known to registry)",
    ),
    Case(
        "not-found-without-a-word",
        Reply(404, content=b"<html>"),
        REFUSED,
        "the registry has no such tag or digest (404 Not Found)",
    ),
    Case(
        "no-challenge",
        Reply(401, content=errors("UNAUTHORIZED", "authentication required")),
        NO_ANSWER,
        "the registry gives no access without credentials (401 Unauthorized; UNAUTHORIZED: authentication required); look "
        "whether it has such a repository, then docker login {host}",
    ),
    Case(
        "forbidden",
        Reply(403, content=errors("DENIED", "requested access to the resource is denied")),
        NO_ANSWER,
        "the registry gives no access without credentials (403 Forbidden; DENIED: requested access to the resource is denied); "
        "look whether it has such a repository, then docker login {host}",
    ),
    Case(
        "rate-limit-in-seconds",
        Reply(429, {"Retry-After": "37"}, errors("TOOMANYREQUESTS", "You have reached your pull rate limit.")),
        NO_ANSWER,
        "the registry limits requests (429 Too Many Requests; TOOMANYREQUESTS: You have reached your pull rate limit.); try "
        "again in 37 s",
    ),
    Case(
        "rate-limit-until",
        Reply(429, {"Retry-After": "Wed, 25 Nov 2026 21:30:00 GMT"}),
        NO_ANSWER,
        "the registry limits requests (429 Too Many Requests); try again after 2026-11-25 21:30:00 UTC",
    ),
    Case(
        "rate-limit-without-end",
        Reply(429, {"Retry-After": "soon"}),
        NO_ANSWER,
        "the registry limits requests (429 Too Many Requests); try again later",
    ),
    Case("broken", Reply(500), NO_ANSWER, "the registry failed (500 Internal Server Error); try again later"),
    Case(
        "down",
        Reply(503, {"Retry-After": "120"}, b"upstream connect error"),
        NO_ANSWER,
        "the registry failed (503 Service Unavailable); try again in 120 s",
    ),
    Case("teapot", Reply(418), NO_ANSWER, "the answer is 418 I'm a Teapot, which registries do not give; is it one?"),
    Case(
        "one-platform",
        index_reply(ONE_IMAGE, MANIFEST),
        REFUSED,
        f"is an image for one platform, not an index of images ({MANIFEST})",
    ),
    Case(
        "schema-1",
        index_reply(b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        REFUSED,
        "is an image of Docker's schema 1, which today's nodes cannot pull "
        "(application/vnd.docker.distribution.manifest.v1+prettyjws)",
    ),
    Case(
        "log-in-page",
        Reply(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Log in</html>"),
        NO_ANSWER,
        "the answer is text/html, not an image index; is it a registry?",
    ),
    Case(
        "no-type", Reply(200, {}, IMAGE), NO_ANSWER, "the answer is of no type, not an image index; is it a registry?"
    ),
    Case(
        "two-types",
        index_reply(IMAGE, MANIFEST_LIST),
        NO_ANSWER,
        f"the answer claims to be an image index ({MANIFEST_LIST}) and is none",
    ),
    Case(
        "index-that-is-none",
        index_reply(b'{"schemaVersion": 2, "manifests": {}}'),
        NO_ANSWER,
        f"the answer claims to be an image index ({INDEX}) and is none",
    ),
    Case("not-json", index_reply(b"\xff"), NO_ANSWER, f"the answer claims to be an image index ({INDEX}) and is none"),
    Case(
        "no-amd64",
        index_reply(index("linux/arm64/v8", "windows/amd64")),
        REFUSED,
        "the index has no image for linux/amd64, which the nodes run; it has linux/arm64/v8 and windows/amd64",
    ),
    Case(
        "attestations-only",
        index_reply(index()),
        REFUSED,
        "the index has no image for linux/amd64, which the nodes run; it has none",
    ),
    Case(
        "another-digest",
        index_reply(IMAGE, Docker_Content_Digest=f"sha256:{'0' * 64}"),
        NO_ANSWER,
        f"what came has the digest {DIGEST}, and not sha256:{'0' * 64} as the registry or the lock has it: something on the way "
        "changes answers",
    ),
    Case(
        "truncated",
        Reply(200, {"Content-Type": INDEX}, IMAGE, cut=100),
        NO_ANSWER,
        f"no whole answer came from {{host}} (peer closed connection without sending complete message body (received 100 bytes, "
        f"expected {len(IMAGE)})); try again later",
    ),
    Case(
        "endless",
        Reply(200, {"Content-Type": INDEX}, bytes(4 * 2**20 + 1)),
        NO_ANSWER,
        "127.0.0.1 sends more than 4 MiB, which no manifest has",
    ),
    Case("silent", Reply(silent=True), NO_ANSWER, "{host} did not answer within 0.2 s; try again later"),
    Case("in-a-circle", Reply(307, {"Location": TAG}), NO_ANSWER, "{host} redirects more than 5 times"),
    Case(
        "nowhere",
        Reply(307, {"Location": "gopher://example.com/"}),
        NO_ANSWER,
        "no whole answer came from {host} (Request URL has an unsupported protocol 'gopher://'.); try again later",
    ),
)


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case.id)
def test_answers_that_are_no_pin(
    registry: FakeRegistry, lock: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    if case.reply.silent:
        monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.2)
    before = lock.read_bytes()
    registry.replies[TAG] = case.reply
    assert pin(registry) == case.code
    said = case.said.replace("{host}", registry.host)
    assert capsys.readouterr() == ("", f"vllm 0.33.0 is not pinned: {registry.host}/{VLLM}:v0.33.0: {said}\n")
    assert lock.read_bytes() == before


def test_a_registry_that_is_not_there(lock: Path, capsys: Captured) -> None:
    before = lock.read_bytes()
    with socket.socket() as taken:  # bound and not listening: nobody else can take the port
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["pin", "vllm", "0.33.0", "--registry", f"http://{host}"]) == NO_ANSWER
    said = (
        f"vllm 0.33.0 is not pinned: {host}/{VLLM}:v0.33.0: {host} cannot be reached (Connection refused); look at the name and "
        "the network, or name a mirror with --registry URL\n"
    )
    assert capsys.readouterr() == ("", said)
    assert lock.read_bytes() == before
