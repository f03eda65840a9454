"""Which programs a command starts: vllm's server, directly or through shells and wrappers, or something else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from serving.shell import UnreadableError, started
from serving.unknowns import Unknowns, starts_unknown

# The server's own modules, whose arguments follow at once, and the module of the command `vllm` (releases 0.23 to 0.33).
_SERVER_MODULES = frozenset({"vllm.entrypoints.openai.api_server", "vllm.entrypoints.launchers.api_server.entry"})
_CLI_MODULE = "vllm.entrypoints.cli.main"

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_PYTHON_LETTERS = re.compile(r"-([^mcXW]*)([mcXW]?)(.*)", re.DOTALL)
_SHELLS = frozenset({"sh", "bash", "dash", "ash"})
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)

# Programs that start no engine, whatever they are told; what a shell does itself; and the parts of vLLM that only ask one.
_HARMLESS = frozenset(
    {
        *("nvidia-smi", "dcgm-exporter", "dcgmi", "nvbandwidth", "all_reduce_perf", "nvidia-device-plugin"),
        *(
            "cat",
            "chmod",
            "chown",
            "cp",
            "curl",
            "date",
            "df",
            "find",
            "free",
            "grep",
            "head",
            "hostname",
            "id",
            "ln",
            "ls",
            "mkdir",
        ),
        *(
            "mktemp",
            "mount",
            "mv",
            "rm",
            "sed",
            "sleep",
            "sort",
            "sync",
            "tail",
            "tee",
            "touch",
            "true",
            "false",
            "uname",
            "wget",
        ),
        *(
            ":",
            "[",
            "[[",
            "cd",
            "declare",
            "echo",
            "exit",
            "export",
            "for",
            "kill",
            "local",
            "printf",
            "pwd",
            "read",
            "readonly",
        ),
        *("return", "set", "shift", "test", "trap", "type", "typeset", "ulimit", "umask", "unset", "wait"),
    }
)
# Programs that run the command behind them as it stands, and what may stand between: options, numbers, variables.
_WRAPPERS = frozenset(
    {
        *("chrt", "command", "dumb-init", "env", "exec", "ionice", "nice", "nohup", "numactl"),
        *("opentelemetry-instrument", "setsid", "stdbuf", "taskset", "time", "timeout", "tini"),
    }
)
_BETWEEN = re.compile(r"-.*|[A-Za-z_][A-Za-z0-9_]*=.*|[\d.,:-]+[smhd]?", re.DOTALL)
_SPLITS = re.compile(r"-[^-]*S.*|--split-string.*", re.DOTALL)  # `env -S` makes a command of one word
_HARMLESS_VLLM = frozenset({"chat", "complete", "collect-env", "--version", "-v", "--help", "-h"})


@dataclass(frozen=True)
class Program:
    """What runs in the end: its words and the variables it sees. `unreadable` says why nobody can tell what it does or sees."""

    words: tuple[str, ...]
    env: Mapping[str, str]
    unreadable: str | None = None

    @property
    def serves(self) -> bool:
        """Whether it is vLLM's server."""
        return serve_words(self.words) is not None


def programs(words: Sequence[str], env: Mapping[str, str], unknowns: Unknowns) -> list[Program]:
    """Follow a command through shells and wrappers to the programs that it starts, in order.

    `words` and `env` may hold marks of `unknowns`. Never raises for what cannot be followed: that is a `Program` that says so.
    """
    for at in range(len(words)):
        front, behind = words[:at], words[at:]
        if serve_words(behind) is not None:
            return [Program(tuple(behind), _wrapped_env(front, env), _hidden(front, unknowns))]
        script = _shell_script(behind)
        if script is not None:
            in_shell = _in_shell(program_name(behind[0]), script, _wrapped_env(front, env), unknowns)
            hidden = _hidden(front, unknowns)
            return [replace(program, unreadable=hidden) for program in in_shell] if hidden else in_shell
    return [Program(tuple(words), env, _unreadable(words, unknowns))]


def _hidden(front: Sequence[str], unknowns: Unknowns) -> str | None:
    """Return why nobody can tell what stands in front of a command does to it, or None if that is nothing but variables."""
    for before, word in zip(("", *front), front, strict=False):
        if starts_unknown(word):
            return unknowns.why(word)
        named = _BETWEEN.fullmatch(word) or before in {"-u", "--unset"} or program_name(word) in _WRAPPERS
        if not named or _SPLITS.fullmatch(word):
            return "it starts vLLM through a program that may change its flags and variables"
    return None


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


def _in_shell(shell: str, script: Sequence[str], env: Mapping[str, str], unknowns: Unknowns) -> list[Program]:
    if shell == "bash" and "BASH_ENV" in env:
        return [Program((shell,), env, "bash reads the file that BASH_ENV names")]
    try:
        commands = started(script[0], env, script[1:], unknowns)
    except UnreadableError as error:
        return [Program((shell,), env, str(error))]
    return [program for command in commands for program in programs(command.words, command.env, unknowns)]


def _shell_script(words: Sequence[str]) -> list[str] | None:
    """Return the script that a shell is given with -c, and its arguments; None for other commands, also a shell's with a file."""
    if program_name(words[0]) not in _SHELLS:
        return None
    rest = list(words[1:])
    has_script = False
    while rest and rest[0][:1] in {"-", "+"}:
        word = rest.pop(0)
        if word in {"-", "--"}:
            break
        if not word.startswith("--"):
            has_script = has_script or (word[0] == "-" and "c" in word)
            rest = rest[word.lower().count("o") :]  # -o pipefail, -euxo pipefail, -O extglob
    return rest if has_script and rest else None


def _wrapped_env(wrapper: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables behind `env -i -u NAME NAME=VALUE`, wherever that stands among wrappers."""
    names = [program_name(word) for word in wrapper]
    if "env" not in names:
        return dict(env)
    options = wrapper[names.index("env") + 1 :]
    changed = {} if {"-i", "-", "--ignore-environment"} & set(options) else dict(env)
    for at, word in enumerate(options):
        match = _VARIABLE.fullmatch(word)
        if match is not None:
            changed[match[1]] = match[2]
        name = options[at + 1] if word in {"-u", "--unset"} and at + 1 < len(options) else word.removeprefix("--unset=")
        changed.pop(name, None)
    return changed


def _unreadable(words: Sequence[str], unknowns: Unknowns) -> str | None:
    """Return why nobody can tell whether a command starts an engine, or None if it does not."""
    while words and words[0] in _WRAPPERS:
        words = words[1:]
    if not words:
        return None
    if starts_unknown(words[0]):
        return unknowns.why(words[0])
    name = program_name(words[0])
    if name == "vllm":
        harmless = words[1] in _HARMLESS_VLLM if len(words) > 1 else True
        return None if harmless else "it runs a part of vLLM whose flags are not read"
    if name in _SHELLS:
        return "it runs a shell whose script is not in the manifest"
    if name in _HARMLESS:
        return None
    return "it runs a program that may start vLLM with flags of its own"
