"""Which program a command starts: vLLM's server, another part of vLLM, or something else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

# The server's own modules, whose arguments follow at once, and the module of the command `vllm` (releases 0.23 to 0.33).
_SERVER_MODULES = frozenset({"vllm.entrypoints.openai.api_server", "vllm.entrypoints.launchers.api_server.entry"})
_CLI_MODULE = "vllm.entrypoints.cli.main"

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_PYTHON_LETTERS = re.compile(r"-([^mcXW]*)([mcXW]?)(.*)", re.DOTALL)


def program_name(word: str) -> str:
    """Return a program's name without its folder."""
    return PurePosixPath(word).name


def serve_words(command: Sequence[str]) -> list[str] | None:
    """Return the words that vLLM's parser gets: `serve` and its arguments, or the arguments alone for the server's module.

    None if the command does not start the server.
    """
    words = python_words(command) if is_python(command) else list(command)
    if not words:
        return None
    if words[0] in _SERVER_MODULES:
        return words[1:]
    is_cli = program_name(words[0]) == "vllm" or words[0] == _CLI_MODULE
    return words[1:] if is_cli and words[1:2] == ["serve"] else None


def is_python(command: Sequence[str]) -> bool:
    """Whether a command starts a Python interpreter."""
    return bool(command) and _PYTHON.fullmatch(program_name(command[0])) is not None


def python_words(command: Sequence[str]) -> list[str]:
    """Return what a Python interpreter is told to run: a module (-m) or a script, and its arguments; nothing for -c and stdin."""
    words = list(command[1:])
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word in {"-", "--check-hash-based-pycs"}:
            words = words[1:] if word != "-" else []
            continue
        # Letters may share a word, and the last one's value may stand in it or behind it: -um vllm, -mvllm, -X dev.
        letters = _PYTHON_LETTERS.fullmatch(word)
        option, value = (letters[2], letters[3]) if letters and not word.startswith("--") else ("", "")
        if option == "c":
            return []
        if option == "m":
            return [value, *words] if value else words
        if option and not value:
            words = words[1:]
    return words
