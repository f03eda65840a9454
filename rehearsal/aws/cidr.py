"""Address ranges as EC2 and the provider accept them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from rehearsal.aws.draft import Draft

_SOURCE = "the provider's check of CIDR blocks"


def ipv4(draft: Draft, field: str) -> IPv4Network | None:
    """Return a property's IPv4 range, None if it is absent or unknown; refuse one that is not written canonically."""
    text = draft.text(field)
    if text is None:
        return None
    network = _parsed(draft, field, text)
    if not isinstance(network, IPv4Network):
        raise draft.refusal(field, "must be an IPv4 CIDR block such as 10.0.0.0/16", _SOURCE)
    return network


def any_version(draft: Draft, field: str) -> IPv4Network | IPv6Network | None:
    """Return a property's range of either version, None if it is absent or unknown."""
    text = draft.text(field)
    return None if text is None else _parsed(draft, field, text)


def check_length(draft: Draft, field: str, network: IPv4Network, *, longest: int, shortest: int, source: str) -> None:
    """Refuse a range larger than /shortest or smaller than /longest."""
    if not shortest <= network.prefixlen <= longest:
        raise draft.refusal(field, f"must be between a /{longest} and a /{shortest}", source)


def _parsed(draft: Draft, field: str, text: str) -> IPv4Network | IPv6Network:
    if "/" not in text:
        raise draft.refusal(field, "must be a CIDR block with its prefix length, such as 10.0.0.0/16", _SOURCE)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise draft.refusal(field, "must be a CIDR block such as 10.0.0.0/16", _SOURCE) from None
    if str(network) != text:
        raise draft.refusal(field, f"has host bits set; did you mean '{network}'?", _SOURCE)
    return network
