"""Keeps one comment in a pull request, or one issue, up to date through GitHub's REST API.

Run by jobs that may write and therefore install nothing: the standard library only. What is written carries a marker in its
first line; a text with the same marker by this workflow's bot is edited in place, one by anybody else is left alone.

Environment: GITHUB_API_URL, GITHUB_REPOSITORY and GITHUB_TOKEN, as every workflow has them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

_BOT = "github-actions[bot]"  # whom GITHUB_TOKEN belongs to
_LONGEST_BODY = 65_536  # characters; GitHub answers 422 to a longer one
_PER_PAGE = 100
_TIMEOUT_SECONDS = 30


def _fail(problem: str) -> NoReturn:
    sys.exit(problem)


def request(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Call the API below this repository and return the answer's JSON; end the program with a sentence if it refuses."""
    url = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/{path}"
    call = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    try:
        with urllib.request.urlopen(call, timeout=_TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        _fail(f"{method} {url}: {error.code} {error.reason}: {error.read(500).decode(errors='replace')}")
    except urllib.error.URLError as error:
        _fail(f"{method} {url}: {error.reason}")


def pages(path: str, **query: str) -> Iterator[dict[str, Any]]:
    """Yield every row of a list, page by page."""
    page = 1
    while True:
        rows = request("GET", f"{path}?{urllib.parse.urlencode({**query, 'per_page': _PER_PAGE, 'page': page})}")
        yield from rows
        if len(rows) < _PER_PAGE:
            return
        page += 1


def ours(rows: Iterator[dict[str, Any]], marker: str) -> dict[str, Any] | None:
    """Return the first text that the bot wrote with a marker."""
    return next((row for row in rows if _is_ours(row, marker)), None)


def _is_ours(row: dict[str, Any], marker: str) -> bool:
    # GitHub lists pull requests among the issues.
    return (
        row["user"]["login"] == _BOT and "pull_request" not in row and (row["body"] or "").splitlines()[:1] == [marker]
    )


def _text(file: Path) -> tuple[str, str]:
    """Return a file's marker, its first line, and its text, cut to what GitHub takes."""
    text = file.read_text(encoding="utf-8")
    marker = text.partition("\n")[0]
    if not (marker.startswith("<!--") and marker.endswith("-->")):
        _fail(f"{file}: its first line is no marker <!-- … -->")
    if len(text) > _LONGEST_BODY:
        note = "\n\n… cut: the whole text is in the summary of the run.\n"
        text = text[: _LONGEST_BODY - len(note)].rpartition("\n")[0] + note
    return marker, text


def comment(pull_request: int, file: Path) -> None:
    """Write a file as the comment of a pull request, or over the one that is there."""
    marker, text = _text(file)
    found = ours(pages(f"issues/{pull_request}/comments"), marker)
    if found is None:
        request("POST", f"issues/{pull_request}/comments", {"body": text})
    elif found["body"] != text:
        request("PATCH", f"issues/comments/{found['id']}", {"body": text})


def issue(title: str, file: Path) -> None:
    """Open an issue with a file's text, or write it over the open one with the same marker."""
    marker, text = _text(file)
    found = ours(pages("issues", state="open"), marker)
    if found is None:
        request("POST", "issues", {"title": title, "body": text})
    else:
        request("PATCH", f"issues/{found['number']}", {"title": title, "body": text})


def close(file: Path, because: str) -> None:
    """Close the open issue with a file's marker, if there is one, and say why."""
    marker, _ = _text(file)
    found = ours(pages("issues", state="open"), marker)
    if found is not None:
        request("POST", f"issues/{found['number']}/comments", {"body": because})
        request("PATCH", f"issues/{found['number']}", {"state": "closed", "state_reason": "completed"})


def pull_request(head: str, sha: str) -> None:
    """Print number= and base= of the open pull request whose head is a branch OWNER:BRANCH at a commit, if there is one."""
    rows = [row for row in pages("pulls", state="open", head=head) if row["head"]["sha"] == sha]
    if rows:
        print(f"number={rows[0]['number']}\nbase={rows[0]['base']['ref']}")
    else:
        print(f"{head} at {sha} is the head of no open pull request (any more)", file=sys.stderr)


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    row = commands.add_parser("comment", help="write a pull request's comment")
    row.add_argument("--pull-request", type=int, required=True)
    row.add_argument("--file", type=Path, required=True)
    row = commands.add_parser("issue", help="write an issue")
    row.add_argument("--title", required=True)
    row.add_argument("--file", type=Path, required=True)
    row = commands.add_parser("close", help="close an issue")
    row.add_argument("--file", type=Path, required=True)
    row.add_argument("--because", required=True)
    row = commands.add_parser("pull-request", help="find a pull request by its head")
    row.add_argument("--head", required=True, metavar="OWNER:BRANCH")
    row.add_argument("--sha", required=True)
    arguments = vars(parser.parse_args())
    act = {"comment": comment, "issue": issue, "close": close, "pull-request": pull_request}
    act[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    main()
