"""The AWS stand-in: an account that takes requests as AWS would, refuses what AWS would refuse, and forgets it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from threading import RLock
from typing import Final, NoReturn

from rehearsal.aws import (
    access,
    addons,
    cluster,
    identity,
    launch_template,
    logs_and_keys,
    network,
    node_group,
    placement,
    routing,
    security_groups,
    tokens,
)
from rehearsal.aws.check import check_request
from rehearsal.aws.draft import UNKNOWN, Draft, as_table, plain
from rehearsal.aws.kind import Kind
from rehearsal.aws.node_group import NodeGroup, as_node_group
from rehearsal.aws.pulumi_types import check_spelling, inputs_of
from rehearsal.aws.refusal import AwsRefusal
from rehearsal.aws.request import requests_for
from rehearsal.aws.world import BlockState, Record, World, check_region
from serving import catalogue
from serving.spelling import did_you_mean, listed

# The day up to which this project's facts about AWS go: what is supported is judged as of then, not by a clock.
FACTS_AS_OF: Final = "2026-11-23"
_MOST_TAGS: Final = 50
_PROTECTIONS: Final[Mapping[str, str]] = {
    tokens.CLUSTER: "deletionProtection",
    tokens.LOG_GROUP: "deletionProtectionEnabled",
}


@cache
def _kinds() -> Mapping[str, Kind]:
    modules = (
        network,
        routing,
        security_groups,
        placement,
        launch_template,
        identity,
        logs_and_keys,
        cluster,
        addons,
        access,
        node_group,
    )
    return {kind.token: kind for module in modules for kind in module.KINDS}


class AwsStandIn:
    """An empty AWS account in one region.

    `create` and `delete` may be called from several threads, as Pulumi does. `as_of` is the day of the rehearsal (ISO date);
    `cluster_endpoint` and `cluster_ca` (base64) replace those of the EKS cluster. `capacity_blocks` are the states of the
    Capacity Blocks that have been bought, by id.
    """

    def __init__(
        self,
        region: str,
        account_id: str = "123456789012",
        *,
        as_of: str = FACTS_AS_OF,
        cluster_endpoint: str | None = None,
        cluster_ca: str | None = None,
        capacity_blocks: Mapping[str, BlockState] | None = None,
    ) -> None:
        regions = catalogue.regions()
        if region not in regions:
            reason = f"is no region that the catalogue knows: {listed(regions)}{did_you_mean(region, regions)}"
            raise AwsRefusal("AwsStandIn", "region", f"'{region}'", reason, "serving/catalogue/accelerators.toml")
        self._world = World(region, account_id, as_of, cluster_endpoint, cluster_ca, capacity_blocks or {})
        self._node_groups: dict[str, NodeGroup] = {}
        self._deleted: set[tuple[str, str]] = set()
        self._lock = RLock()

    def create(
        self, token: str, name: str, inputs: Mapping[str, object], *, preview: bool
    ) -> tuple[str | None, dict[str, object]]:
        """Create a resource; return its id and all that a program can read from it.

        In a preview nothing is created: the id is None, and what only AWS can say is left out. Raises `AwsRefusal`.
        """
        kind = _kind(token, name)
        with self._lock:
            draft = _named(_draft(token, name, inputs, preview), kind, self._world)
            check_spelling(draft)
            check_region(draft, self._world)
            _check_tags(draft)
            for request in requests_for(draft, kind.calls, kind.local | {"region"}, self._id_for_requests(draft, kind)):
                check_request(draft, request)
            for rule in kind.rules:
                rule(draft, self._world)
            given = _as_given(inputs, draft)
            return (None, _with_unknown_insides(given, kind)) if preview else self._keep(draft, kind, given)

    def update(self, token: str, resource_id: str, inputs: Mapping[str, object], *, preview: bool) -> dict[str, object]:
        """Change a resource where it stands; return all that a program can read from it. Raises `AwsRefusal`.

        In a preview the change is judged, and not made.
        """
        with self._lock:
            record = self._world.records[token, resource_id]
            kind = _kind(token, record.name)
            draft = _named(_draft(token, record.name, inputs, preview=False), kind, self._world)
            changed = {name for name in {*draft.inputs, *record.inputs} if draft.at(name) != record.inputs.get(name)}
            _check_change(draft, self._world, kind, changed)
            outputs = {**record.outputs, **{name: draft.inputs[name] for name in changed}}
            if not preview:
                self._replace(replace(record, inputs=draft.inputs, outputs=outputs))
            return outputs

    def tell_capacity_blocks(self, states: Mapping[str, BlockState]) -> None:
        """Let time pass: Capacity Blocks have started or ended."""
        with self._lock:
            self._world.capacity_blocks = states

    def invoke(self, token: str, args: object) -> NoReturn:
        """Refuse a provider function: the program takes its facts from configuration and catalogue."""
        reason = "the program makes no provider invokes, so that a preview needs no account; take the value from configuration"
        raise AwsRefusal(token, "arguments", str(args), reason, "rehearsal/aws")

    def delete(self, token: str, id: str) -> None:  # noqa: A002 (the name in Pulumi's own interface)
        """Delete a resource. Raises `AwsRefusal` if something that exists still needs it, as AWS does."""
        with self._lock:
            record = self._world.find(token, id)
            if record is None:
                self._check_was_here(token, id)
                return
            kind = _kind(token, record.name)
            if (field := _protection(record)) is not None:
                reason = (
                    "InvalidRequestException: deletion protection is on; switch it off before the resource is destroyed"
                )
                raise AwsRefusal(record.resource, field, "true", reason, kind.ending.cited)
            self._check_unused(record, kind)
            for target in list(kind.takes_along(record, self._world)):
                self._forget(target)
            self._forget((token, id))

    def lift_deletion_protection(self) -> list[str]:
        """Switch deletion protection off everywhere, as an operator does before a destroy; return whose it was."""
        with self._lock:
            protected = [record for record in self._world.records.values() if _protection(record) is not None]
            for record in protected:
                outputs = {**record.outputs, _PROTECTIONS[record.token]: False}
                self._world.records[record.token, record.id] = replace(record, outputs=outputs)
            return [record.resource for record in protected]

    def remaining(self) -> list[str]:
        """Return what still exists, as `<type>::<name> (<id>)`, in order of creation."""
        with self._lock:
            return [f"{record.resource} ({record.id})" for record in self._world.records.values()]

    @property
    def node_groups(self) -> list[NodeGroup]:
        """The node groups that exist, in order of creation."""
        with self._lock:
            return list(self._node_groups.values())

    def _id_for_requests(self, draft: Draft, kind: Kind) -> object:
        """Return the id as later requests of the same creation carry it; a preview has none."""
        return UNKNOWN if draft.preview else kind.identify(draft, self._world)

    def _keep(self, draft: Draft, kind: Kind, given: dict[str, object]) -> tuple[str, dict[str, object]]:
        resource_id = kind.identify(draft, self._world)
        computed = dict(kind.computed(draft, self._world, resource_id))
        properties = inputs_of(draft.token).nested
        computed |= {"tagsAll": dict(draft.table("tags"))} if "tags" in properties else {}
        computed |= {"region": self._world.region} if "region" in properties else {}
        outputs = {**draft.inputs, **computed, "id": resource_id}
        record = Record(draft.token, draft.name, resource_id, draft.inputs, outputs)
        record = replace(record, holds=frozenset(kind.holds(record, self._world)))
        self._replace(record)
        # What the program marked as secret stays so: `given` still has Pulumi's wrappers.
        return resource_id, {**given, **computed}

    def _replace(self, record: Record) -> None:
        self._world.records[record.token, record.id] = record
        if record.token == tokens.NODE_GROUP:
            self._node_groups[record.id] = as_node_group(record, self._world)

    def _check_was_here(self, token: str, resource_id: str) -> None:
        if (token, resource_id) not in self._deleted:
            raise AwsRefusal(token, "id", f"'{resource_id}'", "there is no such resource to delete", "rehearsal/aws")

    def _check_unused(self, record: Record, kind: Kind) -> None:
        target = (record.token, record.id)
        users = [other for other in self._world.records.values() if other is not record and target in other.holds]
        if users:
            names = listed(sorted(f"{other.resource} ({other.id})" for other in users))
            reason = f"{kind.ending.in_use}; delete {names} first"
            raise AwsRefusal(record.resource, "id", f"'{record.id}'", reason, kind.ending.cited)

    def _forget(self, target: tuple[str, str]) -> None:
        record = self._world.records.pop(target)
        self._deleted.add(target)
        if record.token == tokens.NODE_GROUP:
            del self._node_groups[record.id]


def _check_change(draft: Draft, world: World, kind: Kind, changed: set[str]) -> None:
    changing = kind.changing
    for name in sorted(changed):
        if changing is None or name not in changing.properties:
            raise draft.refusal(name, "how AWS changes this in place is not rehearsed", "rehearsal/aws")
    if changing is None:
        return
    sent = replace(draft, inputs={name: draft.inputs[name] for name in changing.names | changed})
    for request in requests_for(sent, (changing.call,), frozenset(), None):
        check_request(sent, request)
    for rule in changing.rules:
        rule(draft, world)


def _kind(token: str, name: str) -> Kind:
    kinds = _kinds()
    if token not in kinds:
        reason = (
            f"the rehearsal's AWS stand-in does not know this resource type{did_you_mean(token, kinds)}; it knows "
            f"{len(kinds)}, and a new one is a Kind in the KINDS of a module of rehearsal/aws"
        )
        raise AwsRefusal(f"{token}::{name}", "type", f"'{token}'", reason, "rehearsal/aws/stand_in.py")
    return kinds[token]


def _draft(token: str, name: str, inputs: Mapping[str, object], preview: bool) -> Draft:
    value, secrets = plain(dict(inputs))
    if not isinstance(value, dict):
        raise TypeError(f"inputs of {name} are no mapping")
    return Draft(token, name, value, secrets, preview)  # pyright: ignore[reportUnknownArgumentType]


def _named(draft: Draft, kind: Kind, world: World) -> Draft:
    """Return the draft with the provider's defaults and with the name that the provider makes up."""
    inputs = {**kind.defaults, **draft.inputs}
    naming = kind.naming
    if naming is not None and naming.name not in inputs:
        prefix = draft.text(naming.prefix) if naming.prefix else None
        made_up = f"{naming.before}{draft.name}-{world.made_up(draft, 'name', 7)}"
        if draft.unknown(naming.prefix):
            inputs[naming.name] = UNKNOWN
        else:
            inputs[naming.name] = f"{prefix}{world.made_up(draft, 'name', 26)}" if prefix else made_up
    return replace(draft, inputs=inputs)


