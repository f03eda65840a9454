"""A whole rehearsal with the real vLLM in every serving pod: the real gate lets it pass, and nothing is left."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from rehearsal.control_plane import Programs
from rehearsal.run import ROOT
from rehearsal.vllm_cpu.environment import locked_version
from rehearsal.vllm_cpu.tiny_glm import TinyGlm
from tests.fixtures.control_plane import programs
from tests.fixtures.rehearsals import command, processes_of, work_tree

__all__ = ["programs"]

LIMIT_SECONDS = 1800  # a minute on two idle cores


def test_a_stack_is_rehearsed_on_vllm(programs: Programs, good: TinyGlm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert programs.complete()
    assert good.complete()
    tree = work_tree()
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        words = command("up", "--stack", "dev", "--serving", "vllm")
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr == ""
        lines = " ".join(result.stdout.split())
        assert f"vLLM {locked_version()} for CPUs serves a tiny GLM in every serving pod" in lines
        assert re.search(r"passed \d+ checks", lines), lines
        assert "✓ stack dev is rehearsed" in lines
        assert processes_of(Path(folder)) == set()
        assert list(Path(folder).iterdir()) == []
    assert work_tree() == tree
