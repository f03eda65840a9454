"""The nodes of one engine, found over a socket that stands for --master-addr: it starts when all are there and ends with any."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

_RETRY_SECONDS = 0.05


def gather(place: Path, others: int) -> list[socket.socket]:
    """Wait, as the first node, until all other nodes are there; return a connection to each."""
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place))
        listener.listen(others)
        return [listener.accept()[0] for _ in range(others)]


def attend(place: Path) -> None:
    """Find, as another node, the first one; return when it is gone."""
    with connected(place) as first, contextlib.suppress(ConnectionResetError):
        first.recv(1)


@contextlib.contextmanager
def connected(place: Path) -> Generator[socket.socket]:
    """Connect to the first node, which may still have to come."""
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(str(place))
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(_RETRY_SECONDS)
            else:
                yield connection
                return


def watch(nodes: list[socket.socket], lost: Callable[[], None]) -> None:
    """Call `lost` when a node is gone; it runs in a thread of its own."""

    def wait_for(node: socket.socket) -> None:
        with node, contextlib.suppress(OSError):
            node.recv(1)
        lost()

    for node in nodes:
        threading.Thread(target=wait_for, args=(node,), daemon=True).start()


def end_at_once() -> None:
    """End this process: an engine that has lost a node answers nobody."""
    sys.stderr.write("a node of the engine is gone\n")
    sys.stderr.flush()
    os._exit(1)


def is_worker(flags: Mapping[str, str]) -> bool:
    """Whether a command starts a node that answers nobody."""
    return flags.get("headless") == "true"


def others(flags: Mapping[str, str]) -> int:
    """Return how many nodes the engine has beside its first."""
    return int(flags.get("nnodes", "1")) - 1
