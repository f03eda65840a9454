"""What the command lines of this repository share: options, refusals in one sentence, and how a process ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from serving.spelling import InputError, allowed, did_you_mean

_BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports a program whose reader went away


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are `InputError`s with the nearest spelling; no option may be abbreviated."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's refusal as an `InputError` instead of ending the process."""
        raise InputError(f"{self.prog}: {message}{' See' if message.endswith('?') else '; see'} {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        names = [str(name) for name in action.choices or ()]
        if names and value not in names:
            raise argparse.ArgumentError(
                action, f"{value!r} is unknown; {allowed(names)}{did_you_mean(str(value), names)}"
            )

    def refuse_unknown_options(self, words: Iterable[str]) -> None:
        """Name a misspelt option, before argparse says that the one it was meant for is missing."""
        options = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and name not in options:
                self.error(f"unknown option {name}; {allowed(options)}{did_you_mean(name, options)}")


def parsed(parser: Parser, commands: Mapping[str, Parser], argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line whose first word is one of the commands."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in commands:
        commands[words[0]].refuse_unknown_options(words[1:])
    return parser.parse_args(words)


def add_stack_arguments(
    parser: argparse.ArgumentParser,
    changes: str = "override one setting, e.g. workloads.glm.maxModelLen=262144; may be repeated",
) -> None:
    """Add --stack and --set, which every command that reads a stack has; `changes` is the help of --set."""
    parser.add_argument("--stack", required=True, metavar="NAME", help="the stack: NAME of Pulumi.NAME.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="PATH=VALUE",
        help=changes,
    )


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its code; a reader that goes away (`| head`) is no error worth a traceback."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    sys.exit(code)
