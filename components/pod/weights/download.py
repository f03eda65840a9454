"""One file over HTTP, from where an earlier attempt stopped.

Hugging Face's client throws away what an interrupted process had of a file (huggingface_hub 2.x names it at random, and
huggingface_hub#4196): at 5 GB a shard, eight at a time, every restart of a pod would fetch up to 40 GB again.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHUNK = 4 * 2**20
_TIMEOUT_SECONDS = 60  # for each read: a connection that is silent for so long is dead
_RETRY_AFTER_MAX_SECONDS = 600.0

_OK, _PARTIAL = 200, 206
_TOO_MANY, _SERVER_ERROR = 429, 500


class TransferError(Exception):
    """A transfer that may succeed if it is tried again, after `retry_after` seconds if the server says so."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class RefusedError(Exception):
    """A transfer that will not succeed however often it is tried."""


class StoppedError(Exception):
    """A transfer that nobody needs any more, because another one failed for good."""


def read(url: str) -> bytes:
    """Return a small document."""
    with _opened(urllib.request.Request(url)) as response:
        return _whole(response.read)


def download(url: Callable[[], str], target: Path, size: int, stopped: Callable[[], bool]) -> None:
    """Append to a file what it lacks of `size` bytes; raise `TransferError` or `RefusedError`.

    `url` is asked for each time, because a signed one expires; `stopped` is asked between chunks and ends the transfer with
    `StoppedError`. What was written stays, whatever happens.
    """
    have = target.stat().st_size if target.exists() else 0
    if have > size:  # left by something else
        target.unlink()
        have = 0
    if have == size:
        target.touch()
        return
    request = urllib.request.Request(url(), headers={"Range": f"bytes={have}-"})
    with _opened(request) as response, target.open("ab") as file:
        if response.status == _OK and have:  # the server knows no ranges: from the beginning, then
            file.truncate(0)
            have = 0
        # read1 hands over what has arrived: waiting for a full chunk would hold bytes that a kill then loses.
        while chunk := _whole(lambda: response.read1(_CHUNK)):
            if stopped():
                raise StoppedError
            have += len(chunk)
            if have > size:
                raise RefusedError(f"the server sends more than the {size:,} bytes it announced")
            file.write(chunk)
    if have < size:
        raise TransferError(f"the connection ended after {have:,} of {size:,} bytes")


def _whole(act: Callable[[], bytes]) -> bytes:
    try:
        return act()
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(_sentence(error)) from None


def _opened(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            problem = f"{error.code} {error.reason} from {request.host}"
            if error.code == _TOO_MANY or error.code >= _SERVER_ERROR:
                raise TransferError(problem, _seconds(error.headers.get("Retry-After"))) from None
            raise RefusedError(problem) from None
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(_sentence(error)) from None


def _seconds(retry_after: str | None) -> float | None:
    """Read a Retry-After in seconds; its other form, a date, is left to the usual wait."""
    if retry_after is None or not retry_after.isdecimal():
        return None
    return min(float(retry_after), _RETRY_AFTER_MAX_SECONDS)


def _sentence(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
