"""Quantities as Kubernetes writes them itself.

The API server keeps what it reads of its own kinds in this form, and the webhooks of a custom resource rewrite it so: in any
other form every preview would show a change that nobody made.
"""

from __future__ import annotations

_UNITS = ("Mi", "Gi", "Ti")


def mebibytes(number: int) -> str:
    """Return mebibytes, at least one, in the largest unit that has no fraction: 1536 is 1536Mi, 2048 is 2Gi."""
    unit = 0
    while number % 1024 == 0 and unit + 1 < len(_UNITS):
        number, unit = number // 1024, unit + 1
    return f"{number}{_UNITS[unit]}"


def gibibytes(number: int) -> str:
    """Return gibibytes likewise: 1024 is 1Ti."""
    return mebibytes(number * 1024)


def millicores(number: int) -> str:
    """Return thousandths of a CPU: 250 is 250m, 172000 is 172."""
    return str(number // 1000) if number % 1000 == 0 else f"{number}m"
