"""Servers that do not keep to the protocol: every run ends with a verdict, within its bounds, and says what happened."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import HTTPServer
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate.client import CheckFailedError, Engine, NoAnswerError
from gate.expect import Expectations
from gate.report import Report
from gate.run import run_checks
from gate.table import CHECKS
from tests.fixtures.fake_engine import EXPECT, FakeEngine, Handler, Json, running

PATIENT = replace(EXPECT, request_seconds=30.0, deadline_seconds=60.0)
HASTY = replace(PATIENT, request_seconds=0.5)  # where silence is what a test is about
TakeOver = Callable[[Handler, Json, int], bool]


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """An event that handlers which would stall for ever wait for; it is set when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def report(take_over: TakeOver, *ids: str, expect: Expectations = PATIENT) -> Report:
    with running(FakeEngine(expect, take_over=take_over)) as url:
        checks = [check for check in CHECKS if not ids or check.id in ids]
        return asyncio.run(run_checks(url, expect, "none", checks))


def failures(found: Report) -> dict[str, str]:
    return {row.id: row.found for row in found.failures}


def chunk(delta: Json, finish: str | None = None) -> bytes:
    row = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return (
        f"data: {json.dumps({**row, 'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}\n\n".encode()
    )


BROKEN_OFF = "the answer breaks off: it has no finish_reason"


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_without_end_is_left_after_its_tokens() -> None:
    def for_ever(handler: Handler, body: Json, _: int) -> bool:
        if not body.get("stream"):
            return False
        handler.begin_stream()
        while True:  # until the gate hangs up
            handler.wfile.write(chunk({"content": "4"}))

    found = failures(report(for_ever, "thinking-off"))
    assert found == {"thinking-off": "the stream goes on after 97 chunks for at most 32 tokens"}


def test_a_stream_that_trickles_for_ever_is_left_after_its_time(released: threading.Event) -> None:
    def trickle(handler: Handler, body: Json, _: int) -> bool:
        if not body.get("stream"):
            return False
        handler.begin_stream()
        while not released.wait(0.05):
            handler.wfile.write(chunk({"content": "4"}))
        return True

    assert failures(report(trickle, "thinking-off", expect=HASTY)) == {
        "thinking-off": "no complete answer within 0.5 s"
    }


@pytest.mark.parametrize("half", [b"", b"da", b'data: {"id": "c", "choices": [{"index"', b"data: "])
def test_half_a_line_and_then_nothing(half: bytes, released: threading.Event) -> None:
    def stall(handler: Handler, body: Json, _: int) -> bool:
        if not body.get("stream"):
            return False
        handler.begin_stream()
        handler.wfile.write(half)
        handler.wfile.flush()
        released.wait()
        return True

    assert failures(report(stall, "thinking-off", expect=HASTY)) == {"thinking-off": "no complete answer within 0.5 s"}


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"", BROKEN_OFF),
        (chunk({"content": "42"}), BROKEN_OFF),
        (chunk({"content": "4"}) + b"data: {oops\n\n", "the answer cannot be read: JSONDecodeError"),
        (b"data: [1, 2]\n\n", BROKEN_OFF),
        (b"data: null\n\n", BROKEN_OFF),
        (b'data: {"choices": [null, 7, {"delta": "x"}]}\n\n', BROKEN_OFF),
        (b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n', "EngineCore died"),
        (b"\xff\xfe\x00 no text\n\n", "the answer cannot be read: UnicodeDecodeError"),
        (b"<html>Bad gateway</html>", BROKEN_OFF),
    ],
)
def test_streams_that_break_off_or_make_no_sense(sent: bytes, problem: str) -> None:
    def broken(handler: Handler, body: Json, _: int) -> bool:
        if not body.get("stream"):
            return False
        handler.begin_stream()
        handler.wfile.write(sent)
        return True

    [found] = failures(report(broken, "thinking-off")).values()
    assert problem in found


# --- whole answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "text", "problem"),
    [
        (200, "application/json", "", "the answer cannot be read"),
        (200, "application/json", "{", "the answer cannot be read"),
        (200, "application/json", "[]", "the answer is no chat completion"),
        (200, "application/json", "null", "the answer is no chat completion"),
        (200, "application/json", '{"choices": []}', "the answer is no chat completion"),
        (200, "application/json", '{"choices": {"0": {}}}', "the answer is no chat completion"),
        (200, "application/json", '{"choices": [7]}', BROKEN_OFF),
        (200, "application/json", '{"choices": [{"message": {"content": ["42"]}}]}', BROKEN_OFF),
        (200, "text/html", "<html>", "the answer is no chat completion"),
        (404, "application/json", '{"error": {"message": "The model does not exist"}}', "HTTP 404"),
        (500, "text/plain", "Internal Server Error", "HTTP 500"),
        (401, "application/json", '{"error": "Unauthorized"}', "HTTP 401"),
        (307, "text/plain", "", "HTTP 307"),
    ],
)
def test_whole_answers_that_make_no_sense(status: int, kind: str, text: str, problem: str) -> None:
    def broken(handler: Handler, body: Json, _: int) -> bool:
        if body.get("stream"):
            return False
        handler.respond(status, text, kind)
        return True

    [result] = report(broken, "thinking-off").failures
    assert result.found.startswith(problem)
    if status != 200 and text:
        assert result.received == text


def test_tool_choice_that_the_server_refuses_is_reported_in_its_own_words() -> None:
    refusal = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'

    def refuse(handler: Handler, _: Json, __: int) -> bool:
        handler.respond(400, json.dumps({"error": {"message": refusal}}), "application/json")
        return True

    [result] = report(refuse, "tools-auto").failures
    assert result.found == "HTTP 400"
    assert json.loads(result.received)["error"]["message"] == refusal


