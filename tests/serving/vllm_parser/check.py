"""Ask vLLM's own argument parser about command lines; runs in vLLM's environment.

Reads a JSON list of command lines (["vllm", "serve", MODEL, ...], or ["python3", "-m", MODULE, ...] for the server's own
module) on stdin and prints {"answers": [...], "flags": [...]}. An answer, in the same order, is
{"accepted": bool, "error": str | null, "values": {dest: value}}; `values` holds what was given on the command line and
nothing of vLLM's defaults. `flags` are all that the parser has, as [[option, ...], values it takes]. Importing vLLM takes
most of the time, so ask once for many.

A command line is accepted when it passes every check that `vllm serve` makes before it looks at the model:
the argument parser, `validate_parsed_serve_args`, the names of the tool and reasoning parsers, and the keys and
types of --speculative-config, which the argument parser takes for any JSON object.
"""

# vLLM and its types are in that environment only.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from typing import Any

# vLLM logs to stdout while it is imported: the answer alone goes there, all else to stderr.
_ANSWER = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

from pydantic import TypeAdapter, ValidationError  # noqa: E402
from pydantic.fields import FieldInfo  # noqa: E402
from vllm.config import SpeculativeConfig  # noqa: E402
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args  # noqa: E402
from vllm.reasoning import ReasoningParserManager  # noqa: E402
from vllm.tool_parsers import ToolParserManager  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402


class _RefusedError(Exception):
    """vLLM does not take this command line; the message is vLLM's where vLLM has one."""


class _Parsers:
    """`vllm serve`'s parser twice: as it is, and with every default marked, to see what was given.

    Built the way vLLM's `main` builds it, `serve` under `vllm`: the parser treats the first word "serve" specially. The
    server's own module has the same parser without anything above it.
    """

    def __init__(self, *, module: bool) -> None:
        build = self._build_module if module else self._build
        self._real, serve = build()
        self._marked, serve_marked = build()
        self.flags = [[action.option_strings, action.nargs] for action in serve._actions if action.option_strings]
        # A list, because an `append` flag copies its default; not a string, because argparse would convert it.
        self._unset: list[Any] = []
        self._dests = frozenset(vars(serve.parse_args([])))
        serve_marked.set_defaults(**dict.fromkeys(self._dests, self._unset))

    @staticmethod
    def _build() -> tuple[FlexibleArgumentParser, FlexibleArgumentParser]:
        top = FlexibleArgumentParser(prog="vllm")
        serve = top.add_subparsers(required=False, dest="subparser").add_parser("serve")
        return top, make_arg_parser(serve)

    @staticmethod
    def _build_module() -> tuple[FlexibleArgumentParser, FlexibleArgumentParser]:
        parser = make_arg_parser(FlexibleArgumentParser())
        return parser, parser

    def parse(self, words: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
        """Everything that the server would see, and the part of it that `words` set.

        Raises _RefusedError with the parser's own message.
        """
        stderr = io.StringIO()
        try:
            with contextlib.redirect_stderr(stderr):
                everything = self._real.parse_args(words)
                marked = vars(self._marked.parse_args(words))
        except SystemExit as stop:
            message = stderr.getvalue().partition("error: ")[2].strip()
            raise _RefusedError(message or "it asks for vLLM's help and serves nothing") from stop
        return everything, {d: v for d, v in marked.items() if d in self._dests and v is not self._unset}


def _check_parser_names(args: argparse.Namespace) -> None:
    """The names that vLLM resolves when the server is set up: KeyError there too, with its list of choices."""
    if args.tool_call_parser and not args.tool_parser_plugin:
        ToolParserManager.get_tool_parser(args.tool_call_parser)
    if args.reasoning_parser and not args.reasoning_parser_plugin:
        ReasoningParserManager.get_reasoning_parser(args.reasoning_parser)


def _check_speculative_config(given: dict[str, Any] | None) -> None:
    """Keys and types against vLLM's own SpeculativeConfig, which vLLM itself fills only once it has the model."""
    if given is None:
        return
    if not isinstance(given, dict):
        raise _RefusedError(f"argument --speculative-config: {given!r} is not a JSON object")
    fields: dict[str, FieldInfo] = SpeculativeConfig.__pydantic_fields__
    for key, value in given.items():
        field = fields.get(key.replace("-", "_"))  # vLLM's create_speculative_config does the same
        if field is None:
            raise _RefusedError(f"argument --speculative-config: unknown key {key!r}")
        try:
            TypeAdapter(field.rebuild_annotation()).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise _RefusedError(f"argument --speculative-config: {key}={value!r}: {reason}") from error


def _verdict(serve: _Parsers, module: _Parsers, command: list[str]) -> dict[str, Any]:
    try:
        if command[:3] == ["python3", "-m", "vllm.entrypoints.openai.api_server"]:
            args, values = module.parse(command[3:])
        elif command[:2] == ["vllm", "serve"]:
            args, values = serve.parse(command[1:])
        else:
            raise _RefusedError(f"expected a command that starts with 'vllm serve', got {command[:2]!r}")
        validate_parsed_serve_args(args)
        _check_parser_names(args)
        _check_speculative_config(args.speculative_config)
    except (_RefusedError, TypeError, ValueError, LookupError) as refusal:
        return {"accepted": False, "error": str(refusal.args[0]), "values": {}}
    return {"accepted": True, "error": None, "values": values}


def main() -> None:
    """Answer stdin's command lines on stdout."""
    serve, module = _Parsers(module=False), _Parsers(module=True)
    answers = [_verdict(serve, module, command) for command in json.load(sys.stdin)]
    # A few flags parse into vLLM's own configuration objects, for which JSON has no word.
    json.dump({"answers": answers, "flags": serve.flags}, _ANSWER, default=str)
    _ANSWER.flush()


if __name__ == "__main__":
    main()
