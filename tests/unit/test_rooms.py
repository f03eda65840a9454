"""What the rooms may import: knowledge knows no engine, no network and no clock, and its command line loads them late."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.stacks import ROOT

KNOWLEDGE = sorted((ROOT / "serving").rglob("*.py"))

OTHER_ROOMS = {"components", "gate", "policy", "registry", "rehearsal"}
ENGINES = {"pulumi", "pulumi_aws", "pulumi_kubernetes", "pulumi_policy", "kubernetes"}
NETWORK = {"asyncio", "botocore", "http", "httpx2", "requests", "socket", "ssl", "urllib", "urllib3"}
CLOCKS = {"time", "random"}
NOW = {"now", "today", "utcnow"}  # what makes a clock of the module datetime

# What the command line may do once it knows its command.
LATE = {"__main__.py": {"registry"}}


def imports(node: ast.AST) -> Iterator[str]:
    """Yield the package of every import below a node."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and child.level == 0:
            yield child.module.partition(".")[0]


@pytest.mark.parametrize("path", KNOWLEDGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_knowledge_is_pure(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))
    forbidden = OTHER_ROOMS | ENGINES | NETWORK | CLOCKS
    assert set(imports(module)) & forbidden == LATE.get(path.name, set())
    assert {row.attr for row in ast.walk(module) if isinstance(row, ast.Attribute)} & NOW == set()


def test_the_registry_is_loaded_by_its_command_only() -> None:
    module = ast.parse((ROOT / "serving" / "__main__.py").read_text(encoding="utf-8"))
    users = [row.name for row in module.body if isinstance(row, ast.FunctionDef) and "registry" in set(imports(row))]
    assert users == ["_pin"]


def test_the_registrys_room_knows_no_engine_and_no_other_room() -> None:
    for path in sorted((ROOT / "registry").rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        assert set(imports(module)) & (ENGINES | OTHER_ROOMS - {"registry"}) == set()
