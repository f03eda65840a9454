"""A registry on loopback that gives the answers a test writes down, also those that no real one gives when asked to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from serving.__main__ import main
from tests.fixtures.http_server import Server
from tests.fixtures.images import INDEX, digest_of, index


@dataclass(frozen=True)
class Reply:
    """One HTTP answer. `cut` sends that many bytes of the content and ends; `silent` sends nothing until the test is over."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    cut: int | None = None
    silent: bool = False


def index_reply(content: bytes, media_type: str = INDEX, **headers: str) -> Reply:
    """Return the answer of a registry that has this index."""
    said = {
        "Docker-Content-Digest": digest_of(content),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Reply(200, {"Content-Type": media_type, **said}, content)


@dataclass(frozen=True)
class Request:
    """What was asked: path with query, and the Authorization header."""

    path: str
    authorization: str | None


Answering = Callable[[Request], Reply]


class FakeRegistry:
    """Answers by path; a path without an answer is an error of the test, told as 418."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply | Answering] = {}
        self.requests: list[Request] = []
        self.over = threading.Event()
        self._server = Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def host(self) -> str:
        """127.0.0.1 and the port."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """What --registry takes."""
        return f"http://{self.host}"

    def reply(self, request: Request) -> Reply:
        """Return what was written down for a request."""
        self.requests.append(request)
        found = self.replies.get(urlsplit(request.path).path, Reply(418))
        return found if isinstance(found, Reply) else found(request)

    @contextmanager
    def serving(self) -> Generator[None]:
        """Serve until the end."""
        self._thread.start()
        try:
            yield
        finally:
            self.over.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reply = registry.reply(Request(self.path, self.headers.get("Authorization")))
                if reply.silent:
                    registry.over.wait()
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content[: reply.cut])

            def log_request(self, code: object = None, size: object = None) -> None:
                """Say nothing: the test's output is pytest's."""

        return Handler


VLLM = "vllm/vllm-openai"
TAG = f"/v2/{VLLM}/manifests/v0.33.0"
IMAGE = index("linux/amd64", "linux/arm64")
DIGEST = digest_of(IMAGE)


def errors(code: str, message: str) -> bytes:
    """Return an error list as the specification has it."""
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()


def pin(registry: FakeRegistry, *words: str) -> int:
    """Run `python -m serving pin` against a registry, for vLLM 0.33.0 unless the words say otherwise."""
    return main(["pin", *(words or ("vllm", "0.33.0")), "--registry", registry.url])
