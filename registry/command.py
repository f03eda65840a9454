"""`python -m serving pin`: resolve a tag and write it into the lock, or tell whether what the lock says still holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from registry.answers import Index
from registry.client import Client
from registry.errors import MissingError, NoAnswerError, UnfitError
from registry.lock import lock_file, write
from registry.repository import Repository, repository
from serving import catalogue
from serving.catalogue import Pin
from serving.exclusion import excluded
from serving.spelling import InputError, listed

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")  # OCI distribution v1.1, "Pulling manifests"


class Outcome(Enum):
    """What came of a question: what was asked for holds now, it does not, or nobody could tell."""

    YES = "yes"
    NO = "no"
    UNANSWERED = "unanswered"


@dataclass(frozen=True)
class Result:
    """What came of one tag, and the sentence that says it."""

    outcome: Outcome
    sentence: str


def pin(client: Client, image: str, version: str, registry: str | None) -> Result:
    """Write what a version's tag is now into the lock, unless the version is excluded or the tag is nothing to deploy.

    Raises `InputError` for an image or a release that the catalogue does not know, and for a URL that is none.
    """
    tag = _tag(image, version)
    where = repository(catalogue.image(image).repository, registry)
    reason = _exclusion(image, version)
    if reason:
        return Result(Outcome.NO, f"{image} {version} is not pinned: {reason}")
    try:
        found = client.resolve(where, tag)
    except UnfitError as error:
        return Result(Outcome.NO, f"{image} {version} is not pinned: {error}")
    except NoAnswerError as error:
        return Result(Outcome.UNANSWERED, f"{image} {version} is not pinned: {error}")
    before = catalogue.pins().get(image, {}).get(tag)
    now = Pin(
        digest=found.digest,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        source=f"{where.name}: an index of {listed(found.platforms, 'and')}",
    )
    write(image, tag, now)
    return Result(Outcome.YES, f"{_written(image, tag, found, where)}{_before(before, now)}{_deployed(image, tag)}")


def _tag(image: str, version: str) -> str:
    if image == catalogue.ENGINE_IMAGE:
        return catalogue.engine_tag(catalogue.engine(version).version)
    catalogue.image(image)
    if not _TAG.fullmatch(version):
        raise InputError(
            f"python -m serving pin: {version!r} is no tag of {image}; expected letters, digits, dots, dashes and underscores, "
            "at most 128"
        )
    return version


def _exclusion(image: str, version: str) -> str:
    """Return why a version must not be pinned, or nothing."""
    row = catalogue.image(image)
    if version in row.excluded:
        return f"{row.excluded_because} ({row.source})"
    reasons = excluded(version) if image == catalogue.ENGINE_IMAGE else ()
    because = "; ".join(f"{reason.rule}: {reason.message} ({reason.source})" for reason in reasons)
    return because and f"no machine of the catalogue may serve with it: {because}"


def _written(image: str, tag: str, found: Index, where: Repository) -> str:
    return (
        f"{image} {tag} is {found.digest} at {where.name}, an index of {listed(found.platforms, 'and')}; "
        f"{lock_file().name} says so"
    )


def _before(before: Pin | None, now: Pin) -> str:
    if before is None:
        return ""
    if before.digest == now.digest:
        return f", as before ({before.date}: {before.source})"
    return (
        f". It said {before.digest} until now ({before.date}: {before.source}): releases keep their tags, "
        "so find out why this one moved before you deploy it"
    )


def _deployed(image: str, tag: str) -> str:
    version = catalogue.image(image).version
    return "" if version in {None, tag} else f". Stacks deploy {version} until images.toml names another"


def check(client: Client, image: str | None, version: str | None, registry: str | None) -> Iterator[Result]:
    """Ask for every pin, for an image's, or for one whether the tag still is the digest that the lock has.

    Raises `InputError` for what the lock does not have.
    """
    for name, tag, locked in _selected(image, version):
        where = repository(catalogue.image(name).repository, registry)
        try:
            yield _held(client, f"{name} {tag}", where, tag, locked)
        except NoAnswerError as error:
            yield Result(Outcome.UNANSWERED, f"{name} {tag}: unknown: {error}")


def _selected(image: str | None, version: str | None) -> list[tuple[str, str, Pin]]:
    rows = [(name, tag, locked) for name, tags in catalogue.pins().items() for tag, locked in tags.items()]
    if image is None:
        return rows
    tag = None if version is None else _tag(image, version)
    of_image = [row for row in rows if row[0] == catalogue.image(image).name]
    selected = [row for row in of_image if tag in {None, row[1]}]
    if not selected:
        pinned = listed([row[1] for row in of_image], "and") or "none"
        raise InputError(
            f"python -m serving pin --check: {image} {version or ''} is not pinned; of {image} is pinned: {pinned}"
        )
    return selected


def _held(client: Client, label: str, where: Repository, tag: str, locked: Pin) -> Result:
    try:
        now = client.resolve(where, tag)
    except UnfitError as error:
        change = str(error)
    else:
        if now.digest == locked.digest:
            return Result(Outcome.YES, f"{label}: holds: {locked.digest}")
        change = f"{where.name}:{tag} is {now.digest} now"
    # Pods pull by digest: whether a new node can start one depends on the digest and not on the tag.
    try:
        client.resolve(where, locked.digest)
    except MissingError:
        return Result(Outcome.NO, f"{label}: gone: {change}; no node can pull the pinned {locked.digest} any more")
    except UnfitError as error:
        return Result(Outcome.NO, f"{label}: unfit: {change}; and what is pinned: {error}")
    return Result(Outcome.NO, f"{label}: moved: {change}; nodes can still pull the pinned {locked.digest}")
