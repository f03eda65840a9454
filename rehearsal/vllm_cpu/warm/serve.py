"""`serve.py SOCKET`: import vLLM once, then fork a `vllm` command for everyone who asks; runs in vLLM's environment.

Starting `vllm serve` is importing vLLM three times, one after the other; the engine itself starts in three of the 45 seconds.
A fork of a process that has imported it is the same process from there on: vLLM's own main, with the asker's words,
environment, folder and output.

A request is one JSON object {"words": [...], "env": {...}, "cwd": path} with the file descriptors of stdout and stderr. What
follows it is a byte for each signal to send. The answer is the exit status in decimals, negative for a signal. An
asker that goes away takes its command with it.
"""

# vLLM and its types are in that environment only.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

_MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.model_executor.models.glm4_moe",
    "vllm.model_executor.models.glm4_moe_mtp",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
)
"""What the server, its engine and its worker import, less what replaces parts of torch for a worker on a CPU."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_REQUEST_BYTES = 1 << 20


def main(path: str) -> NoReturn:
    """Answer for ever; whoever asks before vLLM is imported waits."""
    # Whichever process of the tree is killed, what it has forked goes with it.
    os.register_at_fork(after_in_child=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen()
    command = _import_vllm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asker, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _attend(asker, command)
        asker.close()


def _import_vllm() -> Callable[[], None]:
    """Return vLLM's main. On a CPU it would start engine and worker as new processes, which import it again: it may fork."""
    modules = [importlib.import_module(name) for name in _MODULES]
    fork = multiprocessing.get_context("fork")
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.") and hasattr(module, "get_mp_context"):
            vars(module)["get_mp_context"] = lambda: fork
    return modules[0].main


def _attend(asker: socket.socket, command: Callable[[], None]) -> NoReturn:
    """In a process of its own: run one command and tell its end, or end it with its asker."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, descriptors, _, _ = socket.recv_fds(asker, _REQUEST_BYTES, 2)
    pid = os.fork()
    if pid == 0:
        asker.close()
        _become(command, json.loads(request), descriptors)
    ended = os.pidfd_open(pid)
    while ended not in select.select([asker, ended], [], [])[0]:
        word = asker.recv(1)
        os.kill(pid, word[0] if word else signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        asker.send(str(status).encode())
    os._exit(0)


def _become(command: Callable[[], None], request: dict[str, Any], output: Sequence[int]) -> NoReturn:
    """Be the command that was asked for, to its end."""
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, descriptor in enumerate(output, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = list(request["words"])
    status = 0
    try:
        command()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (what the interpreter would do with it)
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
