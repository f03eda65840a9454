"""One comment or issue that is edited in place, against a stand-in for GitHub's API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.stacks import ROOT
from tests.workflows.github_api import BOT, LONGEST_BODY, TOKEN, GitHub, text_by

SCRIPT = ROOT / "scripts" / "github.py"
MARKER = "<!-- a marker -->"


def run(github: GitHub, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a job does: without this project's environment."""
    environment = {"PATH": os.environ["PATH"], **github.environment, **more}
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), *words], env=environment, capture_output=True, text=True, check=False
    )


def succeed(github: GitHub, *words: str) -> str:
    done = run(github, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.md"
    path.write_text(f"{MARKER}\n## Accepted\n", encoding="utf-8")
    return path


def comment(github: GitHub, file: Path) -> None:
    succeed(github, "comment", "--pull-request", "7", "--file", str(file))


def test_the_first_comment_is_made_and_the_next_ones_edit_it(github: GitHub, file: Path) -> None:
    comment(github, file)
    file.write_text(f"{MARKER}\n## Refused – „ü“\n", encoding="utf-8")
    comment(github, file)
    comment(github, file)  # the same again is no call
    assert [row["body"] for row in github.comments[7]] == [f"{MARKER}\n## Refused – „ü“\n"]
    assert github.calls == ["POST issues/7/comments", "PATCH issues/comments/1001"]


def test_only_the_bots_own_comment_with_this_marker_is_edited(github: GitHub, file: Path) -> None:
    others = [
        text_by("mallory", f"{MARKER}\nmine", 1),
        text_by(BOT, "<!-- another marker -->\nof another workflow", 2),
        text_by(BOT, f"quoting {MARKER}\nin its midst", 3),
        text_by(BOT, None, 4),
        text_by(BOT, "", 5),
    ]
    github.comments[7] = [dict(row) for row in others]
    comment(github, file)
    assert github.comments[7][:5] == others
    assert github.calls == ["POST issues/7/comments"]


def test_a_comment_on_the_third_page_is_found(github: GitHub, file: Path) -> None:
    github.comments[7] = [text_by("someone", "chatter", number) for number in range(1, 251)]
    github.comments[7][207] = text_by(BOT, f"{MARKER}\r\nold", 208)
    comment(github, file)
    assert github.calls == ["PATCH issues/comments/1208"]


@pytest.mark.parametrize("rows", [100, 200])
def test_a_full_last_page_is_no_endless_list(github: GitHub, file: Path, rows: int) -> None:
    github.comments[7] = [text_by("someone", "chatter", number) for number in range(1, rows + 1)]
    comment(github, file)
    assert github.calls == ["POST issues/7/comments"]


def test_a_long_text_is_cut_at_a_line(github: GitHub, file: Path) -> None:
    file.write_text(f"{MARKER}\n" + "| a row of a table |\n" * 5000, encoding="utf-8")
    comment(github, file)
    body = github.comments[7][0]["body"]
    assert LONGEST_BODY - 100 < len(body) <= LONGEST_BODY
    assert body.endswith("| a row of a table |\n\n… cut: the whole text is in the summary of the run.\n")


def test_an_issue_is_opened_updated_and_closed(github: GitHub, file: Path) -> None:
    github.issues = [
        text_by("mallory", f"{MARKER}\nmine", 1, title="x", state="open"),
        text_by(BOT, f"{MARKER}\nfrom a bot", 2, title="a pull request", state="open", pull_request={}),
    ]
    for title in ("Drift", "Drift again"):
        succeed(github, "issue", "--title", title, "--file", str(file))
    succeed(github, "close", "--file", str(file), "--because", "It is gone.")
    succeed(github, "close", "--file", str(file), "--because", "There is none.")
    assert [(row["title"], row["state"]) for row in github.issues] == [
        *(("x", "open"), ("a pull request", "open"), ("Drift again", "closed")),
    ]
    assert [row["body"] for row in github.comments[3]] == ["It is gone."]
    succeed(github, "issue", "--title", "Drift", "--file", str(file))  # a closed one stays closed
    assert [row["state"] for row in github.issues] == ["open", "open", "closed", "open"]


def test_a_pull_request_is_found_by_its_head(github: GitHub) -> None:
    def pull(number: int, label: str, sha: str, state: str = "open") -> dict[str, object]:
        return {"number": number, "state": state, "head": {"label": label, "sha": sha}, "base": {"ref": "release-1"}}

    github.pulls = [
        pull(3, "eve:change", "a" * 40, "closed"),
        pull(4, "eve:change", "b" * 40),
        pull(5, "eve:change", "a" * 40),
        pull(6, "bob:change", "a" * 40),
    ]
    found = succeed(github, "pull-request", "--head", "eve:change", "--sha", "a" * 40)
    assert found == "number=5\nbase=release-1\n"


def test_a_head_that_has_moved_on_is_no_error(github: GitHub) -> None:
    done = run(github, "pull-request", "--head", "eve:change", "--sha", "a" * 40)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"eve:change at {'a' * 40} is the head of no open pull request (any more)\n"


def test_a_refusal_is_one_sentence_without_the_token(github: GitHub, file: Path) -> None:
    done = run(github, "comment", "--pull-request", "7", "--file", str(file), GITHUB_TOKEN="wrong-secret")
    url = github.environment["GITHUB_API_URL"]
    assert done.returncode == 1
    assert done.stderr == (
        f"GET {url}/repos/acme/serving/issues/7/comments?per_page=100&page=1: 401 Unauthorized: "
        '{"message": "Bad credentials"}\n'
    )
    assert "wrong-secret" not in done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_an_api_that_is_not_there(github: GitHub, file: Path) -> None:
    done = run(github, "comment", "--pull-request", "7", "--file", str(file), GITHUB_API_URL="http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("GET http://127.0.0.1:1/repos/acme/serving/issues/7/comments?per_page=100&page=1: ")
    assert done.stderr.count("\n") == 1


def test_a_file_without_a_marker(github: GitHub, file: Path) -> None:
    file.write_text("no marker\n", encoding="utf-8")
    done = run(github, "comment", "--pull-request", "7", "--file", str(file))
    assert (done.returncode, done.stderr) == (1, f"{file}: its first line is no marker <!-- … -->\n")
    assert github.calls == []
