"""vLLM and a model that it can serve here, and the processes to start for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.vllm_cpu.command import on_cpu
from rehearsal.vllm_cpu.environment import Environment
from rehearsal.vllm_cpu.tiny_glm import TinyGlm
from serving.argv import read

_WARM = Path(__file__).with_name("warm")


@dataclass(frozen=True)
class CpuVllm:
    """The real vLLM. With a `warm` socket its servers are forked from the process of `warm_up`, else started from nothing."""

    environment: Environment
    model: TinyGlm
    warm: Path | None = None

    def argv(self, command: Sequence[str], *, port: int, kv_pool_tokens: int) -> list[str]:
        """Return the process that serves the tiny model on loopback as a pod's command says.

        Its KV cache has the number of tokens that the pod has on each GPU.
        """
        mtp = "speculative-config" in read(command).flags
        kv_cache_bytes = kv_pool_tokens * self.model.kv_bytes_per_token(mtp=mtp)
        words = on_cpu(command, model=self.model.folder, port=port, kv_cache_bytes=kv_cache_bytes).argv
        if self.warm is None:
            return [str(self.environment.vllm), *words[1:]]
        # -I and -S: nothing of the pod's environment decides what this runs.
        return [sys.executable, "-I", "-S", str(_WARM / "ask.py"), str(self.warm), *words]


def warm_up(environment: Environment, socket: Path) -> list[str]:
    """Return the process that imports vLLM and then forks servers for those who ask at the socket, which it makes at once."""
    return [str(environment.python), "-E", "-s", str(_WARM / "serve.py"), str(socket)]