def _as_given(inputs: Mapping[str, object], draft: Draft) -> dict[str, object]:
    """Return the inputs as they came, secrets and unknowns included, and what the provider added to them."""
    added = {key: value for key, value in draft.inputs.items() if key not in inputs}
    known = {key: value for key, value in added.items() if value is not UNKNOWN}
    return {**{key: value for key, value in inputs.items() if not key.startswith("__")}, **known}


def _with_unknown_insides(given: dict[str, object], kind: Kind) -> dict[str, object]:
    """Return the outputs of a preview: what is left out is unknown to a program, but only at the top of an object."""
    from pulumi.runtime import rpc  # noqa: PLC0415

    filled = dict(given)
    for name, inside in kind.computed_inside.items():
        secret = rpc.is_rpc_secret(given.get(name))
        value = rpc.unwrap_rpc_secret(given.get(name))
        if isinstance(value, dict):
            known = {**as_table(value), **dict.fromkeys(inside, rpc.UNKNOWN)}
            filled[name] = rpc.wrap_rpc_secret(known) if secret else known
    return filled


def _check_tags(draft: Draft) -> None:
    """Refuse tags that no service takes (the note on tags in EKS CreatePodIdentityAssociation holds for all)."""
    source = "tag restrictions, EKS CreatePodIdentityAssociation and EC2 Tag"
    tags = draft.table("tags")
    if len(tags) > _MOST_TAGS:
        raise draft.refusal("tags", f"at most {_MOST_TAGS} tags, these are {len(tags)}", source)
    for key, value in tags.items():
        if key.lower().startswith("aws:"):
            raise draft.refusal("tags", f"{key}: the prefix aws: is AWS's own", source)
        if len(key) > 127 or (isinstance(value, str) and len(value) > 256):
            raise draft.refusal("tags", f"{key}: a key has at most 127 characters, a value at most 256", source)


def _protection(record: Record) -> str | None:
    """Return the property that protects a resource from deletion, None if nothing does."""
    field = _PROTECTIONS.get(record.token)
    return field if field is not None and record.flag(field, False) else None
