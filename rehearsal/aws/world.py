"""The rehearsed account: an empty AWS account in one region, and what the program has created in it so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from rehearsal.aws import tokens
from rehearsal.aws.draft import Draft, as_list, as_table, value_at
from rehearsal.aws.pulumi_types import inputs_of

# What AWS answers when a request names something that is not there (error codes of EC2, EKS, IAM, KMS and CloudWatch Logs).
_NOT_FOUND: Final[Mapping[str, str]] = {
    tokens.VPC: "InvalidVpcID.NotFound",
    tokens.SUBNET: "InvalidSubnetID.NotFound",
    tokens.INTERNET_GATEWAY: "InvalidInternetGatewayID.NotFound",
    tokens.EIP: "InvalidAllocationID.NotFound",
    tokens.NAT_GATEWAY: "NatGatewayNotFound",
    tokens.ROUTE_TABLE: "InvalidRouteTableID.NotFound",
    tokens.VPC_ENDPOINT: "InvalidVpcEndpointId.NotFound",
    tokens.SECURITY_GROUP: "InvalidGroup.NotFound",
    tokens.LAUNCH_TEMPLATE: "InvalidLaunchTemplateId.NotFound",
    tokens.PLACEMENT_GROUP: "InvalidPlacementGroup.Unknown",
    tokens.ROLE: "NoSuchEntity",
    tokens.KEY: "NotFoundException",
    tokens.LOG_GROUP: "ResourceNotFoundException",
    tokens.CLUSTER: "ResourceNotFoundException",
    tokens.ACCESS_ENTRY: "ResourceNotFoundException",
}

BlockState = Literal["scheduled", "active", "expired"]
"""What EC2's CapacityReservation.state says of a Capacity Block."""


@dataclass(frozen=True)
class Record:
    """One resource that exists: its plain inputs, and everything that a program can read from it.

    `holds` are the (type, id) of what AWS does not delete while this resource is there.
    """

    token: str
    name: str
    id: str
    inputs: Mapping[str, object]
    outputs: Mapping[str, object]
    holds: frozenset[tuple[str, str]] = frozenset()

    @property
    def resource(self) -> str:
        """Type and name, as refusals cite it."""
        return f"{self.token}::{self.name}"

    def draft(self) -> Draft:
        """Return the resource as it was registered, for checks that only a later resource makes possible."""
        return Draft(self.token, self.name, self.inputs, frozenset(), preview=False)

    def text(self, path: str) -> str:
        """Return a string among the outputs, or an empty one."""
        value = value_at(self.outputs, path)
        return value if isinstance(value, str) else ""

    def flag(self, path: str, default: bool) -> bool:
        """Return a boolean among the outputs."""
        value = value_at(self.outputs, path)
        return value if isinstance(value, bool) else default

    def texts(self, path: str) -> list[str]:
        """Return the strings of a list among the outputs."""
        return [item for item in as_list(value_at(self.outputs, path)) if isinstance(item, str)]

    def table(self, path: str) -> Mapping[str, object]:
        """Return a mapping among the outputs."""
        return as_table(value_at(self.outputs, path))


@dataclass
class World:
    """The account, its region, the day of the rehearsal (ISO date), and what exists, in order of creation.

    `capacity_blocks` are the states of the Capacity Blocks that have been bought, by id; one that is not among them is active.
    `cluster_endpoint` and `cluster_ca` (base64) replace the EKS cluster's own where a real API server stands in for it.
    """

    region: str
    account_id: str
    as_of: str
    cluster_endpoint: str | None = None
    cluster_ca: str | None = None
    capacity_blocks: Mapping[str, BlockState] = field(default_factory=dict[str, BlockState])
    records: dict[tuple[str, str], Record] = field(default_factory=dict[tuple[str, str], Record])

    @property
    def now(self) -> str:
        """The moment that AWS writes on what it creates; the rehearsal has no clock."""
        return f"{self.as_of}T00:00:00Z"

    def of(self, *wanted: str) -> list[Record]:
        """Return what exists of the given types."""
        return [record for record in self.records.values() if record.token in wanted]

    def find(self, token: str, resource_id: str) -> Record | None:
        """Return a resource by type and id."""
        return self.records.get((token, resource_id))

    def with_output(self, token: str, path: str, value: str) -> Record | None:
        """Return the first resource of a type with this value in an output, such as a role by its ARN."""
        return next((record for record in self.of(token) if record.text(path) == value), None)

    def reference(self, draft: Draft, field_path: str, token: str, output: str = "id") -> Record | None:
        """Return the resource that a property refers to; None where that is not known, as in every preview.

        Raises `AwsRefusal` if nothing in the account has that id (or ARN, with `output="arn"`): the account is empty but
        for what the program creates, so the program must create it, and before this resource.
        """
        wanted = draft.text(field_path)
        if wanted is None or draft.preview:
            return None
        found = self.find(token, wanted) if output == "id" else self.with_output(token, output, wanted)
        if found is None:
            reason = (
                f"{_NOT_FOUND[token]}: there is no such {token.rpartition(':')[2]} in the rehearsed account yet; take the "
                "value from the resource's output, so that it is created first"
            )
            raise draft.refusal(field_path, reason, f"AWS error code, region {self.region}")
        return found

    def references(self, draft: Draft, field_path: str, token: str) -> list[Record]:
        """Return the resources that a list of ids refers to, as `reference` does for one."""
        paths = [f"{field_path}[{index}]" for index, _ in enumerate(draft.items(field_path))]
        return [record for record in (self.reference(draft, path, token) for path in paths) if record is not None]

    def unused_hex(self, draft: Draft, digits: int) -> str:
        """Return hexadecimal digits for a new id: the same for the same program, and no others in the account."""
        seed = f"{self.account_id}/{self.region}/{draft.resource}"
        taken = " ".join(record.id for record in self.records.values())
        for attempt in range(len(self.records) + 1):
            digest = hashlib.sha256(f"{seed}/{attempt}".encode()).hexdigest()[:digits]
            if digest not in taken:
                return digest
        raise RuntimeError(f"no id left for {draft.resource}")

    def made_up(self, draft: Draft, purpose: str, digits: int = 32) -> str:
        """Return hexadecimal digits for something that AWS makes up, such as an OIDC issuer: the same for the same program."""
        seed = f"{self.account_id}/{self.region}/{draft.resource}/{purpose}"
        return hashlib.sha256(seed.encode()).hexdigest()[:digits]

    def arn(self, service: str, resource: str, *, regional: bool = True) -> str:
        """Return an ARN of this account."""
        return f"arn:aws:{service}:{self.region if regional else ''}:{self.account_id}:{resource}"


def check_region(draft: Draft, world: World) -> None:
    """Refuse a resource that says it lives in another region: the rehearsal has one."""
    if "region" in inputs_of(draft.token).nested and draft.text("region") not in {None, world.region}:
        raise draft.refusal(
            "region", f"this rehearsal plays {world.region} only; leave region to the provider", "rehearsal"
        )
