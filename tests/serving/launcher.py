"""Starts real vLLM servers on loopback and ends them; none outlives the process that started it."""

from __future__ import annotations

import http.client
import signal
import socket
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rehearsal.control_plane.errors import ControlPlaneError, describe_status, last_lines
from rehearsal.control_plane.supervision import Keeper
from rehearsal.vllm_cpu.command import LOOPBACK, cpu_environment
from rehearsal.vllm_cpu.environment import Environment
from rehearsal.vllm_cpu.server import CpuVllm, warm_up
from rehearsal.vllm_cpu.tiny_glm import TinyGlm

# On two idle cores a cold start takes 45 seconds, a warm one four; a busy machine can take many times as long.
_HEALTHY_SECONDS = 600.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1

_WARM = "vllm, loaded"


class Server:
    """One started server."""

    def __init__(self, keeper: Keeper, name: str, port: int, log: Path) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self._keeper = keeper
        self._name = name
        self._port = port
        self._log = log

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def exit_status(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return self._keeper.ended().get(self._name)

    def wait_until_healthy(self) -> None:
        """Return once it answers at /health; raise a ControlPlaneError that quotes its log if it ends or takes too long."""
        deadline = time.monotonic() + _HEALTHY_SECONDS
        while not self._healthy():
            if (status := self.exit_status()) is not None:
                raise ControlPlaneError(f"vLLM {describe_status(status)}{last_lines(self._log)}")
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"vLLM was not healthy after {_HEALTHY_SECONDS:.0f} s{last_lines(self._log)}")
            time.sleep(_POLL_SECONDS)

    def wait_until_ended(self) -> int:
        """Return its exit status once it has ended."""
        deadline = time.monotonic() + _HEALTHY_SECONDS
        while (status := self.exit_status()) is None:
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"vLLM still ran after {_HEALTHY_SECONDS:.0f} s{last_lines(self._log)}")
            time.sleep(_POLL_SECONDS)
        return status

    def stop(self) -> None:
        """End it as a kubelet does: SIGTERM, and after a grace period SIGKILL."""
        process = self._keeper.programs[self._name]
        process.signal(signal.SIGTERM)
        if not process.wait(_STOP_SECONDS):
            process.signal(signal.SIGKILL)
            process.wait(_STOP_SECONDS)

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Launcher:
    """A context manager. vLLM is imported once, in the background; the servers are forked from that."""

    def __init__(self, environment: Environment, env: Mapping[str, str]) -> None:
        """`env` is the environment that pods give their engines."""
        self._environment = environment
        self._folder = Path(tempfile.mkdtemp(prefix="vllm-cpu-"))
        self._env = cpu_environment(env, self._folder)
        self._keeper = Keeper(self._folder)
        self._started = 0

    def __enter__(self) -> Self:
        log = self._folder / "loaded.log"
        self._keeper.start(_WARM, warm_up(self._environment, self._socket), log=log, cwd=self._folder, env=self._env)
        while not self._socket.exists():
            if _WARM in self._keeper.ended():
                raise ControlPlaneError(f"vLLM could not be imported{last_lines(log)}")
            time.sleep(_POLL_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._keeper.stop()

    @contextmanager
    def server(
        self, command: Sequence[str], model: TinyGlm, *, kv_pool_tokens: int, warm: bool = True
    ) -> Generator[Server]:
        """Start a server with a pod's command; it need not be healthy yet. It is stopped at the end of the block."""
        vllm = CpuVllm(self._environment, model, self._socket if warm else None)
        self._started += 1
        name = f"server {self._started}"
        log = self._folder / f"{name}.log"
        with ExitStack() as stack:
            reserved = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            # Bound without listening, the port stays ours until vLLM, which sets the same option, listens on it.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind((LOOPBACK, 0))
            port = int(reserved.getsockname()[1])
            argv = vllm.argv(command, port=port, kv_pool_tokens=kv_pool_tokens)
            self._keeper.start(name, argv, log=log, cwd=self._folder, env=self._env)
            server = Server(self._keeper, name, port, log)
            stack.callback(server.stop)
            yield server

    @property
    def _socket(self) -> Path:
        return self._folder / "vllm.sock"
