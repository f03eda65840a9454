"""`ask.py SOCKET vllm WORD...`: run a command in the process of serve.py, as if it ran here.

Standard library only. It has this process's environment, folder and output, gets this process's signals, and this process
ends as it ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path


def main(path: str, *words: str) -> int:
    """Ask, and return the exit status; end by a signal what was ended by one."""
    asker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asker.connect(path)
    request = {"words": words, "env": dict(os.environ), "cwd": str(Path.cwd())}
    socket.send_fds(asker, [json.dumps(request).encode()], [1, 2])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asker.send(bytes([number])))
    answer = asker.recv(16)
    if not answer:
        sys.exit(f"{path}: the process that has vLLM loaded is gone")
    status = int(answer)
    if status < 0:
        if -status != signal.SIGKILL:  # which has no other action
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
