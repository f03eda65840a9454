"""Make sure that a model is on the node: list, make room, fetch what is lacking, verify, mark."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TypeVar

from .cache import (
    FetchError,
    Model,
    has_its_hash,
    is_marked,
    make_room,
    missing_shards,
    only_one,
    settle,
    write_mark,
)
from .download import RefusedError, StoppedError, TransferError, download
from .sources import RemoteFile, Source

_WORKERS = 8  # files at a time
_ATTEMPTS = 5  # in a row without a byte of progress: the hub answers 429 to many nodes at once
_FIRST_WAIT_SECONDS = 30.0
_WRONG_BYTES = 2  # once the disk's fault or a broken transfer's, twice the source's

_T = TypeVar("_T")

Say = Callable[[str], None]
Wait = Callable[[float], None]


def ensure(model: Model, source: Source, say: Say, wait: Wait | None = None) -> None:
    """Make sure that a model is on the node, complete and verified; raise `FetchError` if that cannot be had.

    `wait` is what waits between attempts, in seconds.
    """
    with only_one(model.cache):
        if is_marked(model):
            say(f"{model.name} is on this node and verified")
            return
        files = _Attempts(model.name, say, wait or time.sleep).until_done(source.files)
        make_room(model, files, say)
        _Fetch(model, source, files, say, wait).run()
        missing = missing_shards(model)
        if missing:
            raise FetchError(f"{model.name} lacks {len(missing)} files that its weights need, first {missing[0]}")
        write_mark(model, files)


@dataclass
class _Attempts:
    """Tries something until it succeeds; gives up after five failures in a row during which nothing advanced."""

    what: str
    say: Say
    wait: Wait
    failures: int = 0

    def until_done(self, act: Callable[[], _T], advanced: Callable[[], bool] = lambda: False) -> _T:
        while True:
            try:
                return act()
            except TransferError as error:
                self.failures = 1 if advanced() else self.failures + 1
                self.say(f"{self.what}: attempt {self.failures} of {_ATTEMPTS}: {error}")
                if self.failures == _ATTEMPTS:
                    raise FetchError(f"{self.what} could not be fetched in {_ATTEMPTS} attempts: {error}") from None
                self.wait(error.retry_after or _FIRST_WAIT_SECONDS * 2 ** (self.failures - 1))
            except RefusedError as error:
                raise FetchError(f"{self.what} cannot be fetched: {error}") from None


class _Fetch:
    """All files of one model, several at a time."""

    def __init__(self, model: Model, source: Source, files: list[RemoteFile], say: Say, wait: Wait | None) -> None:
        self._model = model
        self._source = source
        self._say = say
        self._stopped = threading.Event()
        self._wait = wait or self._wait_unless_stopped
        self._files = len(files)
        self._done = 0
        self._lock = threading.Lock()
        # Files with the same bytes are one blob, which one worker fetches.
        self._alike: dict[str, list[RemoteFile]] = {}
        for file in files:
            self._alike.setdefault(file.hash, []).append(file)

    def run(self) -> None:
        pool = ThreadPoolExecutor(_WORKERS)
        try:
            for finished in as_completed([pool.submit(self._blob, alike) for alike in self._alike.values()]):
                finished.result()
        finally:
            self._stopped.set()  # after a failure the others end at their next chunk; what they have written is kept
            pool.shutdown(cancel_futures=True)

    def _wait_unless_stopped(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _blob(self, alike: list[RemoteFile]) -> None:
        file = alike[0]
        blob = self._model.blob(file)
        if blob.exists() and not has_its_hash(blob, file.hash):
            blob.unlink()
        if not blob.exists():
            self._fetch(file)
        for same in alike:
            self._model.link(same)
            with self._lock:
                self._done += 1
                self._say(f"{self._done} of {self._files} files: {same.path}, {same.size / 1e9:,.2f} GB")

    def _fetch(self, file: RemoteFile) -> None:
        for _ in range(_WRONG_BYTES):
            self._bytes(file)
            if settle(self._model, file):
                return
            self._say(f"{file.path}: the bytes have another hash than the repository says")
        raise FetchError(f"{file.path} has another hash than the repository says, fetched {_WRONG_BYTES} times")

    def _bytes(self, file: RemoteFile) -> None:
        partial = self._model.partial(file)
        before = 0

        def attempt() -> None:
            nonlocal before
            before = partial.stat().st_size if partial.exists() else 0
            if self._stopped.is_set():
                raise StoppedError
            download(lambda: self._source.url(file), partial, file.size, self._stopped.is_set)

        def advanced() -> bool:
            return partial.exists() and partial.stat().st_size > before

        _Attempts(file.path, self._say, self._wait).until_done(attempt, advanced)
