"""Runs the table of checks against an engine, within the deadline, whatever the engine does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from itertools import groupby

from gate import prompts
from gate.check import Check, Run
from gate.client import Answer, CheckFailedError, Engine, NotAskedError
from gate.expect import Expectations
from gate.report import Latency, Report, Result
from gate.table import CHECKS


async def run_checks(base_url: str, expect: Expectations, api_key: str, checks: Sequence[Check] = CHECKS) -> Report:
    """Run every check that the plan calls for, then measure times; return what was found. Never raises for the engine's sake."""
    start = time.monotonic()
    engine = Engine(base_url, expect, api_key)
    run = Run(engine, expect)
    results: list[Result] = []
    latencies: list[Latency] = []
    end = start + expect.deadline_seconds
    try:
        for _, stage in groupby(checks, key=lambda check: check.stage):
            results += await _stage(list(stage), run, end)
        latencies = await _latencies(run, end)
    finally:
        await engine.close()
    usages = [answer.usage for answer in run.answers if answer.usage]
    return Report(
        endpoint=base_url,
        expect=expect,
        results=tuple(results),
        latencies=tuple(latencies),
        engine_version=run.engine_version,
        kv_cache_tokens=run.kv_cache_tokens,
        speculation=run.speculation,
        prompt_tokens=sum(usage.prompt for usage in usages),
        completion_tokens=sum(usage.completion for usage in usages),
        seconds=time.monotonic() - start,
        finished=round(time.time(), 3),
    )


async def _stage(checks: Sequence[Check], run: Run, end: float) -> list[Result]:
    """Run the checks of a stage side by side; return their results in order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_result(check, run, end)) for check in checks]
    return [task.result() for task in tasks]


async def _result(check: Check, run: Run, end: float) -> Result:
    reason = check.needs(run.expect)
    if reason is not None:
        return Result(check.id, check.proves, "notApplicable", reason)
    if run.engine.lost is not None:
        return _not_run(check, run.engine.lost)
    start = time.monotonic()
    left = end - start
    limit = f"the run's {run.expect.deadline_seconds:g} s"
    if left <= 0:
        return Result(check.id, check.proves, "notRun", f"{limit} were over")
    try:
        async with asyncio.timeout(left):
            found = await _act(check, run)
    except NotAskedError as error:
        return _not_run(check, str(error))
    except (CheckFailedError, TimeoutError) as error:
        failure = error if isinstance(error, CheckFailedError) else CheckFailedError(f"no verdict within {limit}")
        return Result(
            check.id,
            check.proves,
            "failed",
            failure.problem,
            time.monotonic() - start,
            failure.sent,
            failure.received,
            check.cause,
        )
    return Result(check.id, check.proves, "passed", found, time.monotonic() - start)


def _not_run(check: Check, lost: str) -> Result:
    return Result(check.id, check.proves, "notRun", f"the engine had stopped answering ({lost})")


async def _act(check: Check, run: Run) -> str:
    questions = check.questions(run.expect)
    asked = [run.engine.ask(row.prompt, stream=row.stream, patient=row.patient) for row in questions]
    answers = await _all(asked)
    run.answers += answers
    return await check.judge(run, answers)


async def _all(asked: Sequence[Awaitable[Answer]]) -> list[Answer]:
    """Wait for all answers, so that no question runs on into the next stage; then raise the first failure."""
    rows = await asyncio.gather(*asked, return_exceptions=True)
    answers: list[Answer] = []
    for row in rows:
        if isinstance(row, BaseException):
            raise row
        answers.append(row)
    return answers


async def _latencies(run: Run, end: float) -> list[Latency]:
    """Measure a coding and a tool-call prompt, one after the other. What cannot be measured is left out: it is not judged."""
    found: list[Latency] = []
    for name, prompt in prompts.timed(run.expect.ways[0], tools=run.expect.tool_calling).items():
        try:
            async with asyncio.timeout(max(end - time.monotonic(), 0)):
                answer = await run.engine.ask(prompt, stream=True)
        except (CheckFailedError, NotAskedError, TimeoutError):
            continue
        run.answers.append(answer)
        if answer.first_token_seconds is not None and answer.usage is not None:
            found.append(_latency(name, answer, answer.usage.completion, answer.first_token_seconds))
    return found


def _latency(name: str, answer: Answer, tokens: int, first: float) -> Latency:
    per_token = (answer.seconds - first) / (tokens - 1) if tokens > 1 else None
    return Latency(name, tokens, first, per_token)
