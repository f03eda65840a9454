"""What a registry wants before it answers: tokens, user and password, and where they come from."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2
import pytest

from registry import client
from registry.errors import NoAnswerError
from registry.repository import repository
from serving.__main__ import ACCEPTED, NO_ANSWER
from tests.unit.pin.fake_registry import (
    IMAGE,
    TAG,
    VLLM,
    FakeRegistry,
    Reply,
    Request,
    errors,
    index_reply,
    pin,
)

Captured = pytest.CaptureFixture[str]


def log_in(folder: Path, settings: Mapping[str, object]) -> None:
    """Write Docker's configuration."""
    (folder / "docker").mkdir()
    (folder / "docker" / "config.json").write_text(json.dumps(settings), encoding="utf-8")


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def wants(authorization: str, challenge: str, reply: Reply) -> Callable[[Request], Reply]:
    """Answer who shows the right header; challenge all others."""

    def answer(request: Request) -> Reply:
        if request.authorization == authorization:
            return reply
        return Reply(401, {"WWW-Authenticate": challenge}, errors("UNAUTHORIZED", "authentication required"))

    return answer


def bearer(registry: FakeRegistry) -> str:
    return f'Bearer realm="{registry.url}/token?account=any",service="registry.example",scope="repository:{VLLM}:pull"'


ASKED_TOKEN = "/token?account=any&scope=repository%3Avllm%2Fvllm-openai%3Apull&service=registry.example"


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_an_anonymous_token(registry: FakeRegistry, name: str) -> None:
    registry.replies[TAG] = wants("Bearer abc", bearer(registry), index_reply(IMAGE))
    registry.replies["/token"] = Reply(content=json.dumps({name: "abc", "expires_in": 300}).encode())
    assert pin(registry) == ACCEPTED
    assert registry.requests == [Request(TAG, None), Request(ASKED_TOKEN, None), Request(TAG, "Bearer abc")]


def test_a_token_for_credentials(registry: FakeRegistry, tmp_path: Path) -> None:
    log_in(tmp_path, {"auths": {registry.host: {"auth": basic("ann", "s3:cret")}}})
    registry.replies[TAG] = wants("Bearer abc", bearer(registry), index_reply(IMAGE))
    registry.replies["/token"] = Reply(content=b'{"token": "abc"}')
    assert pin(registry) == ACCEPTED
    assert registry.requests[1] == Request(ASKED_TOKEN, f"Basic {basic('ann', 's3:cret')}")


def test_a_challenge_without_service_and_scope(registry: FakeRegistry) -> None:
    registry.replies[TAG] = wants("Bearer abc", f'Bearer realm="{registry.url}/token"', index_reply(IMAGE))
    registry.replies["/token"] = Reply(content=b'{"token": "abc"}')
    assert pin(registry) == ACCEPTED
    assert registry.requests[1].path == "/token?scope=repository%3Avllm%2Fvllm-openai%3Apull"


def test_user_and_password(registry: FakeRegistry, tmp_path: Path) -> None:
    log_in(tmp_path, {"auths": {f"http://{registry.host}/v2/": {"auth": basic("ann", "secret")}}})
    authorization = f"Basic {basic('ann', 'secret')}"
    registry.replies[TAG] = wants(authorization, 'Basic realm="Registry"', index_reply(IMAGE))
    assert pin(registry) == ACCEPTED
    assert registry.requests == [Request(TAG, None), Request(TAG, authorization)]


def test_credentials_are_shown_to_nobody_who_does_not_ask(registry: FakeRegistry, tmp_path: Path) -> None:
    log_in(tmp_path, {"auths": {registry.host: {"auth": basic("ann", "secret")}}})
    registry.replies[TAG] = index_reply(IMAGE)
    assert pin(registry) == ACCEPTED
    assert registry.requests == [Request(TAG, None)]


def test_a_redirect_to_another_host_gets_no_credentials(registry: FakeRegistry) -> None:
    other = FakeRegistry()
    with other.serving():
        other.replies["/elsewhere"] = index_reply(IMAGE)
        moved = Reply(307, {"Location": f"{other.url}/elsewhere"})
        registry.replies[TAG] = wants("Bearer abc", bearer(registry), moved)
        registry.replies["/token"] = Reply(content=b'{"token": "abc"}')
        assert pin(registry) == ACCEPTED
    assert other.requests == [Request("/elsewhere", None)]


