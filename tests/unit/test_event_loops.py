"""Event loops for Pulumi: there while a program runs, closed afterwards, whatever happened."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future

import pytest

from rehearsal.event_loops import event_loops


async def _work(function: object) -> object:
    assert callable(function)
    return await asyncio.get_running_loop().run_in_executor(None, function)


def in_executor(function: object) -> object:
    """Run a function where Pulumi's registrations run."""
    return asyncio.get_event_loop().run_until_complete(_work(function))


def no_loop() -> bool:
    """Whether this thread is left without an event loop, as before."""
    try:
        asyncio.get_event_loop()
    except RuntimeError:
        return True
    return False


def test_every_thread_has_a_loop_and_none_is_left_open() -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    threads: list[threading.Thread] = []

    def note() -> None:
        threads.append(threading.current_thread())
        loops.append(asyncio.get_event_loop())

    with event_loops(1):
        note()
        in_executor(note)
        assert [loop.is_closed() for loop in loops] == [False, False]
    assert loops[0] is not loops[1]
    assert all(loop.is_closed() for loop in loops)
    assert threads[0] is threading.current_thread()
    assert threads[1].name.startswith("register")
    assert not threads[1].is_alive()
    assert no_loop()


def test_as_many_run_side_by_side_as_asked_for() -> None:
    at_once = threading.Barrier(3, timeout=30)  # breaks, and fails the test, unless three come together

    async def three() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(None, at_once.wait) for _ in range(3)))

    with event_loops(3):
        asyncio.get_event_loop().run_until_complete(three())
    assert not at_once.broken


def test_one_thread_keeps_the_order() -> None:
    done: list[int] = []

    async def many() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(None, done.append, number) for number in range(50)))

    with event_loops(1):
        asyncio.get_event_loop().run_until_complete(many())
    assert done == list(range(50))


@pytest.mark.parametrize("failure", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failure_comes_through_and_waits_for_what_runs(failure: type[BaseException]) -> None:
    begun: Future[None] = Future()
    ended: list[str] = []

    def slow() -> None:
        begun.set_result(None)
        time.sleep(0.05)  # so that it would be missed if nobody waited for it
        ended.append("slow")

    def program() -> None:
        asyncio.get_event_loop().run_in_executor(None, slow)
        begun.result()
        raise failure

    with pytest.raises(failure), event_loops(2):
        program()
    assert ended == ["slow"]
    assert no_loop()


def test_the_echo_of_a_failure_is_not_printed(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    with event_loops(1):
        loop = asyncio.get_event_loop()
        loop.create_task(fails())  # noqa: RUF006 (nobody keeps it: its failure is an echo)
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_exception_handler({"message": "Task exception was never retrieved"})
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []
