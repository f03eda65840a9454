"""A stand-in for the part of GitHub's REST API that the workflows use: comments, issues and pull requests, in memory."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fixtures.http_server import Server

BOT = "github-actions[bot]"
TOKEN = "a-token-for-tests"
REPOSITORY = "acme/serving"
LONGEST_BODY = 65_536


def text_by(login: str, body: str | None, number: int, **more: Any) -> dict[str, Any]:
    """A comment or an issue as the API shows it."""
    return {"id": 1000 + number, "number": number, "user": {"login": login}, "body": body, **more}


@dataclass
class GitHub:
    """What the repository holds; `calls` are the requests that changed something, in order."""

    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict[int, list[dict[str, Any]]])
    issues: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    pulls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    calls: list[str] = field(default_factory=list[str])

    def __enter__(self) -> GitHub:
        fake = self

        class Handler(_Handler):
            github = fake

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What a workflow's step finds."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {"GITHUB_API_URL": url, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_TOKEN": TOKEN}

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Return the status and the JSON of one call below the repository."""
        if method != "GET":
            self.calls.append(f"{method} {path}")
            if len(body.get("body", "")) > LONGEST_BODY:
                return 422, {"message": f"body is too long (maximum is {LONGEST_BODY} characters)"}
        match method, *path.split("/"):
            case "GET", "issues", number, "comments":
                return 200, _page(self.comments.get(int(number), []), query)
            case "POST", "issues", number, "comments":
                rows = self.comments.setdefault(int(number), [])
                rows.append(text_by(BOT, body["body"], len(rows) + 1))
                return 201, rows[-1]
            case "PATCH", "issues", "comments", identity:
                row = next(r for rows in self.comments.values() for r in rows if r["id"] == int(identity))
                return 200, row.update(body) or row
            case "GET", "issues":
                return 200, _page([row for row in self.issues if row["state"] == query["state"]], query)
            case "POST", "issues":
                self.issues.append(text_by(BOT, body["body"], len(self.issues) + 1, title=body["title"], state="open"))
                return 201, self.issues[-1]
            case "PATCH", "issues", number:
                row = next(r for r in self.issues if r["number"] == int(number))
                return 200, row.update(body) or row
            case "GET", "pulls":
                rows = [r for r in self.pulls if r["head"]["label"] == query["head"] and r["state"] == query["state"]]
                return 200, _page(rows, query)
            case _:
                return 404, {"message": "Not Found"}


def _page(rows: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    size, page = min(int(query.get("per_page", "30")), 100), int(query.get("page", "1"))
    return rows[(page - 1) * size : page * size]


class _Handler(BaseHTTPRequestHandler):
    github: GitHub

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        below = re.fullmatch(rf"/repos/{REPOSITORY}/(.+)", parts.path)
        length = int(self.headers.get("Content-Length", "0"))
        body = json.loads(self.rfile.read(length)) if length else {}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status, answer = 401, {"message": "Bad credentials"}
        elif below is None:
            status, answer = 404, {"message": "Not Found"}
        else:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, answer = self.github.answer(self.command, below[1], query, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = _serve  # noqa: N815 (the server's names)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the server's name)
        """Say nothing on stderr."""
