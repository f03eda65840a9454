"""The command `python -m serving diff`: its options, and what it prints where."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from serving.review import markdown
from serving.review.review import Request, Review, review

_EXIT_CODES = {"absent": 0, "accepted": 0, "refused": 1, "bad input": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be asked, but for --format."""
    parser.add_argument("--base", required=True, metavar="REF", help="what the change is for, e.g. origin/main")
    parser.add_argument("--head", metavar="REF", help="the change; the work tree if left out")
    parser.add_argument(
        "--stack", action="append", default=[], dest="stacks", metavar="NAME", help="only this stack; may be repeated"
    )
    parser.add_argument(
        "--rendered",
        type=Path,
        metavar="DIR",
        help="base/NAME.json and head/NAME.json, written by python -m rehearsal resources",
    )
    parser.add_argument(
        "--previewed", type=Path, metavar="DIR", help="NAME.jsonl, written by pulumi preview --event-log"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the comment, and on stderr what is wrong with the head; return 1 if a rule refuses, 2 if an input is bad."""
    found = review(
        Request(Path.cwd(), arguments.base, arguments.head, arguments.stacks, arguments.rendered, arguments.previewed)
    )
    _print(found, arguments.format)
    for row in found.stacks:
        for problem in row.after.problems:
            print(problem, file=sys.stderr)
        if row.refusals:
            rules = ", ".join(f"{refusal.rule} of {refusal.workload}" for refusal in row.refusals)
            print(f"stack {row.stack} is refused: {rules}", file=sys.stderr)
    return max(_EXIT_CODES[row.after.verdict] for row in found.stacks)


def _print(found: Review, form: str) -> None:
    if form == "json":
        print(json.dumps(markdown.as_json(found), indent=2))
    elif form == "markdown" or not sys.stdout.isatty():
        print(markdown.as_markdown(found), end="")
    else:
        from rich.console import Console  # noqa: PLC0415 (JSON and pipes do not need it)
        from rich.markdown import Markdown  # noqa: PLC0415

        Console().print(Markdown(markdown.as_markdown(found)))
