"""Quantities as Kubernetes writes them itself."""

from __future__ import annotations

import pytest

from components.quantity import gibibytes, mebibytes, millicores


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (mebibytes(1023), "1023Mi"),
        (mebibytes(1536), "1536Mi"),
        (mebibytes(5120), "5Gi"),
        (mebibytes(1742848), "1702Gi"),
        (mebibytes(2 * 1024**2), "2Ti"),
        (mebibytes(3 * 1024**3), "3072Ti"),
        (gibibytes(16), "16Gi"),
        (gibibytes(1024), "1Ti"),
        (gibibytes(1040), "1040Gi"),
        (millicores(250), "250m"),
        (millicores(172000), "172"),
        (millicores(172500), "172500m"),
    ],
)
def test_quantities(made: str, text: str) -> None:
    assert made == text
