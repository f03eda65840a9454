"""Runs a Pulumi program against a recording monitor, so that tests assert on what was registered, outside of any apply."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

import pulumi
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks, mocks, rpc, set_mocks
from pulumi.runtime.proto import resource_pb2, source_pb2

from rehearsal.event_loops import event_loops

# Runs a function to its end with every resource registered and every output settled, and raises what went wrong in it.
_to_the_end = cast("Callable[[Callable[[], pulumi.Output[Any]]], Callable[[], None]]", pulumi.runtime.test)

PROJECT = "glm-on-gpus"
STACK = "test"
ACCOUNT = "123456789012"
REGION = "us-east-1"

# What the real providers compute and the components read. A version other than 1 shows that it is passed on, not guessed.
LAUNCH_TEMPLATE_VERSION = 7
CLUSTER_SECURITY_GROUP = "sg-0123456789abcdef0"
CLUSTER_ENDPOINT = "https://0123456789ABCDEF.gr7.us-east-1.eks.amazonaws.com"
CLUSTER_CA = "Y2x1c3RlciBjZXJ0aWZpY2F0ZQ=="


class Unknown:
    """Stands in recorded inputs and outputs for a value that a preview does not know yet."""

    def __repr__(self) -> str:
        return "<unknown>"


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Recorded:
    """One registration: inputs as plain values (secrets opened, unknown ones `UNKNOWN`), and its resource options."""

    urn: str
    type: str
    name: str
    custom: bool
    inputs: Mapping[str, Any]
    secret_inputs: frozenset[str]
    parent: str
    provider: str
    depends_on: frozenset[str]
    protect: bool
    ignore_changes: tuple[str, ...]
    replace_on_changes: tuple[str, ...]
    replacement_trigger: str
    delete_before_replace: bool
    timeouts: Mapping[str, str]

    @property
    def label(self) -> str:
        """Class and name, `Subnet net-private-use1-az6`: names alone repeat among types."""
        return f"{self.type.rpartition(':')[2]} {self.name}"


@dataclass(frozen=True)
class Exported:
    """One value that the program returned."""

    value: Any
    secret: bool


@dataclass
class Run:
    """What a program registered, in order, and what it returned."""

    resources: list[Recorded] = field(default_factory=list[Recorded])
    component_outputs: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    exports: dict[str, Exported] = field(default_factory=dict[str, Exported])

    @property
    def urns(self) -> list[str]:
        """`Type$Type::name` of every registration, sorted: what a rename or a move would change."""
        prefix = f"urn:pulumi:{STACK}::{PROJECT}::"
        return sorted(row.urn.removeprefix(prefix) for row in self.resources)

    def of(self, type_: str) -> list[Recorded]:
        """Return the registrations of a type token, in order."""
        return [row for row in self.resources if row.type == type_]

    def one(self, type_: str, name: str | None = None) -> Recorded:
        """Return the only registration of a type, or the one with that name."""
        found = [row for row in self.of(type_) if name in (None, row.name)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} registrations of {type_} {name or ''} among {self.urns}")
        return found[0]

    def dependencies(self, row: Recorded) -> set[str]:
        """Return the labels of what a resource waits for itself, through its options or its inputs."""
        return {other.label for other in self.resources if other.urn in row.depends_on}

    def all_dependencies(self, row: Recorded) -> set[str]:
        """Return the labels of all that exists before a resource: what it and its provider wait for, and so on."""
        by_urn = {other.urn: other for other in self.resources}
        found: dict[str, Recorded] = {}
        waiting = [row]
        while waiting:
            current = waiting.pop()
            before = {*current.depends_on, current.provider.rpartition("::")[0]} & set(by_urn) - set(found)
            found.update({urn: by_urn[urn] for urn in before})
            waiting.extend(by_urn[urn] for urn in before)
        return {other.label for other in found.values()}


Program = Callable[[], Mapping[str, pulumi.Output[Any]] | None]


def run(program: Program, *, preview: bool = False) -> Run:
    """Run a program as an update, or as a preview in which nothing that a provider computes is known.

    The outputs that the program returns come back in `exports`. An exception of the program comes through.
    """
    result = Run()
    recorder = _Mocks(preview)
    monitor = _Monitor(recorder, result)

    @_to_the_end
    def inner() -> pulumi.Output[Any]:
        set_mocks(recorder, project=PROJECT, stack=STACK, preview=preview, monitor=monitor)
        pulumi.runtime.set_all_config({"aws:region": REGION})
        exported = dict(program() or {})
        return pulumi.Output.from_input({name: _collected(result, name, value) for name, value in exported.items()})

    with event_loops(1), _no_stack_traces():  # one thread, so that registrations are recorded in one order
        inner()
    return result


@contextmanager
def _no_stack_traces() -> Generator[None]:
    """Leave out where in the program a resource was made: an eighth of the time of a run, and no test reads it."""
    with patch.object(pulumi.runtime.resource, "_get_stack_trace", source_pb2.StackTrace):
        yield


def _collected(result: Run, name: str, output: pulumi.Output[Any]) -> pulumi.Output[Any]:
    """Note an output once it is settled, known or not, and whether it is secret."""

    async def settle() -> None:
        known = await output.is_known()
        value = await output.future() if known else UNKNOWN
        result.exports[name] = Exported(value, await output.is_secret())

    return pulumi.Output.from_input(settle())


class _Mocks(Mocks):
    def __init__(self, preview: bool) -> None:
        self._preview = preview

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        inputs = cast("dict[str, Any]", args.inputs)
        if args.custom is False:
            return None, inputs
        if not self._preview:
            return f"{args.name}-id", {**inputs, **_computed(args.typ, args.name, inputs)}
        # The SDK takes what the monitor leaves out for unknown, except inside an object that is also an input.
        inside = {"vpcConfig": rpc.UNKNOWN} if args.typ == "aws:eks/cluster:Cluster" else {}
        return "", {**inputs, **inside}

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program makes no provider invokes, but called {args.token}")


def _computed(type_: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a provider adds to the inputs of a resource."""
    match type_:
        case "aws:eks/cluster:Cluster":
            return {
                "arn": f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{inputs['name']}",
                "endpoint": CLUSTER_ENDPOINT,
                "certificateAuthority": {"data": CLUSTER_CA},
                "vpcConfig": {**inputs["vpcConfig"], "clusterSecurityGroupId": CLUSTER_SECURITY_GROUP},
            }
        case "aws:ec2/launchTemplate:LaunchTemplate":
            return {"latestVersion": LAUNCH_TEMPLATE_VERSION, "name": f"{name}-1a2b3c4"}
        case "aws:ec2/placementGroup:PlacementGroup":
            return {"name": f"{name}-1a2b3c4"}
        case "aws:eks/nodeGroup:NodeGroup":
            return {"nodeGroupName": f"{name}-1a2b3c4"}
        case "aws:iam/role:Role":
            return {"arn": f"arn:aws:iam::{ACCOUNT}:role/{name}", "name": f"{name}-1a2b3c4"}
        case "aws:kms/key:Key":
            return {"arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{name}"}
        case _:
            return {}


