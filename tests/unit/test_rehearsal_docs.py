"""docs/rehearsal.md: its table is the faults as they are. Renew it: `python -m tests.unit.test_rehearsal_docs`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gate.table import CHECKS
from rehearsal.vllm.faults import FAULTS
from serving.spelling import listed

PAGE = Path(__file__).parents[2] / "docs" / "rehearsal.md"


def faults() -> Iterator[str]:
    for fault, row in FAULTS.items():
        names = listed(f"`{check}`" for check in row.caught_by)
        yield f"| `{fault.value}` | {row.effect.replace('<', '&lt;')} | {row.seen} | {names} |"


def renewed(text: str) -> str:
    """Return the page with the table as it is now."""
    rows = "\n".join(faults())
    pattern = r"(<!-- faults -->\n\|[^\n]*\n\|[-:|]*\n).*?(<!-- end of faults -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{rows}\n{match[2]}", text, flags=re.S)


def test_the_page_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert next(faults()) in text
    assert renewed(text) == text, "python -m tests.unit.test_rehearsal_docs"


def test_faults_are_caught_by_checks_that_exist() -> None:
    assert {check for row in FAULTS.values() for check in row.caught_by} <= {check.id for check in CHECKS}


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
