"""`python -m rehearsal up|upgrade|render|resources|down`: the whole stack on a real Kubernetes control plane, without a cloud."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.resource import RehearsalError
from rehearsal.run import PlanRefusedError, Serving, rehearse, render, resources
from rehearsal.timeline import Timeline
from rehearsal.upgrade import rehearse_upgrade
from rehearsal.vllm.faults import FAULTS, fault_named
from serving.command_line import Parser, add_stack_arguments, exit_with, parsed
from serving.spelling import InputError, listed

_PICTURE_COLUMNS = 128

PASSED, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m rehearsal", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    up = commands.add_parser("up", help="preview, update, wait until every workload is ready, tear down, prove it")
    add_stack_arguments(up)
    up.add_argument(
        "--serving",
        choices=get_args(Serving),
        default="stand-in",
        help="what runs in serving pods: the stand-in of vLLM, or the real vLLM on the CPU (5 GB on disk on first use)",
    )
    up.add_argument("--keep", action="store_true", help="leave the cluster up and print its kubeconfig line")
    _add_picture(up)
    upgrade = commands.add_parser(
        "upgrade",
        help="bring a stack up, upgrade it while clients ask, go back if it was bad, tear down",
        description="Brings a stack up, then upgrades it. Clients ask through the Service all the time and must not notice. With "
        "--serving-fault the new image is bad: the rollout has to stop at its first pod with the gate's words, and going back "
        "has to succeed.",
    )
    add_stack_arguments(upgrade, changes="what the upgrade changes; without any, every image's digest; may be repeated")
    upgrade.add_argument("--serving-fault", metavar="NAME", help=f"what is wrong with the new image: {listed(FAULTS)}")
    _add_picture(upgrade)
    add_stack_arguments(commands.add_parser("render", help="write every Kubernetes object as YAML"))
    add_stack_arguments(
        commands.add_parser(
            "resources", help="write every resource with its inputs as JSON, for python -m serving diff"
        )
    )
    commands.add_parser("down", help="end the clusters that --keep left up")
    return parsed(parser, commands.choices, argv)


def _add_picture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the timeline as a picture")


def _up(arguments: argparse.Namespace) -> int:
    def act(timeline: Timeline) -> None:
        rehearse(
            arguments.stack,
            arguments.overrides,
            serving=arguments.serving,
            keep=arguments.keep,
            timeline=timeline,
        )

    return _told(arguments, act, f"make rehearse STACK={arguments.stack}")


def _upgrade(arguments: argparse.Namespace) -> int:
    fault = fault_named(arguments.serving_fault) if arguments.serving_fault else None

    def act(timeline: Timeline) -> None:
        rehearse_upgrade(arguments.stack, arguments.overrides, fault=fault, timeline=timeline)

    words = ["python -m rehearsal upgrade", "--stack", arguments.stack]
    return _told(arguments, act, " ".join([*words, *(["--serving-fault", fault.value] if fault else [])]))


def _told(arguments: argparse.Namespace, act: Callable[[Timeline], None], title: str) -> int:
    """Do something with a timeline, print why it failed if it did, and save the picture if one is wanted."""
    timeline = Timeline(width=_PICTURE_COLUMNS if arguments.svg else None)
    try:
        act(timeline)
        return PASSED
    except (RehearsalError, ControlPlaneError) as error:
        timeline.verdict(f"stack {arguments.stack} fails its rehearsal", passed=False, rows=[("why", str(error))])
        return FAILED
    finally:
        if arguments.svg:
            timeline.save_picture(arguments.svg, title)


def _render(arguments: argparse.Namespace) -> int:
    from rehearsal.rendering import as_yaml  # noqa: PLC0415 (only here)

    objects = render(arguments.stack, arguments.overrides, lambda line: print(line, file=sys.stderr))
    sys.stdout.write(as_yaml(list(objects)))
    return PASSED


def _resources(arguments: argparse.Namespace) -> int:
    print(json.dumps(resources(arguments.stack, arguments.overrides), indent=1, sort_keys=True))
    return PASSED


def _down() -> int:
    from rehearsal.control_plane import ControlPlane  # noqa: PLC0415

    ended = ControlPlane.stop_kept()
    plural = "" if len(ended) == 1 else "s"
    print(f"{len(ended)} kept cluster{plural} ended" if ended else "no kept cluster runs")
    return PASSED


def _interrupt(*_: object) -> NoReturn:
    """End as Ctrl-C does: everything that was started is stopped on the way out."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 passed, 1 refused or failed, 2 bad input, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments = _arguments(argv)
        match arguments.command:
            case "up":
                return _up(arguments)
            case "upgrade":
                return _upgrade(arguments)
            case "render":
                return _render(arguments)
            case "resources":
                return _resources(arguments)
            case _:
                return _down()
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except (PlanRefusedError, RehearsalError, ControlPlaneError) as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted: everything that was started has been stopped", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    exit_with(main)
