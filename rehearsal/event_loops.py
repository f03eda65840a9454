"""Event loops for Pulumi's runtime, closed again: left alone, it opens one in every thread that it uses and closes none."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def event_loops(threads: int) -> Generator[None]:
    """Run Pulumi in this thread with so many threads for registrations. One thread keeps registrations in one order."""
    loops: list[asyncio.AbstractEventLoop] = []

    def open_loop() -> None:
        loops.append(asyncio.new_event_loop())
        # A failure is raised where the program runs; its echoes in tasks that nobody awaits are no news.
        loops[-1].set_exception_handler(_ignore)
        asyncio.set_event_loop(loops[-1])

    open_loop()
    executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="register", initializer=open_loop)
    loops[0].set_default_executor(executor)
    try:
        yield
    finally:
        executor.shutdown()
        asyncio.set_event_loop(None)
        for loop in loops:
            loop.close()


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    del loop, context
