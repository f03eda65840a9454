"""Ask a registry for a manifest, with what it wants as a login: nothing, a token of its service, or user and password."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.request import parse_http_list, parse_keqv_list

import httpx2
from pydantic import BaseModel

from registry.answers import ACCEPT, Answer, Index, index_of, refusal
from registry.credentials import Credentials, credentials
from registry.errors import NoAnswerError
from registry.repository import Repository

TIMEOUT_SECONDS = 30.0
"""For each step: connecting, sending, the next bytes."""

_MOST_REDIRECTS = 5
_MOST_BYTES = 4 * 2**20  # registries need take no larger manifests (OCI distribution v1.1, "Pushing Manifests")


class _Token(BaseModel):
    token: str = ""
    access_token: str = ""  # OAuth's name for it, which some services use alone


class Client:
    """Asks registries; to be closed."""

    def __init__(self) -> None:
        # On a redirect to another host httpx2 leaves the Authorization header out.
        self._http = httpx2.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True, max_redirects=_MOST_REDIRECTS)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def resolve(self, repository: Repository, reference: str) -> Index:
        """Return the index under a tag or a digest; raise `UnfitError` or `NoAnswerError` with one sentence."""
        where = f"{repository.name}{'@' if ':' in reference else ':'}{reference}"
        url = f"{repository.origin}/v2/{repository.path}/manifests/{reference}"
        known = None
        answer = self._get(where, url, {"Accept": ACCEPT})
        if answer.status == HTTPStatus.UNAUTHORIZED:
            known = credentials(repository.credentials_key)
            login = self._login(where, repository, answer, known)
            answer = self._get(where, url, {"Accept": ACCEPT, **login})
        if answer.status != HTTPStatus.OK:
            raise refusal(where, repository.host, answer, logged_in=known is not None)
        return index_of(where, answer, reference)

    def _login(
        self, where: str, repository: Repository, answer: Answer, known: Credentials | None
    ) -> Mapping[str, str]:
        """Return the header that meets the registry's challenge, or none if there is nothing to meet it with."""
        scheme, _, parameters = answer.headers.get("www-authenticate", "").strip().partition(" ")
        if scheme.lower() == "bearer":
            asked = parse_keqv_list([item for item in parse_http_list(parameters) if "=" in item])
            return {"Authorization": f"Bearer {self._token(where, repository, asked, known)}"}
        return _basic(known) if scheme.lower() == "basic" and known else {}

    def _token(self, where: str, repository: Repository, asked: Mapping[str, str], known: Credentials | None) -> str:
        """Fetch a token as the challenge says (distribution's "Token Authentication Specification")."""
        realm = asked.get("realm", "")
        # Credentials and tokens must not travel less protected than the registry's own answers.
        if _scheme(realm) not in {"https", _scheme(repository.origin)}:
            raise NoAnswerError(f"{where}: the registry's token service {realm!r} has no https URL; it is not asked")
        parameters = {
            "scope": f"repository:{repository.path}:pull",
            **{key: value for key, value in asked.items() if key in {"service", "scope"}},
        }
        answer = self._get(where, realm, _basic(known) if known else {}, parameters)
        if answer.status != HTTPStatus.OK:
            raise refusal(where, repository.host, answer, logged_in=known is not None)
        document = answer.read(_Token) or _Token()
        token = document.token or document.access_token
        if not token or not token.isascii():
            raise NoAnswerError(f"{where}: the registry's token service {realm} sent no token")
        return token

    def _get(
        self, where: str, url: str, headers: Mapping[str, str], parameters: Mapping[str, str] | None = None
    ) -> Answer:
        host = url.partition("://")[2].partition("/")[0]
        # The digest is that of the bytes as they are kept: nothing may compress them on the way.
        headers = {"Accept-Encoding": "identity", **headers}
        try:
            target = httpx2.URL(url).copy_merge_params(dict(parameters or {}))
            with self._http.stream("GET", target, headers=headers) as response:
                _refuse_downgrade(where, response)
                content = _content(where, response)
                return Answer(response.status_code, response.reason_phrase, response.headers, content)
        except httpx2.TimeoutException:
            raise NoAnswerError(
                f"{where}: {host} did not answer within {TIMEOUT_SECONDS:g} s; try again later"
            ) from None
        except httpx2.TooManyRedirects:
            raise NoAnswerError(f"{where}: {host} redirects more than {_MOST_REDIRECTS} times") from None
        except httpx2.ConnectError as error:
            raise NoAnswerError(
                f"{where}: {host} cannot be reached ({_reason(error)}); look at the name and the network, "
                "or name a mirror with --registry URL"
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise NoAnswerError(
                f"{where}: no whole answer came from {host} ({_reason(error)}); try again later"
            ) from None


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _basic(known: Credentials) -> Mapping[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(':'.join(known).encode()).decode()}"}


def _content(where: str, response: httpx2.Response) -> bytes:
    content = b""
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > _MOST_BYTES:
            raise NoAnswerError(f"{where}: {response.url.host} sends more than 4 MiB, which no manifest has")
    return content


def _refuse_downgrade(where: str, response: httpx2.Response) -> None:
    hops = [*response.history, response]
    if hops[0].url.scheme == "https" and any(hop.url.scheme != "https" for hop in hops):
        raise NoAnswerError(
            f"{where}: {hops[0].url.host} redirects to a connection without TLS, where anybody could answer"
        )


def _reason(error: Exception) -> str:
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
