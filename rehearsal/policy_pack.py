"""The policy pack in a rehearsal: its analyzer, asked before anything is made, as Pulumi's engine asks it, without the engine.

What is started, and the order of the calls, is what the CLI does (3.259, `pkg/resource/plugin/analyzer_plugin.go`,
`pkg/engine/update.go`, `sdk/python/cmd/pulumi-language-python/main.go`).
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime import proto
from pulumi.runtime.proto import analyzer_pb2_grpc

from rehearsal.control_plane import ControlPlane
from rehearsal.control_plane.errors import describe_status, last_lines
from rehearsal.control_plane.install import Progress
from rehearsal.control_plane.python_environment import PYTHON
from rehearsal.policy_environment import PACK, policy_environment
from rehearsal.resource import RehearsalError, Resource
from serving.config import PROJECT

NO_ENGINE = "127.0.0.1:1"
"""The engine's address, for a pack that asks the engine nothing."""

_MANDATORY = "mandatory"
_START_SECONDS = 60.0  # two on an idle core
_ANSWER_SECONDS = 60.0  # milliseconds on an idle core
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Judgement:
    """What a policy has against a resource. `level` is mandatory or advisory; `message` is one line."""

    policy: str
    level: str
    resource: str
    message: str

    def __str__(self) -> str:
        """Return one line: the resource, the policy, the reason."""
        return f"{self.resource}: {self.policy}: {self.message}"


class PolicyPack:
    """The pack's analyzer, running beside a control plane until `stop`. `process` is its name there."""

    def __init__(self, control_plane: ControlPlane, process: str, log: Path) -> None:
        self.process = process
        self._control_plane = control_plane
        self._log = log

    @classmethod
    def started(cls, control_plane: ControlPlane, stack: str, progress: Progress) -> Self:
        """Start it; its packages are installed first if this user has none. Raises `ControlPlaneError`."""
        environment = policy_environment(progress)
        folder = Path(tempfile.mkdtemp(prefix="policy-", dir=control_plane.directory))
        log = folder / "analyzer.log"
        control_plane.run_beside(
            folder.name,
            command(environment, PACK),
            log=log,
            cwd=PACK,
            env={
                "HOME": str(folder),
                "PATH": os.defpath,
                # Nothing is written into the work tree.
                "PYTHONDONTWRITEBYTECODE": "1",
                "PULUMI_ORGANIZATION": "organization",
                "PULUMI_PROJECT": PROJECT,
                "PULUMI_STACK": stack,
                "PULUMI_DRY_RUN": "true",
            },
        )
        return cls(control_plane, folder.name, log)

    def judge(self, resources: Iterable[Resource]) -> tuple[int, list[Judgement]]:
        """Return how many policies there are, and what they have against resources; raises `RehearsalError` if one is refused."""
        found: list[Judgement] = []
        try:
            with greeted(self._port(), PACK) as (stub, info):
                stub.Configure(
                    proto.ConfigureAnalyzerRequest(
                        policyConfig={
                            row.name: proto.PolicyConfig(enforcementLevel=row.enforcementLevel) for row in info.policies
                        }
                    )
                )
                for resource in resources:
                    found += _judged(stub, resource)
        except grpc.RpcError as error:
            raise RehearsalError(f"the policy pack has not judged: {_said(error)}{last_lines(self._log)}") from None
        if refused := [str(row) for row in found if row.level == _MANDATORY]:
            raise RehearsalError(f"the policy pack refuses {'; '.join(refused)}")
        return len(info.policies), found

    def stop(self) -> None:
        """End it, if it still runs."""
        self._control_plane.signal(self.process, signal.SIGTERM)

    def _port(self) -> int:
        """Return the port that it has said first, once it has."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True) if self._log.exists() else []
            for line in lines:
                if line.endswith("\n") and line.strip().isdecimal():
                    return int(line)
            status = self._control_plane.exit_status(self.process)
            if status is not None:
                raise RehearsalError(f"the policy pack {describe_status(status)}{last_lines(self._log)}")
            if time.monotonic() > deadline:
                raise RehearsalError(
                    f"the policy pack did not start within {_START_SECONDS:.0f} s{last_lines(self._log)}"
                )
            time.sleep(_POLL_SECONDS)


def command(environment: Path, pack: Path) -> list[str]:
    """Return the argv that runs a pack's analyzer; the first line that it prints is its port on loopback."""
    return [str(environment / PYTHON), "-u", "-m", "pulumi.policy", NO_ENGINE, str(pack)]


@contextmanager
def greeted(port: int, pack: Path) -> Generator[tuple[Any, Any]]:
    """Connect to an analyzer and greet it as the engine does; yield its stub and what it says of itself and its policies."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = analyzer_pb2_grpc.AnalyzerStub(channel)
        request = proto.AnalyzerHandshakeRequest(
            engine_address=NO_ENGINE, root_directory=str(pack), program_directory=str(pack)
        )
        try:
            stub.Handshake(request, timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            # The SDK for Python has none, and the engine goes on.
            if _code(error) != grpc.StatusCode.UNIMPLEMENTED:
                raise
        stub.ConfigureStack(proto.AnalyzerStackConfigureRequest(stack="s", project="p", dry_run=True))
        yield stub, stub.GetAnalyzerInfo(empty_pb2.Empty())


def level(number: proto.EnforcementLevel.ValueType) -> str:
    """Return an enforcement level's name."""
    return proto.EnforcementLevel.Name(number).lower()


def _judged(stub: Any, resource: Resource) -> Iterator[Judgement]:
    request = proto.AnalyzeRequest(type=resource.type, urn=resource.urn, name=resource.name)
    request.properties.CopyFrom(resource.sent)
    for row in stub.Analyze(request, timeout=_ANSWER_SECONDS).diagnostics:
        message = ": ".join(line.strip() for line in row.message.splitlines())
        yield Judgement(row.policyName, level(row.enforcementLevel), resource.label, message)


def _code(error: grpc.RpcError) -> object:
    """Return a failed call's status code."""
    return error.code() if isinstance(error, grpc.Call) else None


def _said(error: grpc.RpcError) -> str:
    """Return a failed call's words."""
    return (error.details() if isinstance(error, grpc.Call) else None) or str(error)
