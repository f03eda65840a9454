"""`python -m rehearsal.vllm --listen PORT --instance-type TYPE --engine-version VERSION -- vllm serve …`: start the stand-in."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from serving.command_line import Parser
from serving.spelling import InputError

LOOPBACK = "127.0.0.1"
BAD_INPUT = 2


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m rehearsal.vllm", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--listen", type=int, required=True, metavar="PORT", help="the port on loopback, 0 for any free one"
    )
    parser.add_argument("--instance-type", required=True, help="the machine whose memory the engine has")
    parser.add_argument("--engine-version", required=True, help="the vLLM release that the image holds")
    parser.add_argument("--fault", help="what is wrong with it: a name of rehearsal/vllm/faults.py")
    parser.add_argument("--load-seconds", type=float, default=0.0, help="how long the weights take")
    parser.add_argument(
        "--time-scale", type=float, default=1.0, help="seconds here for one of an answer's on real machines"
    )
    parser.add_argument("--drain-seconds", type=float, help="how long to drain if --shutdown-timeout asks for it")
    parser.add_argument(
        "--rendezvous", type=Path, help="a socket where the nodes of the engine meet, if it has several"
    )
    parser.add_argument("command", nargs="+", help="the container's own command: vllm serve MODEL and its flags")
    return parser.parse_args(argv)


def _serve(arguments: argparse.Namespace) -> int:
    # Imported here: a flag that vLLM refuses should be refused before anything is loaded.
    from rehearsal.vllm import group  # noqa: PLC0415
    from rehearsal.vllm.completion import Completions  # noqa: PLC0415
    from rehearsal.vllm.faults import Fault, fault_named  # noqa: PLC0415
    from rehearsal.vllm.latency import Latency  # noqa: PLC0415
    from rehearsal.vllm.metrics import Metrics  # noqa: PLC0415
    from rehearsal.vllm.model import Model  # noqa: PLC0415
    from rehearsal.vllm.server import Server  # noqa: PLC0415
    from rehearsal.vllm.settings import StartError, settings_of  # noqa: PLC0415
    from rehearsal.vllm.table import lookup  # noqa: PLC0415
    from serving import argv, catalogue  # noqa: PLC0415

    fault = fault_named(arguments.fault) if arguments.fault else None
    instance = catalogue.instance_type(arguments.instance_type)
    engine = catalogue.engine(arguments.engine_version)
    try:
        settings = settings_of(arguments.command, os.environ, instance, engine)
    except StartError as error:
        time.sleep(arguments.load_seconds if error.after_load else 0)
        print(error, file=sys.stderr)
        return 1
    flags = argv.read(arguments.command).flags
    if group.is_worker(flags):
        group.attend(arguments.rendezvous)
        return 1
    nodes = group.gather(arguments.rendezvous, group.others(flags)) if group.others(flags) else []
    group.watch(nodes, group.end_at_once)
    if fault is Fault.NEVER_HEALTHY:
        signal.pause()
    time.sleep(arguments.load_seconds)
    completions = Completions(Model(lookup, settings, fault), Metrics(settings, fault), Latency(arguments.time_scale))
    server = Server((LOOPBACK, arguments.listen), completions)
    drain = settings.shutdown_timeout_seconds if arguments.drain_seconds is None else arguments.drain_seconds
    seconds = drain if settings.shutdown_timeout_seconds else 0.0

    def end(*_: object) -> None:
        # Not in the signal's own frame: that interrupts the loop which `shutdown` waits for.
        threading.Thread(target=server.drain, args=(seconds,)).start()

    signal.signal(signal.SIGTERM, end)
    print(f"stand-in of vLLM {engine.version} listens on {LOOPBACK}:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; 0 stopped, 1 vLLM would not start, 2 bad input."""
    try:
        return _serve(_arguments(argv))
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
