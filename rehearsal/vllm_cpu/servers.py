"""The real vLLM for every serving pod of a rehearsal, instead of its stand-in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rehearsal.control_plane import ControlPlane
from rehearsal.control_plane.errors import ControlPlaneError, describe_status, last_lines
from rehearsal.control_plane.install import Progress
from rehearsal.kubelet.programs import EngineContainer, Program
from rehearsal.resource import RehearsalError
from rehearsal.vllm_cpu.command import cpu_environment
from rehearsal.vllm_cpu.environment import build_environment, locked_version
from rehearsal.vllm_cpu.server import CpuVllm, warm_up
from rehearsal.vllm_cpu.tiny_glm import gate_rows, trained
from serving import catalogue
from serving.reading import from_command
from serving.spelling import InputError

_LOADED = "vllm, loaded"
_POLL_SECONDS = 0.1


@dataclass
class CpuServers:
    """A server forked from one process that has vLLM imported, for each serving pod.

    `folder` is their home and holds their temporary files: it is short, for their sockets' paths may have 107 bytes.
    """

    vllm: CpuVllm
    folder: Path
    start_seconds: float = 600.0  # four seconds on two idle cores; a busy machine can take many times as long

    @classmethod
    def started(cls, control_plane: ControlPlane, env: Mapping[str, str], progress: Progress) -> Self:
        """Import vLLM in a process beside a control plane, with what is installed or trained on first use.

        `env` is what pods give their engines: part of it is read while vLLM is imported. Raises `ControlPlaneError` if
        something cannot be installed, trained or imported; quotes its log.
        """
        environment = build_environment(progress)
        model = trained(environment, gate_rows(), progress)
        folder = control_plane.directory / "vllm"
        folder.mkdir()
        socket, log = folder / "vllm.sock", folder / "loaded.log"
        argv = warm_up(environment, socket)
        control_plane.run_beside(_LOADED, argv, log=log, cwd=folder, env=cpu_environment(env, folder))
        while not socket.exists():
            if (status := control_plane.exit_status(_LOADED)) is not None:
                raise ControlPlaneError(f"vLLM could not be imported: it {describe_status(status)}{last_lines(log)}")
            time.sleep(_POLL_SECONDS)
        progress(f"vLLM {locked_version()} for CPUs serves a tiny GLM in every serving pod")
        return cls(CpuVllm(environment, model, socket), folder)

    def program(self, engine: EngineContainer, folder: Path) -> Program:
        """Return vLLM with the container's own command, less what a CPU cannot do, and the KV cache of one of its GPUs.

        Raises `RehearsalError` for a command that vLLM would not read, or whose model the catalogue does not know.
        """
        try:
            argv = self.vllm.argv(engine.command, port=engine.port, kv_pool_tokens=_kv_pool_tokens(engine))
        except InputError as error:
            raise RehearsalError(str(error)) from error
        return Program(argv, cpu_environment(engine.env, self.folder), folder)


def _kv_pool_tokens(engine: EngineContainer) -> int:
    """Return what the pod's own flags leave on each of its GPUs."""
    instance, release = catalogue.instance_type(engine.instance_type), catalogue.engine(engine.engine_version)
    facts = from_command("pod", engine.command, engine.env, engine.image, instance, engine=release)
    if facts.memory is None:
        raise RehearsalError(f"{facts.model} is no checkpoint that the catalogue knows: its KV cache has no known size")
    return facts.memory.kv_pool_tokens
