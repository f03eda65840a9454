"""From a pod's own command to one that vLLM for CPUs can run: what is taken out, what is put in, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.argv import read
from serving.command import CACHES_MOUNT, MODELS_MOUNT
from serving.spelling import InputError

LOOPBACK = "127.0.0.1"

_FLAG = re.compile(r"--?[A-Za-z]")  # and not -1, which is a value

_TAKEN_OUT = {
    "revision": "the tiny model is a folder, which has no revisions",
    "host": "nothing may listen beyond loopback",
    "port": "every server has a free port of its own",
    "tensor-parallel-size": "there are no GPUs to share the model",
    "gpu-memory-utilization": "the KV cache is given in bytes instead",
    "kv-cache-dtype": "on a CPU the cache has the type of the model",
}
"""Everything else stays. What a CPU cannot do and nobody has listed here is refused by vLLM itself, in its own words."""


_ON_CPU = {
    "VLLM_HOST_IP": LOOPBACK,
    # One thread, bound to no core: several servers share few cores, and sums are added up in the same order everywhere.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class CpuCommand:
    """A command for a CPU. The mappings say which flags were taken out of the pod's and put into it, each with the reason."""

    argv: tuple[str, ...]
    taken_out: Mapping[str, str]
    put_in: Mapping[str, str]


def on_cpu(command: Sequence[str], *, model: Path, port: int, kv_cache_bytes: int) -> CpuCommand:
    """Return the command that serves the model in a folder on loopback, with everything else as the pod has it.

    Raises:
        InputError: it is no `vllm serve MODEL ...`, or vLLM would not read it.

    """
    if list(command[:2]) != ["vllm", "serve"] or len(command) < 3 or command[2].startswith("-"):
        raise InputError(f"a pod's command is `vllm serve MODEL ...`, not {' '.join(command[:3])!r}")
    put_in = {
        f"--host {LOOPBACK}": _TAKEN_OUT["host"],
        f"--port {port}": _TAKEN_OUT["port"],
        f"--kv-cache-memory-bytes {kv_cache_bytes}": "as many tokens as the plan has for a GPU, of the tiny model's size",
        "--dtype float32": "the tiny model's answers are exact in the type that it was trained in",
        "--enforce-eager": "compiling takes longer than everything that is asked of it",
    }
    taken_out: dict[str, str] = {}
    kept: list[str] = []
    for words in _flags_with_values(command[3:]):
        reasons = [_TAKEN_OUT[name] for name in read(["vllm", "serve", *words]).flags if name in _TAKEN_OUT]
        if reasons:
            taken_out[" ".join(words)] = reasons[0]
        else:
            kept += words
    added = [word for flag in put_in for word in flag.split()]
    return CpuCommand((*command[:2], str(model), *kept, *added), taken_out, put_in)


def _flags_with_values(words: Sequence[str]) -> Iterator[list[str]]:
    """Cut a command before each of its flags."""
    group: list[str] = []
    for word in words:
        if group and _FLAG.match(word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def cpu_environment(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of a pod's engine for a server here, whose caches and temporary files go into a folder.

    Nothing of the caller's own environment is in it: a VLLM_* of theirs would change what the server does.
    """
    mounted = (f"{MODELS_MOUNT}/", f"{CACHES_MOUNT}/")
    pod = {name: value for name, value in env.items() if not f"{value}/".startswith(mounted)}
    here = {"HOME": str(folder), "TMPDIR": str(folder), "PATH": "/usr/bin:/bin"}
    return pod | here | _ON_CPU
