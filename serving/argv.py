"""Reads a vLLM command line as vLLM's own parser does (0.31.0, `utils/argparse_utils.py`), without vLLM.

That parser is argparse with a step before it: underscores become dashes, dotted flags are gathered into JSON, and `vllm serve
--model X` becomes `vllm serve X`. So abbreviations, the order of words and the last of several values follow argparse here too.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn, cast, overload

from serving import catalogue
from serving.launch import serve_words
from serving.spelling import InputError
from serving.unknowns import Shape, Unknowns, starts_unknown

_MODEL_TAG = "model-tag"
_MODEL_FLAG = re.compile(r"--model(=.+|$)")
_SHORT_FLAG = re.compile(r"-[^-]")
_HUMAN_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class UnknownArgumentError(Exception):
    """What was asked for cannot be known from the command; the text says why."""


@dataclass(frozen=True)
class Arguments:
    """What a command says to vLLM. Flags go by their long name without dashes; a switch is `true` or `false`.

    `doubt` is why none of it can be known.
    """

    positional: str | None
    flags: Mapping[str, str]
    doubt: str | None = None
    unknowns: Unknowns = field(default_factory=Unknowns, compare=False, repr=False)

    @overload
    def get(self, flag: str) -> str | None: ...
    @overload
    def get(self, flag: str, default: str) -> str: ...
    def get(self, flag: str, default: str | None = None) -> str | None:
        """Return the value of a flag, or what it is when it is left out.

        Raises `UnknownArgumentError` if nobody can know.
        """
        value = self._known(self.flags.get(flag))
        return default if value is None else value

    @property
    def model(self) -> str | None:
        """What is served: the positional argument, or --model; raises `UnknownArgumentError` if nobody can know."""
        return self._known(self.flags.get("model") if self.positional is None else self.positional)

    def _known(self, value: str | None) -> str | None:
        # vLLM puts what a config file says before the command line, so that a flag given here counts.
        if value is None and "config" in self.flags:
            raise UnknownArgumentError("it may stand in the file that --config names")
        why = self.doubt or self.unknowns.why(value or "")
        if why is not None:
            raise UnknownArgumentError(why)
        return value


def read(command: Sequence[str], unknowns: Unknowns | None = None) -> Arguments:
    """Read a whole command: `vllm serve …`, `python -m vllm.entrypoints.openai.api_server …` and their like.

    Raises `InputError` for a command that is none of these and for one that vLLM would not take; its text names flags, never
    their values.
    """
    words = serve_words(command)
    if words is None:
        raise InputError("the command is not `vllm serve`")
    unknowns = unknowns or Unknowns()
    doubt = unknowns.why_any(words, Shape.WORDS)
    if doubt is not None:
        return Arguments(None, {}, doubt, unknowns)
    is_cli = words[:1] == ["serve"]
    try:
        words = _gathered(_dashed(_model_first(words[1:]) if is_cli else words))
        namespace, left = _parser().parse_known_args(words)
    except argparse.ArgumentError as error:
        raise _refusal(error) from None
    except (RecursionError, OverflowError):
        raise InputError("vLLM would not read the command: a value of it is too large") from None
    given: dict[str, Any] = vars(namespace)
    positional = given.pop(_MODEL_TAG, None)
    if "help" in given:
        raise InputError("the command asks for vLLM's help and serves nothing")
    flags = {name: _text(value) for name, value in given.items()}
    return Arguments(positional if is_cli else None, flags, _doubt(words, given, left, unknowns), unknowns)


def whole_number(text: str) -> int:
    """Read a number as vLLM does: 131072, or 128k (decimal, 128,000) and 128K (binary, 131,072); raises ValueError."""
    text = text.strip()
    match = _HUMAN_NUMBER.fullmatch(text)
    if match is None:
        return int(text)
    number, suffix = match.groups()
    return int(number) * _BINARY[suffix] if suffix in _BINARY else int(float(number) * _DECIMAL[suffix])


def _model_first(words: Sequence[str]) -> list[str]:
    """Put what the first --model names where the positional argument is, as `vllm serve` does."""
    at = next((at for at, word in enumerate(words) if _MODEL_FLAG.match(word)), None)
    if at is None:
        return list(words)
    if words[at] != "--model":
        return [words[at].removeprefix("--model="), *words[:at], *words[at + 1 :]]
    if at + 1 == len(words):
        raise argparse.ArgumentError(None, "argument --model: expected one argument")
    return [words[at + 1], *words[:at], *words[at + 2 :]]


def _dashed(words: Sequence[str]) -> list[str]:
    """Write flags with dashes, but not the keys behind their first dot; spell -O out."""
    dashed: list[str] = []
    for at, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flag, dot, keys = name.partition(".")
            dashed.append(
                "--help" if word.startswith("--help=") else flag.replace("_", "-") + dot + keys + equals + value
            )
        elif word == "-O" and words[at + 1 : at + 2] in (["0"], ["1"], ["2"], ["3"]):
            dashed.append("--optimization-level")
        elif word.startswith("-O") and word != "-O":
            dashed += ["--optimization-level", word[2:].removeprefix("=")]
        else:
            dashed.append(word)
    return dashed


def _gathered(words: Sequence[str]) -> list[str]:
    """Gather dotted flags into one JSON value for each flag, put behind all other words."""
    plain: list[str] = []
    objects: dict[str, dict[str, Any]] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not word.startswith("-") or "." not in name:
            plain.append(word)
            continue
        if not equals:
            value = next(rest, None)
            if value is None:
                raise argparse.ArgumentError(None, f"argument {name}: expected one argument")
        if name.endswith("+"):
            name, value = name[:-1], json.dumps(value.split(","), ensure_ascii=False)
        flag, *keys = name.split(".")
        _merge(objects.setdefault(flag, {}), _nested(keys, _dotted_value(value)))
    return [*plain, *(word for flag, item in objects.items() for word in (flag, json.dumps(item, ensure_ascii=False)))]


def _dotted_value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return whole_number(text)
    except ValueError:
        return text


def _nested(keys: Sequence[str], value: object) -> dict[str, Any]:
    inner = value if len(keys) == 1 else _nested(keys[1:], value)
    return {keys[0]: inner}


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Merge objects key by key; lists are joined, and of other values the last one counts."""
    for key, value in new.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(cast("dict[str, Any]", old), cast("dict[str, Any]", value))
        elif isinstance(old, list) and isinstance(value, list):
            into[key] = [*cast("list[Any]", old), *cast("list[Any]", value)]
        else:
            into[key] = value


