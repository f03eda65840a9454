"""The network interfaces of a launch template: what an instance type has room for, and where EFA goes.

Rules of the EC2 guide (efa-acc-inst-types) and of the EKS guide (ml/device-management-efa); the layout of each type is
the catalogue's.
"""

from __future__ import annotations

from dataclasses import dataclass

from rehearsal.aws.draft import Draft, UnknownValue
from rehearsal.aws.machines import Machine
from serving.spelling import listed

_GUIDE = "EC2 user guide, efa-acc-inst-types"
_MODEL = "EC2 LaunchTemplateInstanceNetworkInterfaceSpecificationRequest"
_TYPES = ("interface", "efa", "efa-only")


@dataclass(frozen=True)
class _Interface:
    path: str
    kind: str
    card: int
    device: int

    @property
    def place(self) -> tuple[int, int]:
        return (self.card, self.device)


def check_interfaces(template: Draft, kind: Machine) -> None:
    """Refuse a template whose interfaces the instance type cannot have."""
    interfaces = _known_interfaces(template)
    if not interfaces:
        return
    _check_number_of_efa(template, kind, interfaces)
    for interface in interfaces:
        _check_place(template, kind, interface)
    _check_no_place_twice(template, interfaces)
    _check_primary(template, interfaces)
    for interface in interfaces:
        _check_efa(template, kind, interface)


def check_types(template: Draft) -> None:
    """Refuse what no instance type can have."""
    several = len(template.items("networkInterfaces")) > 1
    for index, _ in enumerate(template.items("networkInterfaces")):
        path = f"networkInterfaces[{index}]"
        kind = template.text(f"{path}.interfaceType")
        if kind is not None and kind not in _TYPES:
            raise template.refusal(f"{path}.interfaceType", f"must be {listed(_TYPES)}", _MODEL)
        if template.absent(f"{path}.deviceIndex"):
            raise template.refusal(f"{path}.deviceIndex", "required for a network interface", _MODEL)
        if several and template.flag(f"{path}.associatePublicIpAddress"):
            reason = "not with several network interfaces: put the nodes into private subnets behind a NAT gateway"
            raise template.refusal(f"{path}.associatePublicIpAddress", reason, "EC2 RunInstances")


def _known_interfaces(template: Draft) -> list[_Interface]:
    found: list[_Interface] = []
    for index, item in enumerate(template.items("networkInterfaces")):
        path = f"networkInterfaces[{index}]"
        card, device = template.number(f"{path}.networkCardIndex"), template.number(f"{path}.deviceIndex")
        unknown = any(
            template.unknown(f"{path}.{name}") for name in ("interfaceType", "networkCardIndex", "deviceIndex")
        )
        if isinstance(item, UnknownValue) or unknown or device is None:
            # A layout with a hole in it proves nothing; the update has all of it.
            return []
        # "The default is network card index 0."
        found.append(_Interface(path, template.text(f"{path}.interfaceType") or "interface", card or 0, device))
    return found


def _check_number_of_efa(template: Draft, kind: Machine, interfaces: list[_Interface]) -> None:
    efa = [interface for interface in interfaces if interface.kind != "interface"]
    if len(efa) > len(kind.efa_slots):
        reason = f"asks for {len(efa)} EFA interfaces, {kind.name} has at most {len(kind.efa_slots)}"
        # The first one too many is what to take out.
        raise template.refusal(f"{efa[len(kind.efa_slots)].path}.interfaceType", reason, _GUIDE)


def _check_place(template: Draft, kind: Machine, interface: _Interface) -> None:
    if kind.network_cards is not None and not 0 <= interface.card < kind.network_cards:
        reason = f"{kind.name} has {kind.network_cards} network cards, 0 to {kind.network_cards - 1}"
        raise template.refusal(f"{interface.path}.networkCardIndex", reason, _GUIDE)
    if kind.enis_per_card is not None and not 0 <= interface.device < kind.enis_per_card:
        reason = (
            f"The specified number '{interface.device}' for the device index exceeds the maximum number of network interfaces "
            f"supported by the network card: {kind.name} allows 0 to {kind.enis_per_card - 1} on each card"
        )
        raise template.refusal(f"{interface.path}.deviceIndex", reason, "EC2 error text, eksctl#7520")


def _check_no_place_twice(template: Draft, interfaces: list[_Interface]) -> None:
    seen: dict[tuple[int, int], str] = {}
    for interface in interfaces:
        if interface.place in seen:
            reason = f"card {interface.card}, device {interface.device} is taken by {seen[interface.place]} already"
            raise template.refusal(f"{interface.path}.deviceIndex", reason, _GUIDE)
        seen[interface.place] = interface.path


def _check_primary(template: Draft, interfaces: list[_Interface]) -> None:
    primary = next((interface for interface in interfaces if interface.place == (0, 0)), None)
    if primary is None:
        reason = "has no primary interface: one must sit at network card 0, device index 0"
        raise template.refusal("networkInterfaces", reason, _MODEL)
    if primary.kind != "interface":
        reason = "the primary interface (card 0, device 0) must be a plain interface; EFA goes beside it as efa-only"
        raise template.refusal(f"{primary.path}.interfaceType", reason, _GUIDE)


def _check_efa(template: Draft, kind: Machine, interface: _Interface) -> None:
    if interface.kind == "interface":
        return
    if interface.kind == "efa":
        reason = "must be efa-only: nodeadm takes a secondary efa interface for one with an IP address, and the node never joins"
        raise template.refusal(f"{interface.path}.interfaceType", reason, "EKS user guide, ml/device-management-efa")
    if interface.place not in kind.efa_slots:
        allowed = listed([f"{card}/{device}" for card, device in kind.efa_slots])
        reason = (
            f"an EFA interface at card {interface.card}, device {interface.device} has no place on {kind.name}; its EFA places "
            f"(card/device) are {allowed}"
        )
        raise template.refusal(f"{interface.path}.deviceIndex", reason, _GUIDE)
