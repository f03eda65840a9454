"""What the catalogue knows about an instance type, as far as AWS enforces it."""

from __future__ import annotations

from dataclasses import dataclass

from rehearsal.aws.draft import Draft
from serving import catalogue
from serving.spelling import UnknownKeyError, did_you_mean, listed

_SOURCE = "serving/catalogue/accelerators.toml"


@dataclass(frozen=True)
class Machine:
    """An instance type. None means that the catalogue does not say, so that nothing can be enforced.

    `efa_slots` are the (network card, device) places that EFA interfaces may take.
    """

    name: str
    gpus: int
    network_cards: int | None
    enis_per_card: int | None
    efa_slots: tuple[tuple[int, int], ...]
    regions: tuple[str, ...] | None
    zones: tuple[str, ...] | None


def machine(draft: Draft, field: str, name: str) -> Machine:
    """Return an instance type; refuse one that the catalogue does not have."""
    known = sorted({*catalogue.instance_types(), *catalogue.system_instance_types()})
    if name in catalogue.instance_types():
        kind = catalogue.instance_type(name)
        slots = tuple((slot.network_card_index, slot.device_index) for slot in kind.efa_interfaces)
        zones = kind.availability_zone_ids or None
        regions = kind.regions or None
        return Machine(name, kind.gpus, kind.network_cards, kind.enis_per_card, slots, regions, zones)
    try:
        catalogue.system_instance_type(name)
    except UnknownKeyError:
        reason = f"is no instance type that the catalogue knows: {listed(known)}{did_you_mean(name, known)}"
        raise draft.refusal(field, reason, _SOURCE) from None
    return Machine(name, 0, None, None, (), None, None)
