"""The policy pack's analyzer as a rehearsal and Pulumi's engine run it: a process of its own, asked over gRPC."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime import proto

from rehearsal.policy_pack import command, greeted, level

# How the engine sends what is not known yet and what is secret (pulumi `sdk/go/common/resource/plugin/rpc.go`, `properties.go`).
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWNS = {
    "text": UNKNOWN,
    "boolean": "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
    "number": "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
    "array": "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
    "asset": "030794c1-ac77-496b-92df-f27374a8bd58",
    "archive": "e48ece36-62e2-4504-bad9-02848725956a",
    "object": "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
}

_DRY_RUN = {"PULUMI_ORGANIZATION": "organization", "PULUMI_PROJECT": "p", "PULUMI_STACK": "s", "PULUMI_DRY_RUN": "true"}


def secret(value: object) -> dict[str, object]:
    """Return a value as the engine sends it when it is secret."""
    return {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "value": value}


@dataclass(frozen=True)
class Diagnostic:
    """What one policy says of a resource."""

    policy: str
    level: str
    message: str


@dataclass(frozen=True)
class Analyzer:
    """A running analyzer: how the engine asks it. `levels` are the policies' own."""

    stub: Any
    levels: Mapping[str, str]

    def configure(self, config: Mapping[str, str], parameters: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Send each policy's level as the engine does: its own, that of `all`, or the one that is set for it.

        `parameters` are sent as they are, also of a policy that does not exist; the engine has compared them with the schema.
        """
        levels = {name: config.get(name, config.get("all", level)) for name, level in self.levels.items()}
        rows = {
            name: proto.PolicyConfig(enforcementLevel=proto.EnforcementLevel.Value(level.upper()))
            for name, level in levels.items()
        }
        for name, values in (parameters or {}).items():
            rows.setdefault(name, proto.PolicyConfig()).properties.update(values)
        self.stub.Configure(proto.ConfigureAnalyzerRequest(policyConfig=rows))

    def analyze(self, properties: Mapping[str, Any], token: str = "kubernetes:apps/v1:Deployment") -> list[Diagnostic]:
        """Have a resource judged before its step; raises `grpc.RpcError` where the CLI would stop with an analyzer error."""
        request = proto.AnalyzeRequest(type=token, urn=f"urn:pulumi:s::p::{token}::judged", name="judged")
        request.properties.update(properties)
        found = self.stub.Analyze(request).diagnostics
        return [Diagnostic(row.policyName, level(row.enforcementLevel), row.message) for row in found]

    def analyze_stack(self, properties: Mapping[str, Any], token: str) -> list[Diagnostic]:
        """Have a whole stack of one resource judged after its steps."""
        resource = proto.AnalyzerResource(type=token, urn=f"urn:pulumi:s::p::{token}::judged", name="judged")
        resource.properties.update(properties)
        found = self.stub.AnalyzeStack(proto.AnalyzeStackRequest(resources=[resource])).diagnostics
        return [Diagnostic(row.policyName, level(row.enforcementLevel), row.message) for row in found]

    def info(self) -> dict[str, Any]:
        """What the pack says of itself and its policies."""
        answer = self.stub.GetAnalyzerInfo(empty_pb2.Empty())
        return MessageToDict(answer, always_print_fields_with_no_presence=True)


@contextmanager
def running(environment: Path, pack: Path) -> Generator[Analyzer]:
    """Start a pack's analyzer and end it."""
    process = subprocess.Popen(
        command(environment, pack), cwd=pack, env={**os.environ, **_DRY_RUN}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port.isdecimal(), f"the analyzer said {port!r} instead of its port"
        with greeted(int(port), pack) as (stub, info):
            analyzer = Analyzer(stub, {row.name: level(row.enforcementLevel) for row in info.policies})
            analyzer.configure({})
            yield analyzer
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
