"""What the SDK's analyzer does not do: keep levels, refuse unknown names, and show policies what is unknown and what is secret.

All that touches the SDK's inside is here. The engine's calls are changed before the SDK sees them, because it has no public way
to say that a configuration must not lower a level, and hands secrets over in plain text without a word. Reading a value that is
not known yet would turn a mandatory policy into mere advice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set

import grpc
from google.protobuf.struct_pb2 import Struct, Value
from pulumi.runtime import proto
from pulumi_policy import policy as sdk
from pulumi_policy import proxy
from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY

from serving.manifest import UNKNOWN
from serving.spelling import InputError, UnknownKeyError, allowed, did_you_mean

MANIFEST = "manifest"
"""What policies get instead of a resource's properties: those as JSON, with `UNKNOWN` for what is not known yet."""
HOLDS_SECRETS = "holdsSecrets"
"""And whether a value among them is secret. The Kubernetes provider takes a whole list of containers for secret if a value in it
is (`annotateSecrets`), so that nobody can say which one."""

_NOT_KNOWN_YET = frozenset(
    {
        proxy.UNKNOWN_BOOLEAN_VALUE,
        proxy.UNKNOWN_NUMBER_VALUE,
        proxy.UNKNOWN_STRING_VALUE,
        proxy.UNKNOWN_ARRAY_VALUE,
        proxy.UNKNOWN_ASSET_VALUE,
        proxy.UNKNOWN_ARCHIVE_VALUE,
        proxy.UNKNOWN_OBJECT_VALUE,
    }
)


_ALL = "all"  # Pulumi's own name for every policy, which sets levels only


def install(locked: Set[str], parameters: Mapping[str, Sequence[str]]) -> None:
    """Have every `PolicyPack` of this process use an analyzer that keeps the locked policies mandatory.

    `parameters` are the names that a configuration may set, by policy.
    """

    class Analyzer(sdk._PolicyAnalyzerServicer):
        def Configure(self, request: proto.ConfigureAnalyzerRequest, context: grpc.ServicerContext) -> object:  # noqa: N802
            try:
                _refuse_unknown_names(request, parameters)
            except InputError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            for name in locked & set(request.policyConfig):
                request.policyConfig[name].enforcementLevel = proto.MANDATORY
            return super().Configure(request, context)

        def Analyze(self, request: proto.AnalyzeRequest, context: object) -> object:  # noqa: N802
            seen = _Seen()
            # As one text: the SDK unpacks the properties anew for each policy.
            text = json.dumps(seen.mapping(request.properties))
            request.properties.Clear()
            request.properties.update({MANIFEST: text, HOLDS_SECRETS: seen.secrets})
            return super().Analyze(request, context)

    sdk._PolicyAnalyzerServicer = Analyzer


def _refuse_unknown_names(request: proto.ConfigureAnalyzerRequest, parameters: Mapping[str, Sequence[str]]) -> None:
    """Raise `UnknownKeyError` for a name that no policy has. The engine's schemas let any name pass."""
    for policy, config in request.policyConfig.items():
        known = () if policy == _ALL else parameters.get(policy)
        if known is None:
            raise UnknownKeyError(
                f"the policy pack has no policy {policy!r}{did_you_mean(policy, parameters)} (docs/rules.md lists them)"
            )
        for name in config.properties:
            if name not in known:
                may = allowed(("enforcementLevel", *known))
                raise UnknownKeyError(f"{policy}: no parameter {name!r}; {may}{did_you_mean(name, known)}")


class _Seen:
    """Turns properties into plain data; `secrets` is whether one of them was secret."""

    def __init__(self) -> None:
        self.secrets = False

    def mapping(self, properties: Struct) -> dict[str, object]:
        return {name: self._plain(value) for name, value in properties.fields.items()}

    def _plain(self, value: Value) -> object:
        match value.WhichOneof("kind"):
            case "struct_value":
                fields = value.struct_value.fields
                return self._signed(fields) if SPECIAL_SIG_KEY in fields else self.mapping(value.struct_value)
            case "list_value":
                return [self._plain(item) for item in value.list_value.values]
            case "string_value":
                return UNKNOWN if value.string_value in _NOT_KNOWN_YET else value.string_value
            case "number_value":
                return value.number_value
            case "bool_value":
                return value.bool_value
            case _:
                return None

    def _signed(self, fields: Mapping[str, Value]) -> object:
        if fields[SPECIAL_SIG_KEY].string_value != SPECIAL_SECRET_SIG:
            return UNKNOWN  # a file or an archive
        self.secrets = True
        return self._plain(fields["value"]) if "value" in fields else UNKNOWN