def _doubt(words: Sequence[str], given: Mapping[str, Any], left: Sequence[str], unknowns: Unknowns) -> str | None:
    """Return why a command as a whole cannot be known, or None. Raises `InputError` for words that vLLM has no use for.

    `left` are the words that belong to no flag of the pinned release: flags of another one, with or without a value, or strays.
    """
    lists = [item for value in given.values() if isinstance(value, list) for item in cast("list[str]", value)[1:]]
    for word in (*lists, *left):
        # Where no flag asks for a value an unknown word may be any flag.
        why = unknowns.why(word) if starts_unknown(word) or word.startswith("-") else None
        if why is not None:
            return why
    if not left:
        return None
    if "--omni" in left:
        return "vLLM-Omni reads the command, not vLLM"
    if not any(word.startswith("--") for word in left) or any(_SHORT_FLAG.match(word) for word in left):
        raise InputError("vLLM would not read the command: it has words that belong to no flag")
    if words[0].startswith("-"):
        # Whether such a flag takes the word behind it cannot be known, so neither can the model.
        release = catalogue.serve_flags().release
        return f"it has flags that vLLM {release} does not have, and their values cannot be told from the model"
    return None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(cast("list[str]", value)) if isinstance(value, list) else str(value)


def _refusal(error: argparse.ArgumentError) -> InputError:
    """Say what is wrong with a flag, in words that hold nobody's values."""
    said = str(error)
    flag = re.match(r"(?:argument|ambiguous option:) (-[^\s:=]+)", said)
    name = flag[1] if flag else "a flag"
    if "ambiguous" in said:
        problem = f"{name} is the beginning of several flags"
    elif "ignored explicit argument" in said:
        problem = f"{name} takes no value"
    else:
        problem = f"{name} lacks its value"
    return InputError(f"vLLM would not read the command: {problem}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


@cache
def _parser() -> _Parser:
    parser = _Parser(add_help=False, exit_on_error=False, argument_default=argparse.SUPPRESS)
    parser.add_argument(_MODEL_TAG, nargs="?")
    parser.add_argument("-h", "--help", action="store_true")
    table = catalogue.serve_flags()
    kinds: tuple[tuple[Sequence[str], dict[str, Any]], ...] = (
        (table.switch, {"action": "store_true"}),
        (table.negatable, {"action": argparse.BooleanOptionalAction}),
        (table.value, {}),
        (table.values, {"nargs": "+"}),
        (table.optional_value, {"nargs": "?", "const": True}),
    )
    for rows, how in kinds:
        for row in rows:
            options = row.split()
            parser.add_argument(*options, dest=options[0].removeprefix("--"), **how)
    return parser
