"""Fetch a model at a revision into the node's cache once, verify every file, and leave a mark.

Runs in an init container before the engine, with `huggingface_hub` from the engine's image. A second start on the same node
finds the mark and compares sizes only. Hugging Face names each large file in its cache by its SHA-256 and each small one by
its Git blob hash (the hub's ETags), so verification needs no list of hashes from outside.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORKERS = 16
_CHUNK = 16 * 2**20
_ATTEMPTS = 5  # the hub answers 429 to many nodes at once, and a download of 750 GB meets a broken connection
_FIRST_WAIT_SECONDS = 30.0


class FetchError(Exception):
    """The weights cannot be served; the text says why and what to do."""


@dataclass(frozen=True)
class Model:
    """A repository at a revision, in a Hugging Face cache folder; `expected_bytes` is the checkpoint's size."""

    repository: str
    revision: str
    cache: Path
    expected_bytes: int

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


Download = Callable[[Model], None]


def ensure(
    model: Model, download: Download, say: Callable[[str], None], wait: Callable[[float], None] = time.sleep
) -> None:
    """Make sure that a model is on the node, complete and verified; raise `FetchError` if that cannot be had."""
    with _only_one(model):
        if _marked(model):
            say(f"{model.repository}@{model.revision} is on this node and verified")
            return
        _check_space(model)
        for attempt in range(1, _ATTEMPTS + 1):
            problem = _attempt(model, download, say)
            if problem is None:
                return
            say(f"attempt {attempt} of {_ATTEMPTS}: {problem}")
            if attempt == _ATTEMPTS:
                name = f"{model.repository}@{model.revision}"
                raise FetchError(f"{name} could not be fetched in {_ATTEMPTS} attempts: {problem}")
            wait(_FIRST_WAIT_SECONDS * 2 ** (attempt - 1))


def _attempt(model: Model, download: Download, say: Callable[[str], None]) -> str | None:
    try:
        download(model)
    except Exception as error:  # noqa: BLE001 (the hub's client raises many kinds; each is worth another attempt)
        return " ".join(f"{type(error).__name__}: {error}".split())  # one line; the hub's messages have several
    say("fetched; verifying")
    bad = verify(model)
    if not bad:
        _write_mark(model)
        say(f"verified {len(_files(model))} files")
        return None
    for path in bad:
        for entry in (path.resolve(), _blob(path), path):
            entry.unlink(missing_ok=True)
    return f"{len(bad)} files are damaged or missing, first {bad[0].name}; they are fetched again"


def verify(model: Model) -> list[Path]:
    """Return the files of a snapshot that are missing or do not have the hash in their blob's name."""
    missing = [path for path in _named_by_index(model) if not path.exists()]
    files = _files(model)
    with ThreadPoolExecutor(_WORKERS) as pool:
        verdicts = list(pool.map(_has_its_hash, files))
    return missing + [path for path, good in zip(files, verdicts, strict=True) if not good]


def _named_by_index(model: Model) -> list[Path]:
    index = model.snapshot / "model.safetensors.index.json"
    if not index.exists() or not _has_its_hash(index):  # a damaged one is no list of anything
        return [index]
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [model.snapshot / str(shard) for shard in sorted(shards)]


def _files(model: Model) -> list[Path]:
    return sorted(path for path in model.snapshot.rglob("*") if path.is_file())


def _blob(path: Path) -> Path:
    """Return the entry in the repository's blobs that a file of the snapshot links to: its name is the file's hash.

    From huggingface_hub 2.0 on it may be a link itself, into blobs that repositories share and that have other names.
    """
    return path.parent / path.readlink() if path.is_symlink() else path


def _has_its_hash(path: Path) -> bool:
    blob = _blob(path)
    if len(blob.name) == hashlib.sha256().digest_size * 2:
        digest = hashlib.sha256()
    else:  # Git's hash of a blob: a header with the size, then the content
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
    with blob.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == blob.name


def _marked(model: Model) -> bool:
    """Whether the revision was verified and no file has changed its size since."""
    try:
        sizes: dict[str, int] = json.loads(model.mark.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # never written, or lost half of itself in a crash of the node
        return False
    paths = {name: model.snapshot / name for name in sizes}
    return all(path.is_file() and path.stat().st_size == sizes[name] for name, path in paths.items())


def _write_mark(model: Model) -> None:
    model.mark.parent.mkdir(parents=True, exist_ok=True)
    sizes = {str(path.relative_to(model.snapshot)): path.stat().st_size for path in _files(model)}
    partial = model.mark.with_suffix(".partial")
    partial.write_text(json.dumps(sizes), encoding="utf-8")
    partial.replace(model.mark)


def _check_space(model: Model) -> None:
    model.cache.mkdir(parents=True, exist_ok=True)
    blobs = model.folder / "blobs"
    have = sum(path.stat().st_size for path in blobs.iterdir()) if blobs.exists() else 0
    free = shutil.disk_usage(model.cache).free
    if free + have < model.expected_bytes:
        raise FetchError(
            f"{model.cache} has {free / 1e9:,.0f} GB free, {model.repository} needs {model.expected_bytes / 1e9:,.0f} GB "
            f"of which {have / 1e9:,.0f} GB are there; remove models that are no longer served"
        )


@contextmanager
def _only_one(model: Model) -> Generator[None]:
    """Hold a lock on the node: two pods that start at once fetch once."""
    model.cache.mkdir(parents=True, exist_ok=True)
    with (model.cache / f".{model.folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _from_hub(model: Model) -> None:
    hub: Any = importlib.import_module("huggingface_hub")  # is in the engine's image only
    # Up to 1.x the client takes whatever the folder holds for the model when the hub does not answer. The list raises.
    names: list[str] = hub.HfApi().list_repo_files(model.repository, revision=model.revision)
    hub.snapshot_download(model.repository, revision=model.revision, cache_dir=model.cache, max_workers=8)
    missing = [name for name in names if not (model.snapshot / name).exists()]
    if missing:
        raise FetchError(f"{len(missing)} of {len(names)} files were not fetched, first {missing[0]}")


def main() -> int:
    """Read the environment, fetch, say what happens on standard output."""
    model = Model(
        os.environ["MODEL"], os.environ["REVISION"], Path(os.environ["HF_HUB_CACHE"]), int(os.environ["EXPECTED_BYTES"])
    )

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        ensure(model, _from_hub, say)
    except (FetchError, OSError) as error:
        say(str(error))
        return 1
    return 0


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    # As the first process of a container it has no default handler: without one a deleted pod waits for its grace period.
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
