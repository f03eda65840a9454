"""A whole change: every stack of two revisions, compared."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.review import sides
from serving.review.compare import StackDiff, compare
from serving.review.resources import ResourceChanges, of_preview, of_renderings, rendering
from serving.review.revisions import Repository
from serving.review.sides import ABSENT, Side
from serving.spelling import InputError, allowed, did_you_mean
from serving.stack_file import stacks

_STACK_FILES = "Pulumi.*.yaml"
_CODE = f"{sides.PACKAGE.name}/**"

# What a stack becomes depends on these, besides its file.
_PROGRAM = ("serving/", "components/", "policy/", "gate/", "__main__.py", "Pulumi.yaml", "requirements.txt")


@dataclass(frozen=True)
class Request:
    """What to compare: `head` None is the work tree, no stacks are all. The folders hold what other programs wrote."""

    folder: Path
    base: str
    head: str | None
    stacks: Sequence[str]
    rendered: Path | None = None
    previewed: Path | None = None


@dataclass(frozen=True)
class Review:
    """A compared change. `program` are the changed files that a stack depends on besides its own.

    `notes` say which bases were not planned by their own code, and why.
    """

    base: str
    head: str | None
    program: tuple[str, ...]
    head_by_its_own_code: bool
    notes: tuple[str, ...]
    stacks: tuple[StackDiff, ...]


def review(request: Request) -> Review:
    """Compare two revisions; raise `InputError` with one sentence if that cannot be done at all."""
    repository = Repository(request.folder)
    head = repository.commit("--head", request.head) if request.head is not None else None
    tip = head or repository.commit("--head", "HEAD")
    base = repository.merge_base("--base", request.base, tip)
    with tempfile.TemporaryDirectory(prefix="review-") as scratch:
        before, after = Path(scratch, "base"), request.folder
        repository.lay(base, (_STACK_FILES, _CODE), before)
        if head is not None:
            after = Path(scratch, "head")
            repository.lay(head, (_STACK_FILES, _CODE), after)
        names = _chosen(request.stacks, {*stacks(before), *stacks(after)})
        rows = [_row(name, before, after, request) for name in names]
        own = sides.same_code(after)
    notes = tuple(
        f"{row.stack}: {row.before.note}; so the code that plans the head plans it" for row in rows if row.before.note
    )
    program = tuple(name for name in repository.changed(base, head) if name.startswith(_PROGRAM))
    return Review(base, head, program, own, notes, tuple(rows))


def _chosen(wanted: Sequence[str], known: Iterable[str]) -> list[str]:
    names = sorted(known)
    if not names:
        raise InputError("neither side has a stack file Pulumi.NAME.yaml")
    for name in wanted:
        if name not in names:
            raise InputError(
                f"--stack {name}: neither side has a Pulumi.{name}.yaml; {allowed(names)}{did_you_mean(name, names)}"
            )
    return [name for name in names if not wanted or name in wanted]


def _row(name: str, before: Path, after: Path, request: Request) -> StackDiff:
    old = sides.by_its_own_code(name, before) if name in stacks(before) else ABSENT
    new = sides.by_this_code(name, after) if name in stacks(after) else ABSENT
    return compare(name, old, new, _rendered(name, old, request.rendered), _previewed(name, request.previewed))


def _rendered(name: str, old: Side, folder: Path | None) -> ResourceChanges | None:
    """Compare the renderings `base/NAME.json` and `head/NAME.json` of a folder, if both are there that can be."""
    if folder is None:
        return None
    before, after = (folder / side / f"{name}.json" for side in ("base", "head"))
    if not after.is_file() or (old.verdict != "absent" and not before.is_file()):
        return None
    new = rendering(after.read_text(encoding="utf-8"), str(after))
    return of_renderings(rendering(before.read_text(encoding="utf-8"), str(before)) if before.is_file() else {}, new)


def _previewed(name: str, folder: Path | None) -> ResourceChanges | None:
    """Read the event log `NAME.jsonl` of a folder, if it is there."""
    path = folder / f"{name}.jsonl" if folder else None
    return of_preview(path.read_text(encoding="utf-8"), str(path)) if path and path.is_file() else None
