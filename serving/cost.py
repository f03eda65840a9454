"""What the GPU machines cost, from the catalogue's on-demand list prices."""

from __future__ import annotations

from dataclasses import dataclass

from serving.catalogue import InstanceType

HOURS_PER_MONTH = 730  # 365 days / 12


@dataclass(frozen=True)
class Cost:
    """USD per hour of a number of machines; None where the catalogue has no price. `note` says what the figure is."""

    hourly_usd: float | None
    note: str

    @property
    def monthly_usd(self) -> float | None:
        """USD for 730 hours."""
        return None if self.hourly_usd is None else self.hourly_usd * HOURS_PER_MONTH


def pool_cost(instance: InstanceType, nodes: int, region: str | None, capacity: str | None) -> Cost:
    """Return the cost of a pool of which `nodes` run. `capacity` is the kind of capacity, or None on an existing cluster."""
    if not instance.prices:
        return Cost(None, f"no list price of {instance.name} is known")
    here = next((price for price in instance.prices if price.region == region), None)
    price = here or instance.prices[0]
    note = f"on-demand list price of {price.region}, {price.date} ({price.source})"
    if here is None and region is not None:
        note += f"; none is known for {region}"
    if capacity == "capacityBlock" and nodes == 0:
        note += "; no machine runs now, but a Capacity Block is paid up front at its own market price"
    elif capacity == "capacityBlock":
        note += "; a Capacity Block is paid up front at its own market price"
    return Cost(nodes * price.hourly_usd, note)
