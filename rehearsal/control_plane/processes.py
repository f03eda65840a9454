"""Start a control plane, say when it is ready, and stop it without a trace."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rehearsal.control_plane import commands, kept
from rehearsal.control_plane.access import USERS, kubeconfig, new_tokens, write_private, write_token_file
from rehearsal.control_plane.build import Programs
from rehearsal.control_plane.commands import LOOPBACK, Layout
from rehearsal.control_plane.errors import ControlPlaneError, describe_status, last_lines
from rehearsal.control_plane.identity import POLL_SECONDS, Process
from rehearsal.control_plane.supervision import Keeper

_PROGRAMS = frozenset({"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"})

READY_SECONDS = 120.0
"""How long one program may take until it is ready. On two idle cores all five together take two to three seconds."""

_SOCKET_PATH_LIMIT = 100
"""The longest path of a unix socket that every system takes, in bytes (103 on macOS, 107 on Linux), less a margin for
the longer name of the second socket (etcd-peer.sock). Beyond it etcd fails with a message that does not tell why."""


class ControlPlane:
    """etcd, API server, controller manager, scheduler and KWOK on loopback, in a temporary directory.

    A context manager. However the process that entered it ends, no program and no file of it remains, unless `keep`
    was called. Once it has started, its methods may be called from any thread.
    """

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._keeper: Keeper | None = None
        self._layout: Layout | None = None
        self._tokens = new_tokens()
        self._ports: list[socket.socket] = []
        self._kept = False
        self._started: dict[str, Process] = {}
        self._directory: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every program and return once all of them are ready.

        Raises:
            ControlPlaneError: a program did not start, ended or did not become ready; names it and quotes its log.

        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every program, the last started first, and remove the directory, unless `keep` was called."""
        for port in self._ports:
            port.close()
        self._ports.clear()
        if self._keeper is not None and not self._kept:
            self._started = self._keeper.everything()
            self._keeper.stop()
            self._keeper = None

    def keep(self) -> Path:
        """Let the control plane live on after this process, until `stop_kept`; return its kubeconfig's path."""
        keeper, layout = self._running()
        path = layout.kubeconfig("admin")
        assert keeper.process is not None
        kept.record(
            kept.Kept(
                directory=str(layout.directory),
                server=layout.server,
                kubeconfig=str(path),
                keeper=keeper.process,
                programs=keeper.programs,
            )
        )
        keeper.detach()
        self._kept = True
        return path

    @property
    def kept(self) -> bool:
        """Whether it lives on after this process."""
        return self._kept

    @staticmethod
    def stop_kept() -> list[kept.Kept]:
        """Stop what earlier processes of this user have kept; return what there was."""
        return kept.stop_all()

    def run_beside(self, name: str, argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        """Start another program that lives as long as the control plane at most; no name may be used twice."""
        self._running()[0].start(name, argv, log=log, cwd=cwd, env=env)

    def exit_status(self, name: str) -> int | None:
        """How a program beside the control plane ended, negative for a signal; None while it runs."""
        return self._running()[0].ended().get(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a program beside the control plane, if it still runs."""
        self._running()[0].programs[name].signal(number)

    @property
    def directory(self) -> Path:
        """A folder that is removed with the control plane."""
        return self._running()[1].directory

    def check(self) -> None:
        """Raise a ControlPlaneError if a program of its own has ended; for loops that wait for something in the cluster."""
        keeper, layout = self._running()
        for name, status in keeper.ended().items():
            if name not in _PROGRAMS:
                continue
            raise ControlPlaneError(f"{name} {describe_status(status)}{last_lines(layout.log(name))}")

    def leftovers(self) -> list[str]:
        """After `stop`: the processes that still run and the paths that still exist, empty when all is well."""
        processes = [f"{name} (pid {process.pid})" for name, process in self._started.items() if process.alive()]
        paths = [str(path) for path in [self._directory] if path is not None and path.exists()]
        return processes + paths

    @property
    def server(self) -> str:
        """The API server's URL, on loopback."""
        return self._running()[1].server

    @property
    def certificate_authority(self) -> bytes:
        """The PEM certificates that the API server's own is to be verified with."""
        return self._running()[1].certificate.read_bytes()

    @property
    def serving_certificate(self) -> tuple[Path, Path]:
        """The certificate of loopback, and its key, with which a program beside the control plane can serve the API server."""
        layout = self._running()[1]
        return layout.certificate, layout.key

    @property
    def token(self) -> str:
        """The bearer token of an administrator."""
        return self._tokens["admin"]

    @property
    def kubeconfig(self) -> str:
        """The administrator's kubeconfig, as YAML."""
        return self._kubeconfig("admin")

    def write_kubeconfig(self, path: Path) -> None:
        """Write the administrator's kubeconfig to a file that only the user may read."""
        write_private(path, self.kubeconfig)

    @property
    def programs(self) -> dict[str, Process]:
        """The running programs by name, in the order of their start."""
        return self._running()[0].programs

    def _running(self) -> tuple[Keeper, Layout]:
        if self._keeper is None or self._layout is None:
            raise ControlPlaneError("the control plane is not running: enter it with `with` or call start() first")
        return self._keeper, self._layout

    def _kubeconfig(self, user: str) -> str:
        return kubeconfig(self.server, self.certificate_authority, user, self._tokens[user])

    def _start(self) -> None:
        if self._keeper is not None:
            raise ControlPlaneError("the control plane is running already: call stop() before another start()")
        self._directory = Path(tempfile.mkdtemp(prefix=kept.DIRECTORY_PREFIX))
        self._keeper = Keeper(self._directory)
        self._layout = layout = Layout(self._directory, *(self._reserve_port() for _ in range(3)))
        _check_socket_path(layout.etcd_socket)
        write_token_file(layout.tokens, self._tokens)

        self._run("etcd", commands.etcd)
        self._wait("etcd", lambda: _accepts(layout.etcd_socket))
        self._run("kube-apiserver", commands.kube_apiserver)
        self._wait("kube-apiserver", lambda: self._get(layout.apiserver_port, "/readyz"))
        for user in USERS:
            write_private(layout.kubeconfig(user), self._kubeconfig(user))
        self._run("kube-controller-manager", commands.kube_controller_manager)
        self._run("kube-scheduler", commands.kube_scheduler)
        self._run("kwok", commands.kwok)
        self._wait("kube-scheduler", lambda: self._get(layout.scheduler_port, "/healthz"))
        self._wait("kube-controller-manager", self._controllers_work)
        self._wait("kwok", lambda: "Watch nodes" in layout.log("kwok").read_text())

    def _controllers_work(self) -> bool:
        """Until its namespace has a default service account, the API server refuses every pod."""
        return self._get(self._running()[1].apiserver_port, "/api/v1/namespaces/default/serviceaccounts/default")

    def _reserve_port(self) -> int:
        """A free port that stays ours: bound without listening, and shared only with the program it is for."""
        port = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._ports.append(port)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind((LOOPBACK, 0))
        return int(port.getsockname()[1])

    def _run(self, name: str, command: Callable[[Programs, Layout], list[str]]) -> None:
        keeper, layout = self._running()
        keeper.start(
            name,
            command(self._programs, layout),
            log=layout.log(name),
            cwd=layout.directory,
            # Nothing of the caller's: etcd reads ETCD_*, KWOK reads KWOK_* and a file in the home directory.
            env={"HOME": str(layout.directory), "TMPDIR": str(layout.directory), "PATH": os.defpath},
        )

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                log = self._running()[1].log(name)
                raise ControlPlaneError(f"{name} was not ready after {READY_SECONDS:.0f} s{last_lines(log)}")
            time.sleep(POLL_SECONDS)

    def _get(self, port: int, path: str) -> bool:
        """Whether a program answers a request with 200."""
        try:
            context = ssl.create_default_context(cafile=str(self._running()[1].certificate))
            connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=5, context=context)
            try:
                connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
                return connection.getresponse().status == http.HTTPStatus.OK
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def _check_socket_path(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > _SOCKET_PATH_LIMIT:
        raise ControlPlaneError(
            f"the temporary directory {tempfile.gettempdir()} has too long a name: a unix socket in it would have"
            f" {length} bytes, and {_SOCKET_PATH_LIMIT} are allowed; set TMPDIR to a shorter one"
        )
