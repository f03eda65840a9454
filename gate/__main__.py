"""`python -m gate --base-url URL --expect FILE`: whether this engine may take traffic.

Runs every check once and prints the report as JSON. With --serve it stays beside the engine instead: it waits until the engine
is up, checks it, and answers /ready, /report and /metrics until the engine fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from gate.expect import Expectations, InputError, load
from gate.report import last_words
from gate.run import run_checks
from gate.sidecar import Sidecar, serve

PASSED, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# The kubelet makes this file for every container and shows its content as the container's last words.
_TERMINATION_MESSAGE = Path("/dev/termination-log")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}; see {self.prog} --help")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m gate", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--base-url", required=True, metavar="URL", type=_base_url, help="the engine, e.g. http://localhost:8000"
    )
    parser.add_argument(
        "--expect", required=True, metavar="FILE", type=Path, help="the expect file: what the plan promises"
    )
    parser.add_argument(
        "--serve", metavar="[HOST:]PORT", type=_address, help="stay and answer there; the host is 127.0.0.1 if left out"
    )
    parser.add_argument(
        "--termination-message",
        metavar="FILE",
        type=Path,
        help=f"where the last words go; {_TERMINATION_MESSAGE} if there is one",
    )
    parser.add_argument(
        "--runs",
        metavar="NUMBER",
        type=int,
        choices=range(1, 10),
        default=1,
        help="with --serve: how many runs may fail one after the other before it ends; 1 if left out",
    )
    return parser.parse_args(argv)


def _base_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no URL; expected one such as http://localhost:8000")
    return text.rstrip("/").removesuffix("/v1")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no address; expected a port such as 8090 or 0.0.0.0:8090")
    return host or "127.0.0.1", int(port)


def _say(line: str) -> None:
    print(f"gate: {line}", file=sys.stderr, flush=True)


async def _once(base_url: str, expect: Expectations, api_key: str) -> int:
    report = await run_checks(base_url, expect, api_key)
    print(json.dumps(report.as_json(), indent=2))
    if report.passed:
        return PASSED
    _say(last_words(report))
    return FAILED


async def _beside(arguments: argparse.Namespace, expect: Expectations, api_key: str) -> int:
    sidecar = Sidecar(arguments.base_url, expect, api_key, _say, arguments.runs)
    host, port = arguments.serve
    try:
        server = serve(host, port, lambda: sidecar.state)
    except OSError as error:
        raise InputError(f"--serve {host}:{port}: {error.strerror}; choose another address") from None
    _say(f"answering on http://{host}:{server.server_port}")
    guard = asyncio.create_task(sidecar.guard())
    leaving = asyncio.create_task(_sigterm())
    await asyncio.wait((guard, leaving), return_when=asyncio.FIRST_COMPLETED)
    if guard.done():
        words = last_words(guard.result())
        _say(words)
        _leave(words, arguments.termination_message)
        return FAILED
    # The kubelet ends all containers of a pod at once, but the engine finishes what runs, and is asked until then.
    guard.cancel()
    _say("asked to end; answering until the engine has ended")
    await sidecar.until_gone()
    return PASSED


async def _sigterm() -> None:
    """Wait until the kubelet asks for the end."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    await asked.wait()


def _leave(words: str, message: Path | None) -> None:
    """Leave the last words where the kubelet looks for them."""
    if message is None and not _TERMINATION_MESSAGE.exists():  # not in a container of Kubernetes
        return
    path = message or _TERMINATION_MESSAGE
    try:
        path.write_text(words, encoding="utf-8")
    except OSError as error:
        _say(f"{path}: {error.strerror}")


async def _run(arguments: argparse.Namespace, expect: Expectations) -> int:
    api_key = os.environ.get("OPENAI_API_KEY", "none")
    if arguments.serve is None:
        return await _once(arguments.base_url, expect, api_key)
    return await _beside(arguments, expect, api_key)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gate; return 0 if every check passed, 1 if one failed, 2 if the input is bad."""
    try:
        arguments = _arguments(argv)
        return asyncio.run(_run(arguments, load(arguments.expect)))
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
