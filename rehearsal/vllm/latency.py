"""How long an answer takes: a first token after the prefill, then one token after another, scaled down."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

# One request alone on 8xB200 FP8 (serving facts 16): 8,192 tokens of prompt in 0.8 s, then 10 ms a token.
_PREFILL_TOKENS_PER_SECOND = 10_000
_SECONDS_PER_TOKEN = 0.010

# The shortest sleep worth its system call.
_RESOLUTION_SECONDS = 0.002


@dataclass(frozen=True)
class Latency:
    """Seconds here for each second on real machines."""

    scale: float

    def first_token(self, prompt_tokens: int) -> float:
        """Return the seconds until the first token."""
        return self.scale * prompt_tokens / _PREFILL_TOKENS_PER_SECOND

    @property
    def per_token(self) -> float:
        """Seconds from one token to the next."""
        return self.scale * _SECONDS_PER_TOKEN


class Pace:
    """Keeps an answer to its latency; a stopped server ends the wait."""

    def __init__(self, latency: Latency, stopped: threading.Event) -> None:
        self._latency = latency
        self._stopped = stopped
        self._due = time.monotonic()

    def prefill(self, prompt_tokens: int) -> None:
        """Wait for the first token."""
        self._wait(self._latency.first_token(prompt_tokens))

    def tokens(self, count: int) -> None:
        """Wait for so many tokens."""
        self._wait(self._latency.per_token * count)

    def _wait(self, seconds: float) -> None:
        self._due += seconds
        left = self._due - time.monotonic()
        if left > _RESOLUTION_SECONDS:
            self._stopped.wait(left)
