"""`python -m gate`: once for people, and beside an engine as in a pod."""

from __future__ import annotations

import ast
import asyncio
import http.client
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic.alias_generators import to_camel

import gate
import gate.sidecar
from gate.__main__ import BAD_INPUT, FAILED, PASSED, main
from gate.expect import Expectations
from gate.report import Report, Result
from gate.sidecar import Sidecar, State, serve
from tests.fixtures.fake_engine import EXPECT, FakeEngine, Json, running

FILES = sorted(Path(gate.__file__).parent.glob("*.py"))


def expect_file(folder: Path, expect: Expectations = EXPECT) -> str:
    path = folder / "expect.json"
    path.write_text(json.dumps({to_camel(name): value for name, value in asdict(expect).items()}))
    return str(path)


def wrong_sums(_: Json, choice: Json) -> None:
    if choice["message"]["content"]:
        choice["message"]["content"] = "0"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_imports_nothing_but_what_the_engines_image_has(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names - sys.stdlib_module_names <= {"gate", "openai", "prometheus_client"}


# --- once --------------------------------------------------------------------------------------------------------------


def test_a_good_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(FakeEngine()) as url:
        code = main(["--base-url", f"{url}/v1/", "--expect", expect_file(tmp_path)])
    output = capsys.readouterr()
    assert (code, output.err) == (PASSED, "")
    assert json.loads(output.out)["verdict"] == "passed"


def test_a_bad_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expect = replace(EXPECT, tool_calling=False, speculative_tokens=0)
    with running(FakeEngine(expect, spoil=wrong_sums)) as url:
        code = main(["--base-url", url, "--expect", expect_file(tmp_path, expect)])
    output = capsys.readouterr()
    assert code == FAILED
    assert (
        "gate: accuracy failed: 0 of 8 sums right, expected at least 6; the first wrong one: the answer is wrong, expected 84\n"
    ) in output.err
    found = json.loads(output.out)
    assert found["verdict"] == "failed"
    assert [row["id"] for row in found["checks"] if row["verdict"] == "failed"] == [
        "accuracy",
        "needle-3k",
        "needle-5k",
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "python -m gate: the following arguments are required: --base-url, --expect; see python -m gate --help"),
        (
            ["--base-url", "localhost:8000", "--expect", "x"],
            "python -m gate: argument --base-url: 'localhost:8000' is no URL; expected one such as http://localhost:8000; "
            "see python -m gate --help",
        ),
        (
            ["--base-url", "http://x", "--expect", "x", "--serve", "http"],
            "python -m gate: argument --serve: 'http' is no address; expected a port such as 8090 or 0.0.0.0:8090; "
            "see python -m gate --help",
        ),
        (
            ["--base-url", "http://x", "--expect", "x", "--serve", "70000"],
            "python -m gate: argument --serve: '70000' is no address; expected a port such as 8090 or 0.0.0.0:8090; "
            "see python -m gate --help",
        ),
        (
            ["--base-url", "http://x", "--expect", "/nowhere/expect.json"],
            "/nowhere/expect.json: No such file or directory; name the expect file of a workload",
        ),
        (
            ["--base", "http://x", "--expect", "x"],
            "python -m gate: the following arguments are required: --base-url; see python -m gate --help",
        ),
    ],
)
def test_bad_input(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == BAD_INPUT
    assert capsys.readouterr() == ("", f"{problem}\n")


def test_an_address_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(FakeEngine()) as url:
        taken = str(urlsplit(url).port)
        code = main(["--base-url", url, "--expect", expect_file(tmp_path), "--serve", taken])
    assert code == BAD_INPUT
    assert capsys.readouterr().err == f"--serve 127.0.0.1:{taken}: Address already in use; choose another address\n"


# --- what it answers ---------------------------------------------------------------------------------------------------


def report(*, passed: bool, seconds: float = 1.0) -> Report:
    result = Result("accuracy", "sums", "passed" if passed else "failed", "some sums", 0.5)
    return Report("http://engine", EXPECT, (result,), (), "0.31.0", 1, None, 1, 1, seconds, 2.0)


def ask(port: int, path: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


@contextmanager
def serving(state: State) -> Generator[int]:
    server = serve("127.0.0.1", 0, lambda: state)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_answers_of_a_ready_pod() -> None:
    with serving(State(None, report(passed=True))) as port:
        assert ask(port, "/ready") == (200, "text/plain", "ready\n")
        status, kind, text = ask(port, "/report")
        assert (status, kind, json.loads(text)) == (200, "application/json", report(passed=True).as_json())
        status, kind, text = ask(port, "/metrics")
        assert (status, kind.partition(";")[0]) == (200, "text/plain")
        assert "gate_ready 1.0\n" in text
        assert ask(port, "/") == (404, "text/plain", "known paths are /ready, /report and /metrics\n")


def test_a_probe_that_hangs_up_leaves_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(State(None, report(passed=True))) as port:
        with socket.create_connection(("127.0.0.1", port)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
            probe.send(b"GET /report HTTP/1.0\r\n")
        assert ask(port, "/ready")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_answers_of_a_pod_that_waits() -> None:
    with serving(State("the checks are running")) as port:
        assert ask(port, "/ready") == (503, "text/plain", "the checks are running\n")
        assert ask(port, "/report") == (503, "text/plain", "no run has ended yet\n")
        assert "gate_ready 0.0\n" in ask(port, "/metrics")[2]


# --- from the engine's start to its end ----------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


class Scene:
    """A sidecar beside an engine whose health a test sets, with verdicts that a test hands out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, expect: Expectations = EXPECT) -> None:
        self.healthy = False
        self.verdicts: list[Report] = []
        self.runs = 0
        self.said: list[str] = []
        self.expect = expect
        self.engine = FakeEngine(pages={"/health": lambda: (200 if self.healthy else 503, "")})
        monkeypatch.setattr(gate.sidecar, "_HEALTH_PERIOD_SECONDS", 0.01)
        monkeypatch.setattr(gate.sidecar, "run_checks", self._run)

    async def _run(self, *_: Any) -> Report:
        self.runs += 1
        return self.verdicts.pop(0)

    def play(self, act: Callable[[Sidecar, asyncio.Task[Report]], Any], runs: int = 1) -> None:
        async def scene(url: str) -> None:
            sidecar = Sidecar(url, self.expect, "none", self.said.append, runs)
            guard = asyncio.create_task(sidecar.guard())
            await act(sidecar, guard)
            guard.cancel()

        with running(self.engine) as url:
            asyncio.run(scene(url))


def test_a_pod_is_ready_once_its_engine_has_passed_and_while_it_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.verdicts = [report(passed=True), report(passed=True, seconds=2.0)]

    async def act(sidecar: Sidecar, _: asyncio.Task[Report]) -> None:
        assert sidecar.state == State("the engine does not answer /health yet")
        scene.healthy = True
        await until(lambda: sidecar.state.ready)
        assert scene.runs == 1
        scene.healthy = False  # it dies ...
        await until(lambda: not sidecar.state.ready)
        assert sidecar.state.waiting == "the engine is gone; it is checked again once it is back"
        assert scene.runs == 1
        scene.healthy = True  # ... and what comes back is another
        await until(lambda: sidecar.state.ready)
        assert sidecar.state.report == report(passed=True, seconds=2.0)

    scene.play(act)
    assert scene.said == [
        "the engine is up; the checks begin",
        "1 checks in 1.0 s, passed",
        "the engine is gone; it is checked again once it is back",
        "the engine is up; the checks begin",
        "1 checks in 2.0 s, passed",
    ]


def test_a_failure_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.healthy = True
    scene.verdicts = [report(passed=False)]

    async def act(sidecar: Sidecar, guard: asyncio.Task[Report]) -> None:
        assert await guard == report(passed=False)
        assert not sidecar.state.ready

    scene.play(act)
    assert scene.said[-1] == "1 checks in 1.0 s, not passed: accuracy"


@pytest.mark.parametrize("failing", [1, 2])
def test_where_a_second_run_is_allowed_only_a_second_failure_ends_it(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    scene = Scene(monkeypatch)
    scene.healthy = True
    scene.verdicts = [*[report(passed=False)] * failing, report(passed=True)]

    async def act(sidecar: Sidecar, guard: asyncio.Task[Report]) -> None:
        if failing == 1:
            await until(lambda: sidecar.state.ready)
        else:
            assert await guard == report(passed=False)
            assert not sidecar.state.ready

    scene.play(act, runs=2)
    assert scene.runs == 2


def test_a_recheck_that_fails_shows_and_takes_nothing_out_of_service(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, replace(EXPECT, recheck_seconds=0))  # at once, again and again
    scene.healthy = True
    scene.verdicts = [report(passed=True), report(passed=True, seconds=2.0), *[report(passed=False)] * 10_000]

    async def act(sidecar: Sidecar, _: asyncio.Task[Report]) -> None:
        await until(lambda: sidecar.state.report == report(passed=False))
        assert sidecar.state.ready

    scene.play(act)


def test_an_engine_that_answers_late_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.healthy = True
    scene.verdicts = [report(passed=True)]
    late = asyncio.Event()
    healthy = Sidecar._health

    async def health(sidecar: Sidecar) -> Any:
        return "busy" if late.is_set() else await healthy(sidecar)

    monkeypatch.setattr(Sidecar, "_health", health)

    async def act(sidecar: Sidecar, _: asyncio.Task[Report]) -> None:
        await until(lambda: sidecar.state.ready)
        late.set()
        await until(lambda: not sidecar.state.ready)
        assert sidecar.state.waiting == "the engine does not answer /health at the moment"
        late.clear()
        await until(lambda: sidecar.state.ready)
        assert scene.runs == 1

    scene.play(act)


# --- as a process, from the files of a ConfigMap -------------------------------------------------------------------------


@contextmanager
def process(folder: Path, url: str, *words: str) -> Generator[tuple[subprocess.Popen[str], int]]:
    """Start the program as a pod does, from a folder that holds nothing else; yield it and its port."""
    shutil.copytree(Path(gate.__file__).parent, folder / "gate", ignore=shutil.ignore_patterns("__pycache__"))
    expect = expect_file(folder, replace(EXPECT, tool_calling=False))
    argv = [sys.executable, "-m", "gate", "--base-url", url, "--expect", expect, "--serve", "0", *words]
    with subprocess.Popen(argv, cwd=folder, stderr=subprocess.PIPE, text=True, env={"PATH": ""}) as running_gate:
        assert running_gate.stderr is not None
        try:
            line = running_gate.stderr.readline()
            assert line.startswith("gate: answering on http://127.0.0.1:")
            yield running_gate, int(line.rpartition(":")[2])
        finally:
            running_gate.kill()


def test_it_answers_until_its_engine_has_ended(tmp_path: Path) -> None:
    engine = FakeEngine(replace(EXPECT, tool_calling=False))
    with ExitStack() as engines:
        url = engines.enter_context(running(engine))
        with process(tmp_path, url) as (running_gate, port):
            wait_for(running_gate, " s, passed")
            assert ask(port, "/ready")[0] == 200
            assert json.loads(ask(port, "/report")[2])["verdict"] == "passed"
            running_gate.send_signal(signal.SIGTERM)
            wait_for(running_gate, "asked to end")
            assert ask(port, "/ready")[0] == 200  # the engine still finishes what runs
            assert running_gate.poll() is None
            engines.close()
            assert running_gate.wait(timeout=60) == 0


def wait_for(running_gate: subprocess.Popen[str], words: str) -> None:
    """Read what a gate says until it has said some words."""
    assert running_gate.stderr is not None
    for line in running_gate.stderr:
        if words in line:
            return
    pytest.fail(f"it never said {words!r}")


def test_its_last_words(tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    engine = FakeEngine(replace(EXPECT, tool_calling=False), spoil=wrong_sums)
    with running(engine) as url, process(tmp_path, url, "--termination-message", str(message)) as (running_gate, _):
        said = running_gate.communicate(timeout=120)[1]
    assert running_gate.returncode == 1
    assert message.read_text().startswith("accuracy failed: 0 of 8 sums right")
    assert message.read_text() in said
    assert "Traceback" not in said
    assert len(message.read_bytes()) <= 4_096
