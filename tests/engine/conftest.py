"""The project under the real Pulumi CLI: a copy of it, with state and plugins' home in folders beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehearsal.run import ROOT
from tests.fixtures.control_plane import control_plane, programs

__all__ = ["control_plane", "programs"]

LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Project:
    """A copy of the project, and the command `pulumi` in it."""

    folder: Path

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the CLI with a backend in a folder, without terminal, update check or downloads."""
        state = self.folder.parent / "state"
        state.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{state}",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_HOME": str(self.folder.parent / "home"),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        }
        return subprocess.run(
            ["pulumi", "--non-interactive", "--color", "never", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )

    def succeed(self, *arguments: str) -> str:
        """Run the CLI; a failure fails the test with all that was said."""
        result = self.pulumi(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of what git would track, because the CLI writes into stack files, with this virtual environment."""
    folder = tmp_path / "project"
    files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(files, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        source = ROOT / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return Project(folder)
