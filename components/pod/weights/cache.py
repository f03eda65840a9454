"""A model in a Hugging Face cache folder: `blobs/<hash>` holds the bytes, `snapshots/<revision>/<path>` links to them.

A blob bears its name only once its bytes have that hash and are on the disk; until then it is `<hash>.partial`. A mark says that
a whole revision is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .sources import RemoteFile

_CHUNK = 16 * 2**20
_INDEX = "model.safetensors.index.json"
_SHA256_DIGITS = 64


class FetchError(Exception):
    """The weights cannot be served; the text says why and what to do."""


@dataclass(frozen=True)
class Model:
    """A repository at a revision, in a cache folder."""

    repository: str
    revision: str
    cache: Path

    @property
    def name(self) -> str:
        """Repository and revision, as messages name them."""
        return f"{self.repository}@{self.revision}"

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache."""
        return self.cache / f"models--{self.repository.replace('/', '--')}"

    @property
    def snapshot(self) -> Path:
        """The folder with the revision's files, links into the blobs."""
        return self.folder / "snapshots" / self.revision

    @property
    def mark(self) -> Path:
        """The file that says the revision is complete and verified."""
        return self.cache / ".verified" / f"{self.folder.name}@{self.revision}.json"

    def blob(self, file: RemoteFile) -> Path:
        """Where a file's bytes are once they are verified."""
        return self.folder / "blobs" / file.hash

    def partial(self, file: RemoteFile) -> Path:
        """Where a file's bytes gather until then."""
        return self.folder / "blobs" / f"{file.hash}.partial"

    def link(self, file: RemoteFile) -> None:
        """Let the snapshot show a file."""
        pointer = self.snapshot / file.path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(os.path.relpath(self.blob(file), pointer.parent))


@contextmanager
def only_one(cache: Path) -> Generator[None]:
    """Hold the node's lock: two pods that start at once fetch once."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def has_its_hash(path: Path, expected: str) -> bool:
    """Whether a file's bytes have a hash: SHA-256, or Git's of a blob (a header with the size, then the content)."""
    if len(expected) == _SHA256_DIGITS:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == expected


def settle(model: Model, file: RemoteFile) -> bool:
    """Make a complete partial file the blob it should be; drop it and return False if its bytes are others."""
    partial = model.partial(file)
    if not has_its_hash(partial, file.hash):
        partial.unlink()
        return False
    with partial.open("rb+") as stream:
        os.fsync(
            stream.fileno()
        )  # before the name: after a crash of the node a name without its bytes would be believed
    partial.replace(model.blob(file))
    return True


def is_marked(model: Model) -> bool:
    """Whether the revision was verified and no file has changed its size since."""
    try:
        sizes: dict[str, int] = json.loads(model.mark.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # never written, or lost half of itself in a crash of the node
        return False
    paths = {name: model.snapshot / name for name in sizes}
    return all(path.is_file() and path.stat().st_size == sizes[name] for name, path in paths.items())


def write_mark(model: Model, files: Iterable[RemoteFile]) -> None:
    """Say that a revision is complete and verified."""
    model.mark.parent.mkdir(parents=True, exist_ok=True)
    partial = model.mark.with_suffix(".partial")
    partial.write_text(json.dumps({file.path: file.size for file in files}), encoding="utf-8")
    partial.replace(model.mark)


def missing_shards(model: Model) -> list[str]:
    """Return the shards that the index of the weights names and the snapshot lacks."""
    index = model.snapshot / _INDEX
    if not index.is_file():
        return [_INDEX]
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(str(shard) for shard in shards if not (model.snapshot / str(shard)).is_file())


def make_room(model: Model, files: Iterable[RemoteFile], say: Callable[[str], None]) -> None:
    """Remove what the revision does not need until it fits: torn files first, then other models, the oldest first.

    Nothing else is served on this node meanwhile: a replica has all of its GPUs. Raise `FetchError` if it still does not fit.
    """
    wanted = {file.hash: file for file in files}
    (model.folder / "blobs").mkdir(parents=True, exist_ok=True)
    for torn in _torn(model, wanted):
        torn.unlink()
    for folder in _others(model):
        if _lacking(model, wanted.values()) <= _free(model):
            return
        say(f"{_free(model) / 1e9:,.0f} GB are free, too few: {folder.name} is removed")
        _remove(model.cache, folder)
    if _lacking(model, wanted.values()) > _free(model):
        _remove_other_revisions(model, wanted, say)
    lacking, free = _lacking(model, wanted.values()), _free(model)
    if lacking > free:
        raise FetchError(
            f"{model.cache} has {free / 1e9:,.1f} GB free, {model.name} lacks {lacking / 1e9:,.1f} GB and nothing is left to "
            "remove; free some of the node's array or choose a machine with a larger one"
        )


def _torn(model: Model, wanted: dict[str, RemoteFile]) -> list[Path]:
    """Return the beginnings of files that this revision does not go on with, also those that the hub's client leaves."""
    blobs = model.folder / "blobs"
    ours = {model.partial(file) for file in wanted.values()}
    return [path for path in (*blobs.glob("*.partial"), *blobs.glob("*.incomplete")) if path not in ours]


def _others(model: Model) -> list[Path]:
    folders = [path for path in model.cache.glob("models--*") if path.is_dir() and path != model.folder]
    return sorted(folders, key=lambda path: path.stat().st_mtime)


def _remove(cache: Path, folder: Path) -> None:
    for mark in (cache / ".verified").glob(f"{folder.name}@*"):  # first: what is half removed must not be marked
        mark.unlink()
    shutil.rmtree(folder)


def _remove_other_revisions(model: Model, wanted: dict[str, RemoteFile], say: Callable[[str], None]) -> None:
    for mark in (model.cache / ".verified").glob(f"{model.folder.name}@*"):
        mark.unlink()
    for snapshot in (model.folder / "snapshots").glob("*"):
        if snapshot != model.snapshot:
            say(f"{_free(model) / 1e9:,.0f} GB are free, too few: revision {snapshot.name} is removed")
            shutil.rmtree(snapshot)
    for blob in (model.folder / "blobs").iterdir():
        if blob.name.removesuffix(".partial") not in wanted:
            blob.unlink()


def _lacking(model: Model, files: Iterable[RemoteFile]) -> int:
    """Return how many bytes are still to be written."""
    return sum(file.size - max(_size(model.blob(file)), _size(model.partial(file))) for file in files)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _free(model: Model) -> int:
    return shutil.disk_usage(model.cache).free
