"""docs/gate.md: its tables are the checks and the bounds as they are. Renew them: `python -m tests.unit.test_gate_docs`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gate.budget import budget
from gate.table import CHECKS
from tests.fixtures.fake_engine import EXPECT

PAGE = Path(__file__).parents[2] / "docs" / "gate.md"

# facts of docs/gate.md: p5en, FP8, MTP, four requests at a time; llm-d, MTP 3; prefill measured on an H200.
STEP_SECONDS_P5EN, STEP_SECONDS_LLM_D, PREFILL = 4 / 337, 1 / 60, 8_000
MODELS = {"GLM-5.2 (switchable)": EXPECT, "GLM-5.3 (always)": replace(EXPECT, thinking="always")}


def checks() -> Iterator[str]:
    for check in CHECKS:
        yield f"| `{check.id}` | {check.stage} | {check.proves} | {check.cause} |"


def bounds() -> Iterator[str]:
    for model, expect in MODELS.items():
        most = budget(expect)
        prefill = most.prompt_tokens / PREFILL
        seconds = [prefill + most.steps * step for step in (STEP_SECONDS_P5EN, STEP_SECONDS_LLM_D)]
        tokens = f"{most.prompt_tokens:,} | {most.completion_tokens:,} | {most.steps:,}"
        yield f"| {model} | {tokens} | {seconds[0]:.0f} s | {seconds[1]:.0f} s |"


SECTIONS: Mapping[str, Callable[[], Iterator[str]]] = {"checks": checks, "budget": bounds}


def renewed(text: str, section: str) -> str:
    """Return the page with the rows of a section as they are now."""
    rows = "\n".join(SECTIONS[section]())
    pattern = rf"(<!-- {section} -->\n\|[^\n]*\n\|[-:|]*\n).*?(<!-- end of {section} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{rows}\n{match[2]}", text, flags=re.S)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_is_current(section: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert next(iter(SECTIONS[section]())) in text
    assert renewed(text, section) == text, "python -m tests.unit.test_gate_docs"


def test_every_check_says_what_it_proves_and_what_breaks_it() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert re.fullmatch(r"[a-z0-9-]+", check.id)
        assert "|" not in f"{check.proves}{check.cause}"
        assert check.proves
        assert check.cause


def renew() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for section in SECTIONS:
        text = renewed(text, section)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    renew()
