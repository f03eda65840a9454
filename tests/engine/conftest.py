"""The project under the real Pulumi CLI: a copy of it, with state and plugins' home in folders beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

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

    def steps(self, stack: str, *arguments: str) -> dict[str, str]:
        """Return what a preview would do to each resource that does not stay the same, by its name."""
        plan = json.loads(self.succeed("preview", "--stack", stack, "--json", *arguments))
        return {row["urn"].rpartition("::")[2]: row["op"] for row in plan["steps"] if row["op"] != "same"}


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


@pytest.fixture
def project_on_no_cluster(project: Project) -> Project:
    """The project with a stack `mine` on an existing cluster that does not answer."""
    kubeconfig = project.folder.parent / "kubeconfig"
    context = {"name": "mine", "context": {"cluster": "c", "user": "u"}}
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    known = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": users}
    kubeconfig.write_text(yaml.safe_dump(known), encoding="utf-8")
    config = {
        "glm-on-gpus:cluster": {"kind": "existing", "context": "mine", "kubeconfig": str(kubeconfig)},
        "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5en.48xlarge", "nodes": 1}},
        "glm-on-gpus:workloads": {
            "glm": {
                "nodePool": "h200",
                "precision": "fp8",
                "replicas": 1,
                "maxModelLen": 131072,
                "gpuMemoryUtilization": 0.9,
            }
        },
    }
    (project.folder / "Pulumi.mine.yaml").write_text(yaml.safe_dump({"config": config}), encoding="utf-8")
    project.succeed("stack", "init", "mine")
    return project
