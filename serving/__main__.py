"""`python -m serving plan|diff|mirror|rules|accuracy|schema|pin`: what a stack would be, before anything is bought."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from serving import config_page, report
from serving.command_line import Parser, add_stack_arguments, exit_with, parsed
from serving.config import json_schema, parse
from serving.plan import Plan, build
from serving.review import command as review
from serving.rules import page as rules_page
from serving.spelling import InputError, allowed, did_you_mean
from serving.stack_file import read, stack_file

ACCEPTED, REFUSED, BAD_INPUT, NO_ANSWER = 0, 1, 2, 3


def plan_of(stack: str, overrides: Sequence[str], folder: Path) -> Plan:
    """Return the plan of a stack file with overrides; raise `InputError` with one sentence for each problem."""
    path = stack_file(stack, folder)
    return build(parse(read(path, overrides), path.name), stack)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m serving", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    plan = commands.add_parser("plan", help="memory, cost, command and verdicts of a stack", allow_abbrev=False)
    add_stack_arguments(plan)
    _add_format(plan)
    diff = commands.add_parser("diff", help="what a change does to every stack, for its reviewer", allow_abbrev=False)
    review.add_arguments(diff)
    _add_format(diff)
    rules = commands.add_parser("rules", help="every rule with its remedy and source", allow_abbrev=False)
    rules.add_argument("--format", choices=("text", "markdown"), default="text", help="markdown is docs/rules.md")
    mirror = commands.add_parser("mirror", help="copy a workload's weights into its mirror in S3", allow_abbrev=False)
    add_stack_arguments(mirror)
    mirror.add_argument("--workload", metavar="NAME", help="the workload, if the stack has several")
    mirror.add_argument("--cache", required=True, metavar="DIR", help="a folder with room for the weights")
    mirror.add_argument("--run", action="store_true", help="run the script instead of printing it")
    commands.add_parser("accuracy", help="the memory model beside every measured and published pool, as Markdown")
    schema = commands.add_parser("schema", help="what a stack file may say", allow_abbrev=False)
    schema.add_argument(
        "--format",
        choices=("json", "markdown"),
        default="json",
        help="JSON Schema for editors; markdown is docs/config.md",
    )
    pin = commands.add_parser(
        "pin", help="ask a registry for an image's digest and write it into the lock", allow_abbrev=False
    )
    pin.add_argument(
        "image", nargs="?", metavar="IMAGE", help="an image of the catalogue, such as vllm or device-plugin"
    )
    pin.add_argument(
        "version", nargs="?", metavar="VERSION", help="a vLLM release such as 0.33.0, or another image's tag"
    )
    pin.add_argument(
        "--registry", metavar="URL", help="a mirror or pull-through cache to ask instead of the image's registry"
    )
    pin.add_argument(
        "--check", action="store_true", help="write nothing; tell whether pins (all, an image's, or one) still hold"
    )
    return parsed(parser, commands.choices, argv)


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "json"),
        default="text",
        help="text is rich in a terminal, plain in a pipe",
    )


def _print_plan(plan: Plan, form: str) -> None:
    if form == "json":
        print(json.dumps(report.as_json(plan), indent=2))
    elif form == "markdown" or not sys.stdout.isatty():
        print(report.as_markdown(plan), end="")
    else:
        from rich.console import Console  # noqa: PLC0415 (JSON and pipes do not need it)

        Console().print(report.as_rich(plan))


def _mirror(arguments: argparse.Namespace) -> int:
    from serving.mirror import script  # noqa: PLC0415 (only here)

    plan = plan_of(arguments.stack, arguments.overrides, Path.cwd())
    names = list(plan.workloads)
    name = names[0] if arguments.workload is None and len(names) == 1 else arguments.workload
    if name not in names:
        raise InputError(f"--workload: there is no workload {name!r}; {allowed(names)}{did_you_mean(str(name), names)}")
    text = script(plan.workloads[name], str(Path(arguments.cache).absolute()))
    if not arguments.run:
        print(text, end="")
        return ACCEPTED
    return subprocess.run(["bash", "-c", text], cwd=Path(__file__).parents[1], check=False).returncode


def _pin(arguments: argparse.Namespace) -> int:
    # Imported here: this is the one command that needs the network, a clock and the libraries for them.
    from registry.client import Client  # noqa: PLC0415
    from registry.command import Outcome, check, pin  # noqa: PLC0415

    asked = arguments.image, arguments.version, arguments.registry
    outcomes: set[Outcome] = set()
    with Client() as client:
        if not (arguments.check or arguments.version):
            raise InputError("python -m serving pin: IMAGE and VERSION are needed, such as vllm 0.31.0, or --check")
        for result in check(client, *asked) if arguments.check else [pin(client, *asked)]:
            print(result.sentence, file=sys.stdout if result.outcome is Outcome.YES else sys.stderr, flush=True)
            outcomes.add(result.outcome)
    if Outcome.NO in outcomes:
        return REFUSED
    return NO_ANSWER if Outcome.UNANSWERED in outcomes else ACCEPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 if accepted, 1 if refused, 2 if the input is bad, 3 if a registry gave no answer."""
    try:
        arguments = _arguments(argv)
        match arguments.command:
            case "rules":
                print(rules_page.as_markdown() if arguments.format == "markdown" else rules_page.as_text(), end="")
            case "diff":
                return review.run(arguments)
            case "mirror":
                return _mirror(arguments)
            case "accuracy":
                from serving.accuracy import as_markdown  # noqa: PLC0415 (only here)

                print(as_markdown(), end="")
            case "schema":
                print(json.dumps(json_schema(), indent=2) if arguments.format == "json" else config_page.as_markdown())
            case "pin":
                return _pin(arguments)
            case _:
                plan = plan_of(arguments.stack, arguments.overrides, Path.cwd())
                _print_plan(plan, arguments.format)
                if plan.violations:
                    print(report.refusal(plan), file=sys.stderr)
                    return REFUSED
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    return ACCEPTED


if __name__ == "__main__":
    exit_with(main)
