"""From Pulumi properties to the API request that the provider sends.

The way is mechanical: a property goes to the member of the same name, whatever its case, and its value takes the
form that the member's shape asks for. Where AWS and the provider differ in names, a table says so: `Call.renames` for a
resource's own properties, `_NESTED_RENAMES` for those of nested objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from rehearsal.aws.botocore_models import Shape, cited, request_shape
from rehearsal.aws.draft import UNKNOWN, Draft, UnknownValue, as_list, as_table, joined

# (shape, Pulumi property) -> member, where the names differ by more than case.
_NESTED_RENAMES: Final[Mapping[tuple[str, str], str]] = {
    # Terraform's names for what EC2 calls Groups, PrivateIpAddresses and SecondaryPrivateIpAddressCount.
    ("LaunchTemplateInstanceNetworkInterfaceSpecificationRequest", "securityGroups"): "Groups",
    ("LaunchTemplateInstanceNetworkInterfaceSpecificationRequest", "ipv4Addresses"): "PrivateIpAddresses",
    (
        "LaunchTemplateInstanceNetworkInterfaceSpecificationRequest",
        "ipv4AddressCount",
    ): "SecondaryPrivateIpAddressCount",
    ("RemoteAccessConfig", "sourceSecurityGroupIds"): "sourceSecurityGroups",
}

# List members that are structures around one string: Pulumi gives the string alone.
_WRAPPED: Final[Mapping[str, str]] = {
    "InstanceIpv6AddressRequest": "Ipv6Address",
    "PrivateIpAddressSpecification": "PrivateIpAddress",
    "Ipv4PrefixSpecificationRequest": "Ipv4Prefix",
    "Ipv6PrefixSpecificationRequest": "Ipv6Prefix",
    "SecondaryInterfacePrivateIpAddressSpecificationRequest": "PrivateIpAddress",
}


@dataclass(frozen=True)
class Send:
    """Where a property goes in a request, and how its value is built where it is not taken as it is."""

    member: str
    build: Callable[[object], object]


Renames = Mapping[str, "str | Send"]


@dataclass(frozen=True)
class Call:
    """One API call of a resource's creation (or of its update or deletion, where it only checks values).

    `takes` names the properties of this call; None means every property that no other call takes. `subject` is the member
    that gets the resource's id. `apart` sends one request for each property, `each` one for each object of a list property.
    """

    service: str
    operation: str
    renames: Renames = field(default_factory=dict[str, "str | Send"])
    into: str = ""
    takes: frozenset[str] | None = None
    subject: str | None = None
    fixed: Callable[[Draft], Mapping[str, object]] = lambda _: {}
    apart: bool = False
    each: bool = False

    @property
    def cited(self) -> str:
        """The operation as refusals cite it."""
        return cited(self.service, self.operation)


@dataclass
class Request:
    """A request's parameters, and for each path in them the Pulumi property that it came from.

    `built` are the paths whose insides have no counterpart among the properties.
    """

    call: Call
    params: dict[str, object] = field(default_factory=dict[str, object])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    built: set[str] = field(default_factory=set[str])

    @property
    def shape(self) -> Shape:
        """The request's shape."""
        return request_shape(self.call.service, self.call.operation)

    def origin(self, path: str) -> str:
        """Return the Pulumi property behind a path of the request."""
        rest = path
        while rest:
            if rest in self.origins:
                inside = "" if rest in self.built else _as_properties(path[len(rest) :])
                return self.origins[rest] + inside
            cut = max(rest.rfind("."), rest.rfind("["))
            rest = rest[:cut] if cut > 0 else ""
        return self._unsent(path)

    def _unsent(self, path: str) -> str:
        """Return the property that would have filled a member which is not in the request."""
        for name, target in self.call.renames.items():
            if path == (target if isinstance(target, str) else target.member):
                return name
        prefix = f"{self.call.into}." if self.call.into else ""
        return _as_properties(path.removeprefix(prefix))


def requests_for(draft: Draft, calls: tuple[Call, ...], local: frozenset[str], resource_id: object) -> list[Request]:
    """Return the requests of a resource's calls; `local` are the properties that the provider keeps to itself."""
    claimed = frozenset[str]().union(*(call.takes for call in calls if call.takes is not None))
    rest = frozenset(draft.inputs) - claimed - local
    found: list[Request] = []
    for call in calls:
        taken = sorted((rest if call.takes is None else call.takes) & frozenset(draft.inputs))
        if call.takes is None:
            found.append(_request(draft, call, taken, resource_id))
        elif call.apart:
            found.extend(_request(draft, call, [name], resource_id) for name in taken)
        elif call.each:
            paths = [f"{name}[{index}]" for name in taken for index, _ in enumerate(draft.items(name))]
            found.extend(_request_for_item(draft, call, path, resource_id) for path in paths)
        elif taken:
            found.append(_request(draft, call, taken, resource_id))
    return found


def _request(draft: Draft, call: Call, names: list[str], resource_id: object) -> Request:
    request = _started(draft, call, resource_id)
    for name in names:
        _send(draft, request, name, draft.inputs[name], name)
    return request


def _request_for_item(draft: Draft, call: Call, path: str, resource_id: object) -> Request:
    request = _started(draft, call, resource_id)
    for name, value in draft.table(path).items():
        _send(draft, request, name, value, f"{path}.{name}")
    return request


def _started(draft: Draft, call: Call, resource_id: object) -> Request:
    request = Request(call)
    for path, value in call.fixed(draft).items():
        _put(request.params, path, value)
    if call.subject is not None:
        request.params[call.subject] = resource_id
    return request


