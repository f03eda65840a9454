"""What a check is, and what a run of them shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gate.client import Answer, Engine
from gate.expect import Expectations
from gate.metrics import Speculation
from gate.prompts import Prompt

Stage = Literal["engine", "answers", "tools", "long context", "counters"]


@dataclass(frozen=True)
class Question:
    """A prompt asked once, streamed or whole. A patient one has what is left of the run, others the seconds of a request."""

    prompt: Prompt
    stream: bool = False
    patient: bool = False


@dataclass
class Run:
    """One run of all checks against one engine, with what it has seen so far."""

    engine: Engine
    expect: Expectations
    answers: list[Answer] = field(default_factory=list[Answer])
    engine_version: str | None = None
    kv_cache_tokens: int | None = None
    speculation_before: Speculation | None = None
    speculation: Speculation | None = None


# What a check finds in the answers to its questions, in order: a few words if all is well, else `CheckFailedError` is raised.
Judge = Callable[[Run, Sequence[Answer]], Awaitable[str]]


@dataclass(frozen=True)
class Check:
    """One row of the table. `needs` returns why the plan does not call for the check, or None if it does.

    `proves` is what a pass means, `cause` what usually stands behind a failure. Checks of a stage run side by side.
    """

    id: str
    stage: Stage
    proves: str
    cause: str
    judge: Judge
    questions: Callable[[Expectations], Sequence[Question]] = lambda _: ()
    needs: Callable[[Expectations], str | None] = lambda _: None