class _Monitor(mocks.MockMonitor):
    """Pulumi's mock monitor, which also notes the resource options that mocks are not told."""

    def __init__(self, recorder: _Mocks, result: Run) -> None:
        super().__init__(recorder)
        self._result = result

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> Any:  # noqa: N802 (the engine's name)
        if request.type != "pulumi:pulumi:Stack":
            urn = self.make_urn(request.parent, request.type, request.name)
            self._result.resources.append(_recorded(request, urn))
        return cast("Any", super()).RegisterResource(request)

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> Any:  # noqa: N802
        self._result.component_outputs[request.urn] = _plain(_deserialized(request.outputs))
        return cast("Any", super()).RegisterResourceOutputs(request)


def _deserialized(properties: Any) -> dict[str, Any]:
    return rpc.deserialize_properties(properties, keep_unknowns=True)


def _recorded(request: resource_pb2.RegisterResourceRequest, urn: str) -> Recorded:
    inputs = _deserialized(request.object)
    timeouts = {key: str(getattr(request.customTimeouts, key)) for key in ("create", "update", "delete")}
    return Recorded(
        urn=urn,
        type=request.type,
        name=request.name,
        custom=request.custom,
        inputs=_plain(inputs),
        secret_inputs=frozenset(key for key, value in inputs.items() if rpc.is_rpc_secret(value)),
        parent=request.parent,
        provider=request.provider,
        depends_on=frozenset(request.dependencies),
        protect=request.protect,
        ignore_changes=tuple(request.ignoreChanges),
        replace_on_changes=tuple(request.replaceOnChanges),
        replacement_trigger=_trigger(request),
        delete_before_replace=request.deleteBeforeReplace,
        timeouts={key: value for key, value in timeouts.items() if value},
    )


def _trigger(request: resource_pb2.RegisterResourceRequest) -> str:
    """Return the replacement trigger, a string or nothing."""
    return request.replacement_trigger.string_value


def _plain(value: Any) -> Any:
    """Return a deserialised value with secrets opened and unknown parts named."""
    value = rpc.unwrap_rpc_secret(value)
    if isinstance(value, pulumi.output.Unknown) or value == rpc.UNKNOWN:
        return UNKNOWN
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, Any]", value).items()}
    return [_plain(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value
