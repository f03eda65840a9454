"""What others say of the workflows, and what no linter knows: pins, permissions, and that a stranger's code gets no token."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.stacks import ROOT
from tests.workflows.steps import FOLDER, WORKFLOWS, jobs, workflow

BIN = ROOT / ".venv" / "bin"
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if not path.suffix)


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_actionlint_finds_nothing(actionlint: Path) -> None:
    # With shellcheck, so that the steps' scripts are read too.
    done = run(actionlint, "-shellcheck", BIN / "shellcheck", "-pyflakes=", *FOLDER.glob("*.yml"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("runs-on: ubuntu-24.04", "runs-on: ubuntu-20.40", 'label "ubuntu-20.40" is unknown'),
        ("contents: read", "content: read", 'unknown permission scope "content"'),
        ("run: make setup", "run: for x in *; do rm $x; done", "SC2086"),
    ],
)
def test_actionlint_would_find_something(actionlint: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (FOLDER / "preview.yml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "preview.yml").write_text(text.replace(old, new), encoding="utf-8")
    done = run(actionlint, "-shellcheck", BIN / "shellcheck", tmp_path / "preview.yml")
    assert done.returncode == 1
    assert said in done.stdout


def zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    # It colours what it says wherever the environment asks for that, as that of CI services does.
    return run(BIN / "zizmor", "--offline", "--no-progress", "--quiet", "--color", "never", "--format", "plain", folder)


def test_zizmor_finds_nothing() -> None:
    done = zizmor(FOLDER)
    assert done.returncode == 0
    # The one that is ignored is the trigger of forks.yml, which says why.
    assert re.match(r"No findings to report\. Good job! \(1 ignored, ", done.stdout), done.stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "actions/checkout@v7", "unpinned-uses"),
        ('"origin/$GITHUB_BASE_REF" "$RUNNER', '"origin/${{ github.head_ref }}" "$RUNNER', "template-injection"),
        ("  pull_request:\n", "  pull_request_target:\n", "dangerous-triggers"),
    ],
)
def test_zizmor_would_find_something(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (FOLDER / "preview.yml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "preview.yml").write_text(text.replace(old, new), encoding="utf-8")
    done = zizmor(tmp_path / "preview.yml")
    assert done.returncode != 0
    assert f"[{said}]" in done.stdout


def test_shellcheck_finds_nothing() -> None:
    assert SCRIPTS
    done = run(BIN / "shellcheck", *SCRIPTS)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_action_is_pinned_to_one_commit_with_its_version() -> None:
    pins: dict[str, set[str]] = {}
    for name in WORKFLOWS:
        for line in (FOLDER / f"{name}.yml").read_text(encoding="utf-8").splitlines():
            if "uses:" in line:
                found = re.fullmatch(r"\s*(?:- )?uses: ([\w./-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
                assert found, line
                pins.setdefault(found[1], set()).add(found[2])
    assert {action: len(versions) for action, versions in pins.items()} == dict.fromkeys(pins, 1)
    assert set(pins) == {
        *("actions/cache", "actions/checkout", "actions/download-artifact", "actions/setup-python"),
        *("actions/upload-artifact", "aws-actions/configure-aws-credentials", "pulumi/actions"),
    }


def test_the_pulumi_of_workflows_is_the_one_that_is_locked() -> None:
    pin = re.search(r"^pulumi==([\d.]+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pin
    versions = {
        step["with"]["pulumi-version"]
        for _, _, job in jobs()
        for step in job["steps"]
        if step.get("uses", "").startswith("pulumi/actions@")
    }
    assert versions == {pin[1]}


READ = {"contents": "read"}
PERMISSIONS = {
    "ci/test": READ,
    "drift/refresh": {**READ, "id-token": "write"},
    "drift/issue": {**READ, "issues": "write"},
    "forks/comment": {**READ, "pull-requests": "write"},
    "preview/plan": READ,
    "preview/rehearse": READ,
    "preview/preview": {**READ, "id-token": "write"},
    "preview/comment": {**READ, "pull-requests": "write"},
    "up/up": {**READ, "id-token": "write"},
}


def test_permissions() -> None:
    assert {f"{name}/{job}": content["permissions"] for name, job, content in jobs()} == PERMISSIONS
    assert all(workflow(name)["permissions"] == {} for name in WORKFLOWS)


def test_every_job_ends_some_time_and_no_secret_is_stored() -> None:
    assert all(0 < int(content["timeout-minutes"]) <= 360 for _, _, content in jobs())
    assert all("secrets." not in (FOLDER / f"{name}.yml").read_text(encoding="utf-8") for name in WORKFLOWS)


def test_runs_of_one_thing_do_not_overlap() -> None:
    assert {name: workflow(name)["concurrency"]["cancel-in-progress"] for name in WORKFLOWS} == {
        "ci": "${{ github.event_name == 'pull_request' }}",
        "drift": "false",
        "forks": "true",
        "preview": "true",
        "up": "false",
    }


def test_strangers_code_meets_no_credentials() -> None:
    # What runs a pull request's code is triggered by pull_request, where GitHub itself withholds tokens and roles from forks.
    assert {name: list(workflow(name)["on"]) for name in WORKFLOWS} == {
        "ci": ["push", "pull_request"],
        "drift": ["schedule", "workflow_dispatch"],
        "forks": ["workflow_run"],
        "preview": ["pull_request"],
        "up": ["push"],
    }
    (comment,) = workflow("forks")["jobs"].values()
    used = [step["uses"].partition("@")[0] for step in comment["steps"] if "uses" in step]
    assert used == ["actions/checkout", "actions/setup-python"]  # no artefact and no cache of the fork's run
    assert "ref" not in comment["steps"][0]["with"]  # the default branch, which the event names
    same = "github.event.pull_request.head.repo.full_name == github.repository"
    preview = workflow("preview")["jobs"]
    assert same in preview["preview"]["if"]
    assert same in preview["comment"]["if"]
