"""What a registry's answer means: an index with an image for the nodes, or one sentence that says why not.

By the OCI distribution specification v1.1 ("Pulling manifests", "Error Codes") and the OCI image specification v1.1
("Image Index"). Every answer is held against itself: the digest is computed from the bytes that came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from registry.credentials import configuration_file
from registry.errors import MissingError, NoAnswerError, UnfitError
from serving.spelling import listed

PLATFORM = "linux/amd64"
"""What the nodes run: every GPU machine of the catalogue has Intel or AMD processors."""

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_ONE_PLATFORM = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

ACCEPT = ", ".join((*_INDEXES, *_ONE_PLATFORM))
"""Manifests of one platform are accepted only to be refused by their name: a registry would say that there is nothing."""

_Document = TypeVar("_Document", bound=BaseModel)


class _Platform(BaseModel):
    os: str
    architecture: str
    variant: str | None = None

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class _Descriptor(BaseModel):
    platform: _Platform | None = None


class _IndexDocument(BaseModel, alias_generator=to_camel):
    media_type: str | None = None
    manifests: list[_Descriptor]


class _Error(BaseModel):
    code: str
    message: str = ""


class _Errors(BaseModel):
    errors: list[_Error] = []


@dataclass(frozen=True)
class Index:
    """An image index: its digest, and the platforms it has images for."""

    digest: str
    platforms: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `headers` finds names in whatever case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes

    def read(self, document: type[_Document]) -> _Document | None:
        """Return the body as a document, or None if it is none of that kind."""
        try:
            return document.model_validate_json(self.content)
        except ValidationError:
            return None


def index_of(where: str, answer: Answer, reference: str) -> Index:
    """Read a good answer for a tag or a digest; raise `UnfitError` or `NoAnswerError`."""
    digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    claims = (answer.headers.get("docker-content-digest", digest), reference if ":" in reference else digest)
    for claimed in claims:
        if claimed != digest:
            raise NoAnswerError(
                f"{where}: what came has the digest {digest}, and not {claimed} as the registry or the lock has it: "
                "something on the way changes answers"
            )
    platforms = _platforms(where, answer)
    if PLATFORM not in platforms:
        raise UnfitError(
            f"{where}: the index has no image for {PLATFORM}, which the nodes run; it has {listed(platforms, 'and') or 'none'}"
        )
    return Index(digest, platforms)


def _platforms(where: str, answer: Answer) -> tuple[str, ...]:
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
    if media_type in _ONE_PLATFORM:
        raise UnfitError(f"{where}: is an image for one platform, not an index of images ({media_type})")
    if media_type in _SCHEMA_1:
        raise UnfitError(f"{where}: is an image of Docker's schema 1, which today's nodes cannot pull ({media_type})")
    if media_type not in _INDEXES:
        raise NoAnswerError(
            f"{where}: the answer is {media_type or 'of no type'}, not an image index; is it a registry?"
        )
    document = answer.read(_IndexDocument)
    # Two types for one document are how two clients come to read it differently (CVE-2021-41190).
    if document is None or document.media_type not in {None, media_type}:
        raise NoAnswerError(f"{where}: the answer claims to be an image index ({media_type}) and is none")
    platforms = (row.platform for row in document.manifests)
    # Attestations stand in an index as images for unknown/unknown.
    return tuple(platform.name for platform in platforms if platform and platform.os != "unknown")


def refusal(where: str, host: str, answer: Answer, *, logged_in: bool) -> Exception:
    """Return the exception that says what a status other than 200 means for the one who asked."""
    errors = answer.read(_Errors) or _Errors()
    said = f"{answer.status} {answer.reason}" + "".join(f"; {row.code}: {row.message}" for row in errors.errors[:1])
    match answer.status:
        case HTTPStatus.NOT_FOUND:
            what = "repository" if any(row.code == "NAME_UNKNOWN" for row in errors.errors) else "tag or digest"
            return MissingError(f"{where}: the registry has no such {what} ({said})")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            who = f"for the credentials in {configuration_file()}" if logged_in else "without credentials"
            return NoAnswerError(
                f"{where}: the registry gives no access {who} ({said}); look whether it has such a repository, "
                f"then docker login {host}"
            )
        case HTTPStatus.TOO_MANY_REQUESTS:
            return NoAnswerError(f"{where}: the registry limits requests ({said}); try again {_when(answer)}")
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return NoAnswerError(f"{where}: the registry failed ({said}); try again {_when(answer)}")
        case _:
            return NoAnswerError(f"{where}: the answer is {said}, which registries do not give; is it one?")


def _when(answer: Answer) -> str:
    """What Retry-After says, in seconds or as a date (RFC 9110, 10.2.3)."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return f"in {value} s"
    try:
        return f"after {parsedate_to_datetime(value).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return "later"
