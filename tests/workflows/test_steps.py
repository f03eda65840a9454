"""The steps of the workflows, really run: in a clone as GitHub's checkout leaves it, against a stand-in for GitHub's API.

What needs an account runs with a recording `pulumi` in its place here; the tier `engine` runs the real one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.review.markdown import MARKER
from tests.fixtures.repository import ScratchRepository
from tests.fixtures.stacks import ROOT
from tests.workflows.github_api import BOT, GitHub
from tests.workflows.steps import Runner, scripts

GOLDEN = ROOT / "tests" / "graph" / "reviews" / "context-length.md"
RUN_URL = "https://github.com/acme/serving/actions/runs/42"
NUMBER = 7

# Every step that runs a script. One that is added has to be added here, and exercised below.
STEPS = {
    ("ci", "test", "Test"),
    ("drift", "issue", "Open, update or close the issue"),
    ("drift", "refresh", "Refresh without writing"),
    ("drift", "refresh", "Set up"),
    ("forks", "comment", "Comment"),
    ("forks", "comment", "Compare"),
    ("forks", "comment", "Fetch the head as data"),
    ("forks", "comment", "Find the pull request"),
    ("forks", "comment", "Set up"),
    ("preview", "comment", "Comment"),
    ("preview", "plan", "Compare"),
    ("preview", "plan", "Render both sides"),
    ("preview", "plan", "Set up"),
    ("preview", "preview", "Compare"),
    ("preview", "preview", "Preview"),
    ("preview", "preview", "Set up"),
    ("preview", "rehearse", "Rehearse every stack"),
    ("up", "up", "Set up"),
    ("up", "up", "Update"),
}


def test_every_step_is_known() -> None:
    assert set(scripts()) == STEPS


class Origin:
    """The repository on GitHub, with a pull request: `head` is its commit, and as GitHub does there is a merge of it."""

    def __init__(self, folder: Path, change: Callable[[ScratchRepository], None]) -> None:
        self.repository = ScratchRepository(folder)
        self.repository.git("switch", "--quiet", "--create", "change")
        change(self.repository)
        self.head = self.repository.commit("change")
        self.repository.git("update-ref", f"refs/pull/{NUMBER}/head", self.head)
        self.repository.git("switch", "--quiet", "--detach", "main")
        self.repository.git("merge", "--quiet", "--no-ff", "--message", "merge", self.head)
        self.repository.git("update-ref", f"refs/pull/{NUMBER}/merge", "HEAD")
        self.repository.git("switch", "--quiet", "main")
        self.repository.git(
            "branch", "--quiet", "--delete", "--force", "change"
        )  # it lies in the fork, or is deleted later

    def checkout(self, folder: Path, ref: str) -> Path:
        """Clone as actions/checkout does with fetch-depth 0: all branches, one ref of a pull request, a detached HEAD."""
        git = self.repository.git
        git("clone", "--quiet", "--no-checkout", self.repository.folder.as_uri(), str(folder))
        git("-C", str(folder), "fetch", "--quiet", "origin", ref)
        git("-C", str(folder), "checkout", "--quiet", "--detach", "FETCH_HEAD")
        (folder / ".venv").symlink_to(ROOT / ".venv")
        os.utime(folder / "requirements-dev.txt", (0, 0))  # older than the environment: `make setup` has nothing to do
        return folder


def longer_context(scratch: ScratchRepository) -> None:
    scratch.edit("Pulumi.dev.yaml", ("maxModelLen: 131072", "maxModelLen: 262144"))


def bf16(scratch: ScratchRepository) -> None:
    scratch.edit("Pulumi.prod.yaml", ("precision: fp8", "precision: bf16"))


def machine(origin: Origin, tmp_path: Path, ref: str, **variables: str) -> Runner:
    context = {
        "github.event.pull_request.head.sha": origin.head,
        "github.event.pull_request.number": str(NUMBER),
        "github.event.workflow_run.head_branch": "change",
        "github.event.workflow_run.head_repository.owner.login": "eve",
        "github.event.workflow_run.head_sha": origin.head,
        "github.event.workflow_run.html_url": RUN_URL,
        "github.repository": "acme/serving",
        "github.run_id": "42",
        "github.server_url": "https://github.com",
        "github.token": variables.get("GITHUB_TOKEN", "none"),
        "needs.refresh.result": "failure",
        "vars.PULUMI_BACKEND_URL": "s3://state",
        "vars.PULUMI_STACKS": "prod dev",
    }
    workspace = origin.checkout(tmp_path / "workspace", ref)
    variables = {"GITHUB_BASE_REF": "main", "GITHUB_SHA": origin.head, **variables}
    return Runner(workspace, tmp_path / "temp", context, variables)


def without_base(comment: str) -> str:
    return re.sub(r"\b[0-9a-f]{12}, head (?:[0-9a-f]{12}|the work tree)", "0123456789ab, head the work tree", comment)


# --- preview.yml: without credentials ------------------------------------------------------------------------------------


def test_a_pull_request_is_rendered_compared_and_commented(github: GitHub, tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", longer_context)
    runner = machine(origin, tmp_path, f"refs/pull/{NUMBER}/merge", **github.environment)
    for step in ("Set up", "Render both sides", "Compare"):
        done = runner.run("preview", "plan", step)
        assert (done.returncode, done.stderr) == (0, ""), step
    comment = (runner.temp / "comment.md").read_text(encoding="utf-8")
    footer = f"\nMade for commit {origin.head}; [the run]({RUN_URL}) has the logs.\n"
    assert without_base(comment) == GOLDEN.read_text(encoding="utf-8") + footer
    assert runner.summary.read_text(encoding="utf-8") == comment
    rendered = sorted(str(path.relative_to(runner.temp)) for path in (runner.temp / "rendered").rglob("*.*"))
    assert rendered == [f"rendered/{side}/{stack}.json" for side in ("base", "head") for stack in ("dev", "prod")]
    assert origin.repository.git("-C", str(runner.workspace), "worktree", "list").count("\n") == 0

    # The artefact is downloaded by the job that may write, which the first time makes a comment and then edits it.
    for text in (comment, comment.replace("Accepted", "Accepted again")):
        (runner.temp / "comment-plan").mkdir(exist_ok=True)
        (runner.temp / "comment-plan" / "comment.md").write_text(text, encoding="utf-8")
        assert runner.run("preview", "comment", "Comment").returncode == 0
        assert [row["body"] for row in github.comments[NUMBER]] == [text]
    # A real preview's comment, where there is one, has all that the other has.
    (runner.temp / "comment-preview").mkdir()
    (runner.temp / "comment-preview" / "comment.md").write_text(f"{MARKER}\npreviewed\n", encoding="utf-8")
    assert runner.run("preview", "comment", "Comment").returncode == 0
    assert [row["body"] for row in github.comments[NUMBER]] == [f"{MARKER}\npreviewed\n"]


def test_a_refused_pull_request_fails_and_is_commented(tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", bf16)
    runner = machine(origin, tmp_path, f"refs/pull/{NUMBER}/merge")
    rendered = runner.run("preview", "plan", "Render both sides")
    assert rendered.returncode == 0
    assert "workloads.glm: bf16-one-node: BF16 needs " in rendered.stderr
    assert rendered.stderr.endswith("head: stack prod is not rendered\n")
    done = runner.run("preview", "plan", "Compare")
    assert (done.returncode, done.stderr) == (1, "stack prod is refused: bf16-one-node of glm\n")
    comment = (runner.temp / "comment.md").read_text(encoding="utf-8")
    assert comment.startswith(f"{MARKER}\n## Refused: `prod`\n")
    assert runner.summary.read_text(encoding="utf-8") == comment


def test_a_base_that_is_not_there_leaves_no_comment(tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", longer_context)
    runner = machine(origin, tmp_path, f"refs/pull/{NUMBER}/merge", GITHUB_BASE_REF="gone")
    done = runner.run("preview", "plan", "Compare")
    assert (done.returncode, done.stderr) == (
        2,
        "--base origin/gone: git knows no such commit, branch or tag; did you mean origin/main?\n",
    )
    assert not runner.summary.exists()


def test_every_stack_is_rehearsed(tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", longer_context)
    runner = machine(origin, tmp_path, f"refs/pull/{NUMBER}/merge")
    runner.tool("make", 'echo "$*" >>"$RUNNER_TEMP/made"; [ "$2" != STACK=prod ]')
    assert runner.run("preview", "rehearse", "Rehearse every stack").returncode == 1
    assert (runner.temp / "made").read_text(encoding="utf-8") == "rehearse STACK=dev\nrehearse STACK=prod\n"


# --- with Pulumi ---------------------------------------------------------------------------------------------------------

RECORDER = """
{ printf '%s ' "$@"; echo; } >>"$RUNNER_TEMP/pulumi"
env | grep -E '^(PULUMI_BACKEND_URL|PULUMI_DEBUG_COMMANDS)=' | sort >"$RUNNER_TEMP/environment"
log=; stack=
while [ $# -gt 0 ]; do case $1 in --event-log) log=$2 ;; --stack) stack=$2 ;; esac; shift; done
[ -z "$log" ] || cp "$RUNNER_TEMP/events.jsonl" "$log"
[ "$stack" != "$FAILING" ]
"""


def called(runner: Runner) -> list[str]:
    return [line.strip() for line in (runner.temp / "pulumi").read_text(encoding="utf-8").splitlines()]


def test_every_stack_is_previewed_with_the_policy_pack(tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", longer_context)
    runner = machine(origin, tmp_path, f"refs/pull/{NUMBER}/merge", FAILING="prod")
    runner.tool("pulumi", RECORDER)
    urn = "urn:pulumi:dev::glm-on-gpus::glm-on-gpus:x:X$kubernetes:apps/v1:Deployment::glm-deployment"
    deployment = {"op": "update", "urn": urn, "type": "kubernetes:apps/v1:Deployment", "new": {"custom": True}}
    events = (
        {"resourcePreEvent": {"metadata": deployment}},
        {"summaryEvent": {"result": "succeeded"}},
    )
    (runner.temp / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events), encoding="utf-8")
    assert runner.run("preview", "preview", "Preview").returncode == 1  # prod fails, and dev is previewed all the same
    options = "--non-interactive --color never --suppress-outputs"
    assert called(runner) == [
        f"preview {options} --stack {stack} --policy-pack policy --event-log {runner.temp}/previewed/{stack}.jsonl"
        for stack in ("prod", "dev")
    ]
    environment = (runner.temp / "environment").read_text(encoding="utf-8")
    assert environment == "PULUMI_BACKEND_URL=s3://state\nPULUMI_DEBUG_COMMANDS=true\n"
    (runner.temp / "rendered").mkdir()
    assert runner.run("preview", "preview", "Compare").returncode == 0
    comment = (runner.temp / "comment.md").read_text(encoding="utf-8")
    assert "Resources, by `pulumi preview`: 1 to update.\n" in comment
    assert "| update | `kubernetes:apps/v1:Deployment` `glm-deployment` |" in comment


@pytest.mark.parametrize(
    ("step", "command"),
    [
        (
            ("up", "up", "Update"),
            "up --yes --non-interactive --color never --suppress-outputs --stack prod --policy-pack policy --message {head}",
        ),
        (
            ("drift", "refresh", "Refresh without writing"),
            "refresh --preview-only --expect-no-changes --non-interactive --color never --suppress-outputs --stack prod",
        ),
    ],
)
@pytest.mark.parametrize(("failing", "code"), [("none", 0), ("prod", 1)])
def test_what_pulumi_is_asked(
    step: tuple[str, str, str], command: str, failing: str, code: int, tmp_path: Path
) -> None:
    origin = Origin(tmp_path / "origin", longer_context)
    runner = machine(origin, tmp_path, "refs/heads/main", FAILING=failing)
    runner.tool("pulumi", RECORDER)
    assert runner.run(*step).returncode == code
    assert called(runner) == [command.format(head=origin.head)]
    assert "PULUMI_BACKEND_URL=s3://state\n" in (runner.temp / "environment").read_text(encoding="utf-8")


# --- forks.yml -----------------------------------------------------------------------------------------------------------


def pull_request(origin: Origin) -> dict[str, object]:
    head = {"label": "eve:change", "sha": origin.head}
    return {"number": NUMBER, "state": "open", "head": head, "base": {"ref": "main"}}


def forks_runner(origin: Origin, github: GitHub, tmp_path: Path) -> Runner:
    """A machine on the default branch, as for the event workflow_run, after the pull request was looked for."""
    runner = machine(origin, tmp_path, "refs/heads/main", **github.environment)
    done = runner.run("forks", "comment", "Find the pull request")
    assert done.returncode == 0
    outputs = {f"steps.pull-request.outputs.{name}": text for name, text in runner.outputs().items()}
    runner.context = {**runner.context, **outputs}
    return runner


def test_a_forks_pull_request_is_commented_without_running_its_code(github: GitHub, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    def strangers(scratch: ScratchRepository) -> None:
        longer_context(scratch)
        for name in ("serving/__init__.py", "scripts/github.py"):
            scratch.write(name, f"import pathlib; pathlib.Path({str(ran)!r}).touch()")
        scratch.write("Makefile", f"setup:\n\ttouch {ran}\n")
        scratch.write("scripts/compare", f"touch {ran}\n")

    origin = Origin(tmp_path / "origin", strangers)
    github.pulls = [pull_request(origin)]
    runner = forks_runner(origin, github, tmp_path)
    assert runner.outputs() == {"number": str(NUMBER), "base": "main"}
    for step in ("Set up", "Fetch the head as data", "Compare", "Comment"):
        done = runner.run("forks", "comment", step)
        assert (done.returncode, done.stderr) == (0, ""), step
    assert not ran.exists()
    (comment,) = github.comments[NUMBER]
    assert comment["user"]["login"] == BOT
    body = comment["body"]
    assert body.startswith(f"{MARKER}\n## Accepted: `dev`\n")
    assert "| `workloads.glm.maxModelLen` | `131072` | `262144` |\n" in body
    assert "the head by the code that made this comment, **not by its own**.\n" in body
    assert body.endswith(f"\nMade for commit {origin.head}; [the run]({RUN_URL}) has the logs.\n")


def test_a_forks_refused_change_is_commented_too(github: GitHub, tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", bf16)
    github.pulls = [pull_request(origin)]
    runner = forks_runner(origin, github, tmp_path)
    for step in ("Fetch the head as data", "Compare", "Comment"):
        assert runner.run("forks", "comment", step).returncode == 0, step
    assert github.comments[NUMBER][0]["body"].startswith(f"{MARKER}\n## Refused: `prod`\n")


def test_a_fork_that_has_moved_on_is_left_to_its_next_run(github: GitHub, tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", longer_context)
    assert forks_runner(origin, github, tmp_path / "a").outputs() == {}  # closed, or another head: no further step
    github.pulls = [pull_request(origin)]
    runner = forks_runner(origin, github, tmp_path / "b")
    origin.repository.git("update-ref", f"refs/pull/{NUMBER}/head", origin.repository.base)
    assert runner.run("forks", "comment", "Fetch the head as data").returncode == 1


# --- drift.yml and ci.yml ------------------------------------------------------------------------------------------------


def test_drift_opens_an_issue_that_the_next_calm_night_closes(github: GitHub, tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", longer_context)
    runner = machine(origin, tmp_path, "refs/heads/main", **github.environment)
    for result in ("failure", "failure", "success", "success"):
        runner.context = {**runner.context, "needs.refresh.result": result}
        done = runner.run("drift", "issue", "Open, update or close the issue")
        assert (done.returncode, done.stderr) == (0, "")
    (issue,) = github.issues
    assert (issue["title"], issue["state"]) == ("Stack prod has drifted", "closed")
    assert issue["body"] == (
        "<!-- glm-on-gpus: drift of prod -->\n"
        "`pulumi refresh --preview-only --expect-no-changes --stack prod` did not end well: somebody has changed what the stack\n"
        f"made, or the stack cannot be read. [The last run]({RUN_URL}) says which.\n\n"
        "To keep a change, put it into the program or the stack file; to undo it, run\n"
        "`PULUMI_K8S_ENABLE_PATCH_FORCE=true pulumi up --refresh --stack prod`: without the variable Kubernetes keeps what\n"
        "others have set, and the update says whose it is.\n"
    )
    assert [row["body"] for row in github.comments[1]] == [f"No drift any more, says [this run]({RUN_URL})."]


def test_ci_is_what_a_laptop_runs(tmp_path: Path) -> None:
    origin = Origin(tmp_path / "origin", longer_context)
    runner = machine(origin, tmp_path, "refs/heads/main")
    runner.tool("make", 'echo "$PWD: $*" >"$RUNNER_TEMP/made"')
    assert runner.run("ci", "test", "Test").returncode == 0
    assert (runner.temp / "made").read_text(encoding="utf-8") == f"{runner.workspace}: test\n"


@pytest.mark.parametrize("job", [("drift", "refresh"), ("preview", "preview"), ("up", "up")])
def test_setting_up(job: tuple[str, str], tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.fail("there is no make on PATH; the project needs it")
    origin = Origin(tmp_path / "origin", longer_context)
    runner = machine(origin, tmp_path, "refs/heads/main")
    done = runner.run(*job, "Set up")
    assert (done.returncode, done.stderr) == (0, "")
