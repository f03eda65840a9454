"""The gate beside an engine: judges it each time it has started, and answers for it while it lives."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST

from gate.client import CheckFailedError, Engine, NoAnswerError
from gate.expect import Expectations
from gate.exposition import exposition
from gate.report import Report
from gate.run import run_checks

_HEALTH_PERIOD_SECONDS = 2.0
_HEALTH_TIMEOUT_SECONDS = 5.0
_LEAVING_PERIOD_SECONDS = 0.5  # nobody should wait for the gate once the engine has ended
_CLIENT_TIMEOUT_SECONDS = 10.0  # a probe or a scraper that takes longer over its request is gone

Health = Literal["up", "busy", "gone"]


@dataclass(frozen=True)
class State:
    """What the gate answers at this moment. `waiting` says in a sentence why the pod is not ready; it is None if it is."""

    waiting: str | None
    report: Report | None = None

    @property
    def ready(self) -> bool:
        """Whether the pod may take traffic."""
        return self.waiting is None


class Sidecar:
    """One gate beside one engine. `say` gets a line for the log at every turn; `runs` may fail one after the other."""

    def __init__(
        self, base_url: str, expect: Expectations, api_key: str, say: Callable[[str], None], runs: int = 1
    ) -> None:
        self.state = State("the engine does not answer /health yet")
        self._base_url = base_url
        self._expect = expect
        self._api_key = api_key
        self._say = say
        self._runs = runs
        self._engine = Engine(base_url, expect, api_key)

    async def guard(self) -> Report:
        """Judge the engine each time it has started; return the report of the last run if none of them passed."""
        while True:
            while await self._health() != "up":
                await asyncio.sleep(_HEALTH_PERIOD_SECONDS)
            report = await self._judge()
            for _ in range(1, self._runs):
                if not report.passed:
                    report = await self._judge()
            if not report.passed:
                return report
            await self._while_alive()

    async def until_gone(self) -> None:
        """Answer for an engine that is about to end, until it has."""
        while await self._health() != "gone":
            await asyncio.sleep(_LEAVING_PERIOD_SECONDS)

    async def _judge(self) -> Report:
        self._say("the engine is up; the checks begin")
        self.state = replace(self.state, waiting="the checks are running")
        report = await run_checks(self._base_url, self._expect, self._api_key)
        if report.passed:
            self.state = State(None, report)
        self._tell(report)
        return report

    def _tell(self, report: Report) -> None:
        lacking = [row.id for row in report.results if row.verdict in {"failed", "notRun"}]
        outcome = f"not passed: {', '.join(lacking)}" if lacking else "passed"
        self._say(f"{len(report.results)} checks in {report.seconds:.1f} s, {outcome}")

    async def _while_alive(self) -> None:
        """Answer for the engine until it is gone: what comes back under the same address has not been judged."""
        async with asyncio.TaskGroup() as group:
            rechecks = group.create_task(self._rechecks())
            while (health := await self._health()) != "gone":
                waiting = "the engine does not answer /health at the moment" if health == "busy" else None
                self.state = replace(self.state, waiting=waiting)
                await asyncio.sleep(_HEALTH_PERIOD_SECONDS)
            rechecks.cancel()
        self.state = replace(self.state, waiting="the engine is gone; it is checked again once it is back")
        self._say(str(self.state.waiting))

    async def _rechecks(self) -> None:
        """Publish a new report every so often. Readiness does not follow it: a pod under load may be late, and still serve."""
        while self._expect.recheck_seconds is not None:
            await asyncio.sleep(self._expect.recheck_seconds)
            report = await run_checks(self._base_url, self._expect, self._api_key)
            self.state = replace(self.state, report=report)
            self._tell(report)

    async def _health(self) -> Health:
        try:
            await self._engine.get("/health", _HEALTH_TIMEOUT_SECONDS)
        except NoAnswerError:
            return "busy"
        except CheckFailedError:
            return "gone"
        return "up"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet when a probe or a scraper hangs up before its answer, and only then."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


def serve(host: str, port: int, state: Callable[[], State]) -> ThreadingHTTPServer:
    """Answer /ready, /report and /metrics in threads of their own; raise `OSError` if the address cannot be had."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _CLIENT_TIMEOUT_SECONDS

        def do_GET(self) -> None:
            status, kind, body = _response(self.path, state())
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's names)
            """Stay quiet: a probe comes every few seconds."""

    server = _Server((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="answers", daemon=True).start()
    return server


def _response(path: str, state: State) -> tuple[HTTPStatus, str, bytes]:
    match path:
        case "/ready" if state.ready:
            return HTTPStatus.OK, "text/plain", b"ready\n"
        case "/ready":
            return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{state.waiting}\n".encode()
        case "/report" if state.report is not None:
            return HTTPStatus.OK, "application/json", json.dumps(state.report.as_json(), indent=2).encode()
        case "/report":
            return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"no run has ended yet\n"
        case "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, exposition(state.report, ready=state.ready)
        case _:
            return HTTPStatus.NOT_FOUND, "text/plain", b"known paths are /ready, /report and /metrics\n"
