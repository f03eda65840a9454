"""The most that a run can ask of an engine, from the bounds of its own questions."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from gate import prompts
from gate.client import AT_ONCE
from gate.expect import Expectations
from gate.table import CHECKS


@dataclass(frozen=True)
class Budget:
    """Tokens of all prompts (estimated) and of all answers (their bounds), and tokens generated one after the other.

    `steps` counts what runs side by side once: what a run lasts is `steps` times the engine's time for a token.
    """

    prompt_tokens: int
    completion_tokens: int
    steps: int


def budget(expect: Expectations) -> Budget:
    """Return the bounds of a run: every stage with `AT_ONCE` requests in flight, then the timed prompts one by one."""
    calls = [check for check in CHECKS if check.needs(expect) is None]
    stages = [
        [question.prompt for check in stage for question in check.questions(expect)]
        for _, stage in groupby(calls, key=lambda check: check.stage)
    ]
    stages += [[prompt] for prompt in prompts.timed(expect.ways[0], tools=expect.tool_calling).values()]
    asked = [prompt for stage in stages for prompt in stage]
    return Budget(
        prompt_tokens=sum(prompt.about for prompt in asked),
        completion_tokens=sum(prompt.max_tokens for prompt in asked),
        steps=sum(_longest(prompt.max_tokens for prompt in stage) for stage in stages),
    )


def _longest(bounds: Iterable[int]) -> int:
    """Return when the last of some jobs ends if the next one begins as soon as a slot is free."""
    ends = [0] * AT_ONCE
    for bound in bounds:
        heapq.heappush(ends, heapq.heappop(ends) + bound)
    return max(ends)
