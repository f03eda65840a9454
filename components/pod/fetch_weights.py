"""Fetch a model at a revision into the node's cache once, verify every file, and leave a mark.

Runs in an init container before the engine, with `huggingface_hub` from the engine's image. A second start on the same node
finds the mark and compares sizes only. Hugging Face names each large file in its cache by its SHA-256 and each small one by
its Git blob hash, so verification needs no list from outside.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
        return f"{type(error).__name__}: {error}"
    say("fetched; verifying")
    bad = verify(model)
    if not bad:
        _write_mark(model)
        say(f"verified {len(_files(model))} files")
        return None
    for path in bad:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
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
    if not index.exists():
        return [index]
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [model.snapshot / str(shard) for shard in sorted(shards)]


def _files(model: Model) -> list[Path]:
    return sorted(path for path in model.snapshot.rglob("*") if path.is_file())


def _has_its_hash(path: Path) -> bool:
    blob = path.resolve()
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
    if not model.mark.exists():
        return False
    sizes: dict[str, int] = json.loads(model.mark.read_text(encoding="utf-8"))
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
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # pyright: ignore  (in the engine's image only)

    snapshot_download(model.repository, revision=model.revision, cache_dir=model.cache, max_workers=8)


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
    except FetchError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
