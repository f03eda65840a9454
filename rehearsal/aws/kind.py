"""What the stand-in knows about one resource type, as data: its calls, its rules, its outputs, its life and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rehearsal.aws.botocore_models import cited
from rehearsal.aws.draft import Draft
from rehearsal.aws.request import Call
from rehearsal.aws.world import Record, World

Rule = Callable[[Draft, World], None]
Target = tuple[str, str]

# EC2's words for most of what still has something in it.
IN_USE = "DependencyViolation: it has dependencies and cannot be deleted"


@dataclass(frozen=True)
class Naming:
    """How the provider names what the program leaves unnamed: logical name, dash, seven hexadecimal digits."""

    name: str = "name"
    prefix: str = "namePrefix"
    before: str = ""


@dataclass(frozen=True)
class Ending:
    """How a resource ends: the API operation, and AWS's words if something still needs the resource."""

    service: str
    operation: str
    in_use: str = ""

    @property
    def cited(self) -> str:
        """The operation as refusals cite it."""
        return cited(self.service, self.operation)


@dataclass(frozen=True)
class Changing:
    """What can be changed where a resource stands: the API call, what it names the resource by, what it carries, and rules."""

    call: Call
    names: frozenset[str]
    properties: frozenset[str]
    rules: tuple[Rule, ...]


def _nothing(_record: Record, _world: World) -> Iterable[Target]:
    return ()


@dataclass(frozen=True)
class Kind:
    """One resource type.

    `local` are properties that the provider keeps to itself. `holds` names what cannot be deleted while a resource of
    this type exists; `takes_along` what AWS deletes together with it; `changing` what a rehearsal can change of it.
    `computed_inside` are the properties that AWS fills in
    inside an object that is also an input.
    """

    token: str
    calls: tuple[Call, ...]
    identify: Callable[[Draft, World], str]
    computed: Callable[[Draft, World, str], Mapping[str, object]]
    ending: Ending
    rules: tuple[Rule, ...] = ()
    local: frozenset[str] = frozenset()
    naming: Naming | None = None
    changing: Changing | None = None
    defaults: Mapping[str, object] = field(default_factory=dict[str, object])
    computed_inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    holds: Callable[[Record, World], Iterable[Target]] = _nothing
    takes_along: Callable[[Record, World], Iterable[Target]] = _nothing


def with_id(prefix: str, digits: int = 16) -> Callable[[Draft, World], str]:
    """Return how EC2 makes ids: `vpc-0` and sixteen hexadecimal digits."""
    return lambda draft, world: f"{prefix}-0{world.unused_hex(draft, digits)}"


def holds_inputs(**types: str) -> Callable[[Record, World], Iterable[Target]]:
    """Return a `holds` of all that some properties refer to by id: property name -> type."""

    def holds(record: Record, _world: World) -> Iterable[Target]:
        for name, token in types.items():
            yield from ((token, resource_id) for resource_id in [record.text(name), *record.texts(name)] if resource_id)

    return holds