@pytest.mark.parametrize(
    ("token_reply", "settings", "said"),
    [
        pytest.param(
            Reply(401, content=errors("UNAUTHORIZED", "incorrect username or password")),
            {"auths": {"{host}": {"auth": basic("ann", "wrong")}}},
            "the registry gives no access for the credentials in {docker}/config.json (401 Unauthorized; UNAUTHORIZED: incorrect "
            "username or password); look whether it has such a repository, then docker login {host}",
            id="wrong-password",
        ),
        pytest.param(
            Reply(content=b'{"token": "not-enough"}'),
            {},
            "the registry gives no access without credentials (401 Unauthorized; UNAUTHORIZED: authentication required); look "
            "whether it has such a repository, then docker login {host}",
            id="token-that-does-not-suffice",
        ),
        pytest.param(
            Reply(content=b"{}"),
            {},
            "the registry's token service {url}/token?account=any sent no token",
            id="no-token",
        ),
        pytest.param(
            Reply(content='{"token": "ä"}'.encode()),
            {},
            "the registry's token service {url}/token?account=any sent no token",
            id="token-that-no-header-can-carry",
        ),
        pytest.param(
            Reply(503), {}, "the registry failed (503 Service Unavailable); try again later", id="token-service-down"
        ),
        pytest.param(
            Reply(),
            {"auths": {"{host}": {"identitytoken": "abc"}}},
            "{docker}/config.json has an identity token for {host}, which is not supported; log in with a user name and a "
            "password or access token",
            id="identity-token",
        ),
        pytest.param(
            Reply(),
            {"auths": []},
            "{docker}/config.json is no readable Docker configuration; repair it, or docker login again",
            id="broken-configuration",
        ),
        pytest.param(
            Reply(),
            {"auths": {"{host}": {"auth": "no base64!"}}},
            "{docker}/config.json is no readable Docker configuration; repair it, or docker login again",
            id="broken-credentials",
        ),
        pytest.param(
            Reply(),
            {"credsStore": "not-installed"},
            "docker-credential-not-installed, which {docker}/config.json names, does not run: [Errno 2] No such file or "
            "directory: 'docker-credential-not-installed'",
            id="helper-is-not-there",
        ),
    ],
)
def test_logins_that_fail(
    registry: FakeRegistry,
    tmp_path: Path,
    capsys: Captured,
    *,
    token_reply: Reply,
    settings: Mapping[str, object],
    said: str,
) -> None:
    def filled(text: str) -> str:
        return (
            text.replace("{host}", registry.host)
            .replace("{url}", registry.url)
            .replace("{docker}", f"{tmp_path}/docker")
        )

    log_in(tmp_path, json.loads(filled(json.dumps(settings))))
    registry.replies[TAG] = wants("Bearer enough", bearer(registry), index_reply(IMAGE))
    registry.replies["/token"] = token_reply
    assert pin(registry) == NO_ANSWER
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("vllm 0.33.0 is not pinned: ")
    assert output.err.endswith(f"{filled(said)}\n")


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        pytest.param(
            """printf '{"ServerURL": "any", "Username": "ann", "Secret": "secret"}'""", ACCEPTED, "", id="credentials"
        ),
        pytest.param(
            "echo 'credentials not found in native keychain'; exit 1",
            NO_ANSWER,
            "no access without credentials (401 Unauthorized",
            id="none",
        ),
        pytest.param(
            "echo 'no basic auth credentials' >&2; exit 1",
            NO_ANSWER,
            "docker-credential-here, which {docker}/config.json names, has no credentials for {host}: no basic auth credentials",
            id="failure",
        ),
        pytest.param(
            """printf '{"Username": "<token>", "Secret": "abc"}'""",
            NO_ANSWER,
            "{docker}/config.json has an identity token for {host}, which is not supported",
            id="identity-token",
        ),
    ],
)
def test_credential_helpers(
    registry: FakeRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    *,
    script: str,
    code: int,
    said: str,
) -> None:
    helper = tmp_path / "docker-credential-here"
    helper.write_text(f'#!/bin/sh\n[ "$1 $(cat)" = "get {registry.host}" ] || exit 9\n{script}\n', encoding="utf-8")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    log_in(tmp_path, {"credHelpers": {registry.host: "here"}, "credsStore": "another"})
    registry.replies[TAG] = wants(f"Basic {basic('ann', 'secret')}", 'Basic realm="Registry"', index_reply(IMAGE))
    assert pin(registry) == code
    assert said.replace("{host}", registry.host).replace("{docker}", f"{tmp_path}/docker") in capsys.readouterr().err


# --- what must not travel in the open ----------------------------------------------------------------------------------


@pytest.mark.parametrize("realm", ["http://auth.example.com/token", "", "//auth.example.com/token", "http://[::1"])
def test_a_token_service_without_tls_is_not_asked(realm: str) -> None:
    with client.Client() as asking, pytest.raises(NoAnswerError) as refusal:
        asking._token("vllm:v1", repository(VLLM), {"realm": realm}, ("ann", "secret"))
    assert str(refusal.value) == f"vllm:v1: the registry's token service {realm!r} has no https URL; it is not asked"


def test_an_answer_over_a_redirect_without_tls_is_no_answer() -> None:
    first = httpx2.Response(307, request=httpx2.Request("GET", "https://registry.example.com/v2/"))
    last = httpx2.Response(200, request=httpx2.Request("GET", "http://cdn.example.com/"), history=[first])
    with pytest.raises(NoAnswerError) as refusal:
        client._refuse_downgrade("vllm:v1", last)
    said = "vllm:v1: registry.example.com redirects to a connection without TLS, where anybody could answer"
    assert str(refusal.value) == said