def _send(draft: Draft, request: Request, name: str, value: object, origin: str) -> None:
    target = request.call.renames.get(name)
    if isinstance(target, Send):
        built = UNKNOWN if isinstance(value, UnknownValue) else target.build(value)
        request.origins[target.member] = origin
        request.built.add(target.member)
        _put(request.params, target.member, built)
        return
    path, shape = _member(draft, request, name, target)
    request.origins[path] = origin
    _put(request.params, path, _shaped(request, value, shape, path, origin))


def _member(draft: Draft, request: Request, name: str, target: str | None) -> tuple[str, Shape]:
    path = target if target is not None else joined(request.call.into, name)
    shape = request.shape
    steps: list[str] = []
    for step in path.split("."):
        member = _same_name(shape, step)
        if member is None:
            reason = (
                f"the rehearsal's AWS stand-in does not know how the provider sends this property; add it to the calls of "
                f"{draft.token} under rehearsal/aws"
            )
            raise draft.refusal(name, reason, request.call.cited)
        steps.append(member)
        shape = shape.members[member]
    return ".".join(steps), shape


def _same_name(shape: Shape, name: str) -> str | None:
    if shape.type_name != "structure":
        return None
    folded = name.casefold()
    return next((member for member in shape.members if member.casefold() == folded), None)


def _shaped(request: Request, value: object, shape: Shape, path: str, origin: str) -> object:
    """Return a value in the form of a shape, and note where each part of it came from."""
    request.origins[path] = origin
    if isinstance(value, UnknownValue):
        return value
    if shape.type_name == "structure":
        return _structure(request, value, shape, path, origin)
    if shape.type_name == "list":
        return _list(request, value, shape, path, origin)
    if shape.type_name == "map":
        table = as_table(value)
        return {
            key: _shaped(request, item, shape.value, f"{path}.{key}", f"{origin}.{key}") for key, item in table.items()
        }
    return _scalar(value, shape)


def _structure(request: Request, value: object, shape: Shape, path: str, origin: str) -> object:
    if not isinstance(value, Mapping):
        wrapped = "Value" if list(shape.members) == ["Value"] else _WRAPPED.get(shape.name)
        if wrapped is None:
            return value
        return {wrapped: _shaped(request, value, shape.members[wrapped], f"{path}.{wrapped}", origin)}
    params: dict[str, object] = {}
    for key, item in as_table(value).items():
        name = _NESTED_RENAMES.get((shape.name, key), key)
        # A member that AWS does not have stays under its own name: the check of the request names it.
        member = _same_name(shape, name) or name
        inner, deeper = f"{path}.{member}", f"{origin}.{key}"
        request.origins[inner] = deeper
        params[member] = (
            _shaped(request, item, shape.members[member], inner, deeper) if member in shape.members else item
        )
    return params


def _list(request: Request, value: object, shape: Shape, path: str, origin: str) -> object:
    if isinstance(value, Mapping):
        pairs = _tag_pairs(as_table(value), shape.member)
        if pairs is not None:
            request.built.add(path)
            return pairs
        # The provider shows lists of at most one object as that object.
        return [_shaped(request, as_table(value), shape.member, f"{path}[0]", origin)]
    if not isinstance(value, list):
        return value
    members = enumerate(as_list(value))
    return [_shaped(request, item, shape.member, f"{path}[{index}]", f"{origin}[{index}]") for index, item in members]


def _tag_pairs(tags: Mapping[str, object], member: Shape) -> list[object] | None:
    """Return tags as AWS's list of pairs, if that is what the list holds: Key and Value, or KMS's TagKey and TagValue."""
    for key, value in (("Key", "Value"), ("TagKey", "TagValue")):
        if member.type_name == "structure" and set(member.members) == {key, value}:
            return [{key: name, value: item} for name, item in tags.items()]
    return None


def _scalar(value: object, shape: Shape) -> object:
    """Return a scalar in the shape's type where the Pulumi bridge converts it too, else as it is."""
    if isinstance(value, str):
        if shape.type_name == "boolean" and value in {"true", "false"}:
            return value == "true"
        if shape.type_name in {"integer", "long"} and value.lstrip("-").isdigit():
            return int(value)
        return value
    if shape.type_name == "string" and isinstance(value, bool):
        return str(value).lower()
    if shape.type_name == "string" and isinstance(value, int | float):
        return str(value)
    return value


def _put(params: dict[str, object], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        inner = params.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise TypeError(f"{path}: {parent} of the request is not a structure")
        params = inner  # pyright: ignore[reportUnknownVariableType]
    params[last] = value


def _as_properties(path: str) -> str:
    """Return API member names in Pulumi's case: `RoleArn` -> `roleArn`."""
    return ".".join(_lower_first(step) for step in path.split("."))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def tag_specifications(resource_type: str) -> Send:
    """Return how a resource's own tags go into an EC2 request."""

    def build(tags: object) -> object:
        pairs: list[object] = [{"Key": key, "Value": value} for key, value in as_table(tags).items()]
        return [{"ResourceType": resource_type, "Tags": pairs}] if pairs else []

    return Send("TagSpecifications", build)


def walked(value: object, shape: Shape, path: str = "") -> Iterator[tuple[str, object, Shape]]:
    """Yield every known part of a request with its path and shape, parents first."""
    if isinstance(value, UnknownValue):
        return
    yield path, value, shape
    if shape.type_name == "structure":
        for key, item in as_table(value).items():
            if key in shape.members:
                yield from walked(item, shape.members[key], joined(path, key))
    elif shape.type_name == "list":
        for index, item in enumerate(as_list(value)):
            yield from walked(item, shape.member, f"{path}[{index}]")
    elif shape.type_name == "map":
        for key, item in as_table(value).items():
            yield joined(path, key), key, shape.key
            yield from walked(item, shape.value, joined(path, key))
