"""The example stacks: each is accepted, and its plan as people read it is kept in a golden file.

Renew the files with `python -m tests.unit.test_examples` and read what changed.
"""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import pytest
import yaml

from serving.report import as_markdown
from tests.fixtures.stacks import EXAMPLES, ROOT, plan

GOLDEN = Path(__file__).parent / "examples"
RENEW = "python -m tests.unit.test_examples"


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_plan_of_an_example(name: str) -> None:
    path, now = GOLDEN / f"{name}.md", as_markdown(plan(name))
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    if now != kept:
        diff = "".join(unified_diff(kept.splitlines(True), now.splitlines(True), f"{path.name} (kept)", "planned now"))
        pytest.fail(f"{diff}\n{path.name} is not the plan of {name}. If you meant it: {RENEW}", pytrace=False)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_accepted_without_advice(name: str) -> None:
    made = plan(name)
    assert (made.violations, made.advice) == ([], [])


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_editor_finds_the_schema_of_an_example(name: str) -> None:
    text = (ROOT / "examples" / f"Pulumi.{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../docs/stack.schema.json\n# ")
    assert set(yaml.safe_load(text)) == {"config"}


def test_no_golden_file_is_left_over() -> None:
    assert [path.stem for path in sorted(GOLDEN.iterdir())] == EXAMPLES


def renew() -> None:
    """Write every golden file as the plans are now."""
    GOLDEN.mkdir(exist_ok=True)
    for name in EXAMPLES:
        (GOLDEN / f"{name}.md").write_text(as_markdown(plan(name)), encoding="utf-8")


if __name__ == "__main__":
    renew()
