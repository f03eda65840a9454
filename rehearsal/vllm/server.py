"""The HTTP side: vLLM's routes as a gate, a gateway and a client use them, and servers that break."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

from rehearsal.vllm.completion import Completions, is_endless
from rehearsal.vllm.faults import Fault
from rehearsal.vllm.request import ChatRequest, RequestError, chat_request
from rehearsal.vllm.settings import EngineSettings

_FATAL_ANSWER = 10
_FAILING = 3
_DRAIN_CHECK_SECONDS = 0.01
_SILENCE_CHECK_SECONDS = 0.1


class Server(ThreadingHTTPServer):
    """One engine's server. Once constructed its port is open; `serve_forever` answers."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], completions: Completions) -> None:
        super().__init__(address, _Handler)
        self.completions = completions
        self.settings: EngineSettings = completions.model.settings
        self.fault = completions.model.fault
        self._lock = threading.Lock()
        self._running = 0
        self._asked = 0

    def drain(self, seconds: float) -> None:
        """Take no new request, wait so long for those that run (0 aborts them), then stop answering."""
        self.completions.draining.set()
        if not seconds:
            self.completions.aborting.set()
        deadline = time.monotonic() + seconds
        while self._running and time.monotonic() < deadline:
            time.sleep(_DRAIN_CHECK_SECONDS)
        self.completions.aborting.set()
        self.shutdown()

    @contextmanager
    def answering(self) -> Generator[int]:
        """Count a chat request while it is answered; yields its number, from 1."""
        with self._lock:
            self._asked += 1
            self._running += 1
            number = self._asked
        self.completions.metrics.running.set(self._running)
        try:
            yield number
        finally:
            with self._lock:
                self._running -= 1
            self.completions.metrics.running.set(self._running)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a client that went away; everything else is a fault of this server."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Keep the log for what matters: the endpoints that are asked every second would bury it."""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/health" | "/ping":
                self._send(HTTPStatus.OK, b"", "text/plain")
            case "/version":
                self._send_json(HTTPStatus.OK, {"version": self.server.settings.version})
            case "/metrics":
                self._send(HTTPStatus.OK, self.server.completions.metrics.text(), "text/plain; version=0.0.4")
            case "/v1/models" if self._authorized():
                self._send_json(HTTPStatus.OK, _models(self.server.settings))
            case "/v1/models":
                self._send_json(HTTPStatus.UNAUTHORIZED, {"error": "Unauthorized"})
            case _:
                self._send_json(HTTPStatus.NOT_FOUND, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            self._send_json(HTTPStatus.NOT_FOUND, {"detail": "Not Found"})
        elif not self._authorized():
            self._send_json(HTTPStatus.UNAUTHORIZED, {"error": "Unauthorized"})
        else:
            with self.server.answering() as number:
                self._chat(body, number)

    def _authorized(self) -> bool:
        key = self.server.settings.api_key
        return key is None or self.headers.get("Authorization") == f"Bearer {key}"

    def _chat(self, body: bytes, number: int) -> None:
        fault = self.server.fault
        try:
            request = chat_request(_json(body), self.server.settings)
            if fault is Fault.EVERY_THIRD_500 and number % _FAILING == 0:
                raise RequestError("EngineCore encountered an issue.", HTTPStatus.INTERNAL_SERVER_ERROR)
        except RequestError as error:
            self._send_json(error.status, error.body())
            return
        if fault is Fault.GRAMMAR_HANG and request.forced:
            self._fall_silent()
        elif fault is Fault.STALLS_MID_LINE:
            self._half_a_line(request)
        elif request.stream:
            self._stream(request, fatal=fault is Fault.DIES_MID_CHECK and number == _FATAL_ANSWER)
        elif is_endless(self.server.completions.model):
            self._fall_silent()
        elif fault is Fault.DIES_MID_CHECK and number == _FATAL_ANSWER:
            _die()
        else:
            self._send_json(HTTPStatus.OK, self.server.completions.whole(request))

    def _stream(self, request: ChatRequest, *, fatal: bool) -> None:
        completions = self.server.completions
        endless = is_endless(completions.model)
        self._begin_stream()
        for chunk in completions.endless(request) if endless else completions.stream(request):
            self._chunk(f"data: {json.dumps(chunk)}\n\n")
            if fatal:
                _die()
        self._chunk("data: [DONE]\n\n")
        self._chunk("")

    def _begin_stream(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _half_a_line(self, request: ChatRequest) -> None:
        """Begin an answer and never go on."""
        if request.stream:
            self._begin_stream()
            self._chunk('data: {"id": "chatcmpl-')
        else:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": "chatcmpl-')
        self._fall_silent()

    def _fall_silent(self) -> None:
        """Keep the connection and say nothing more, until the client gives up or the server stops."""
        self.close_connection = True
        while not self.server.completions.aborting.wait(_SILENCE_CHECK_SECONDS):
            if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _send_json(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _die() -> NoReturn:
    """End in the middle of an answer, as an engine does that too many requests have taken the last memory."""
    sys.stderr.write("torch.OutOfMemoryError: CUDA out of memory.\n")
    sys.stderr.flush()
    os._exit(1)


def _json(body: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RequestError("the body is not a JSON object")
    return found


def _models(settings: EngineSettings) -> dict[str, Any]:
    cards = [
        {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": settings.model,
            "parent": None,
            "max_model_len": settings.max_model_len,
        }
        for name in settings.served_names
    ]
    return {"object": "list", "data": cards}