def test_an_answer_that_never_comes(released: threading.Event) -> None:
    def silent(_: Handler, __: Json, ___: int) -> bool:
        released.wait()
        return True

    found = report(silent, expect=HASTY)
    assert [row.id for row in found.failures] == ["thinking-off", "accuracy"]  # four at a time
    assert failures(found)["thinking-off"] == "no complete answer within 0.5 s"
    # What has met silence once is not asked again: the verdict does not wait for every other question.
    late = [row for row in found.results if row.verdict == "notRun"]
    assert {row.found for row in late} == {
        "the engine had stopped answering (POST /v1/chat/completions: no complete answer within 0.5 s)"
    }
    assert [row.id for row in late[:2]] == ["thinking-on", "tools-auto"]
    assert found.latencies == ()
    assert not found.passed


def test_a_connection_that_is_closed_before_it_answers() -> None:
    def hang_up(handler: Handler, _: Json, __: int) -> bool:
        handler.close_connection = True
        return True

    [found] = failures(report(hang_up, "thinking-off")).values()
    assert "RemoteProtocolError: Server disconnected without sending a response" in found


def test_an_answer_that_is_shorter_than_it_says() -> None:
    def cut(handler: Handler, body: Json, _: int) -> bool:
        if body.get("stream"):
            return False
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [')
        handler.close_connection = True
        return True

    [found] = failures(report(cut, "thinking-off")).values()
    assert "RemoteProtocolError" in found


# --- servers that fail now and then, or for good -----------------------------------------------------------------------


def test_every_third_request_fails() -> None:
    def every_third(handler: Handler, _: Json, number: int) -> bool:
        if number % 3:
            return False
        handler.respond(500, "Internal Server Error")
        return True

    found = report(every_third)
    assert not found.passed
    assert {row.found for row in found.failures} == {"HTTP 500"}
    # It answers, so every check is run; the accuracy set alone asks eight times.
    assert {row.verdict for row in found.results} == {"passed", "failed", "notApplicable"}
    assert "accuracy" in failures(found)


def test_a_server_that_is_not_there() -> None:
    with running(FakeEngine(PATIENT)) as url:
        """Nobody listens there any more once it has ended."""
    found = asyncio.run(run_checks(url, PATIENT, "none"))
    assert {row.id for row in found.failures} == {"health", "engine-version", "served-model", "kv-cache"}
    assert all("ConnectError" in row.found for row in found.failures)
    assert {row.verdict for row in found.results[4:]} == {"notRun", "notApplicable"}


def test_a_server_that_dies_between_two_requests() -> None:
    dead = threading.Event()

    def die(handler: Handler, _: Json, number: int) -> bool:
        if number < 8 and not dead.is_set():
            return False
        if not dead.is_set():
            dead.set()
            cast("HTTPServer", handler.server).socket.close()  # nobody listens any more
        handler.close_connection = True
        return True

    found = report(die)
    assert not found.passed
    assert [row.verdict for row in found.results[:5]] == ["passed"] * 5
    assert "accuracy" in {row.id for row in found.failures}
    assert {row.verdict for row in found.results if row.id.startswith("needle-3k")} == {"notRun"}


def test_the_deadline_ends_a_run(released: threading.Event) -> None:
    """A patient question has no bound of its own; the run's deadline is one for it too."""

    def silent(_: Handler, __: Json, ___: int) -> bool:
        released.wait()
        return True

    expect = replace(PATIENT, deadline_seconds=1.0, long_needle_tokens=12_000)
    found = report(silent, "needle-long", "usage", expect=expect)
    assert [(row.verdict, row.found) for row in found.results] == [
        ("failed", "no verdict within the run's 1 s"),
        ("notRun", "the run's 1 s were over"),
    ]


def test_pages_are_bounded_too(released: threading.Event) -> None:
    def silent() -> tuple[int, str]:
        released.wait()
        return 200, ""

    async def ask(url: str) -> Engine:
        engine = Engine(url, EXPECT, "none")
        with pytest.raises(NoAnswerError, match=r"^no answer within 0\.2 s$"):
            await engine.get("/health", 0.2)
        with pytest.raises(CheckFailedError, match=r"^HTTP 404$"):
            await engine.get("/nowhere")
        await engine.close()
        return engine

    with running(FakeEngine(pages={"/health": silent})) as url:
        engine = asyncio.run(ask(url))
    assert engine.lost == "GET /health: no answer within 0.2 s"


# --- anything at all ---------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries({}, optional=dict.fromkeys(("content", "reasoning", "tool_calls"), JSON))
CHOICES = st.fixed_dictionaries(
    {}, optional={"message": MESSAGES | JSON, "delta": MESSAGES | JSON, "finish_reason": JSON}
)
ANSWERS = st.fixed_dictionaries({}, optional={"choices": st.lists(CHOICES, max_size=2) | JSON, "usage": JSON}) | JSON


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ANSWERS, min_size=1, max_size=4), ANSWERS)
def test_whatever_comes_back_the_run_ends_in_a_report(answers: list[object], page: object) -> None:
    def anything(handler: Handler, body: Json, number: int) -> bool:
        answer = json.dumps(answers[number % len(answers)])
        if body.get("stream"):
            handler.begin_stream()
            handler.wfile.write(f"data: {answer}\n\n".encode())
        else:
            handler.respond(200, answer, "application/json")
        return True

    ids = {"served-model", "thinking-off", "tools-required", "usage"}
    engine = FakeEngine(PATIENT, take_over=anything, pages={"/v1/models": lambda: (200, json.dumps(page))})
    with running(engine) as url:
        found = asyncio.run(run_checks(url, PATIENT, "none", [check for check in CHECKS if check.id in ids]))
    assert not found.passed
    json.dumps(found.as_json())
