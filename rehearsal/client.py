"""A client that asks all the time, through a Service's ready endpoints: what users would notice of an upgrade."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gate import prompts
from rehearsal.cluster import Cluster

Object = dict[str, Any]
Reach = Callable[[str, int], tuple[str, int]]
"""Where on this machine a pod's address and port are."""

_AT_ONCE = 3
_PAUSE_SECONDS = 0.05
_TIMEOUT_SECONDS = 30.0
_KEPT_FAILURES = 5

# Short and long answers in turn: a drain that cuts answers short shows in the long ones.
_QUESTIONS = (prompts.simple("off"), prompts.coding("off"))


@dataclass
class Tally:
    """What a client has seen. `unserved` counts the requests for which no endpoint was ready."""

    answered: Counter[str] = field(default_factory=Counter[str])
    failures: list[str] = field(default_factory=list[str])
    failed: int = 0
    unserved: int = 0

    @property
    def asked(self) -> int:
        """All requests."""
        return self.answered.total() + self.failed + self.unserved

    def __str__(self) -> str:
        by = ", ".join(f"{pod} {count}" for pod, count in sorted(self.answered.items()))
        unserved = f", {self.unserved} found no ready pod" if self.unserved else ""
        return f"{self.asked} requests, {self.failed} failed{unserved}; answered by {by or 'none'}"


class Client:
    """Asks one workload's Service from several threads, a new connection for each request, no retries."""

    def __init__(self, cluster: Cluster, reach: Reach, *, namespace: str, service: str, model: str) -> None:
        self.tally = Tally()
        self._cluster = cluster
        self._reach = reach
        self._namespace = namespace
        self._service = service
        self._model = model
        self._endpoints: list[tuple[str, str, int]] = []
        self._lock = threading.Lock()
        self._done = threading.Event()

    @contextmanager
    def asking(self) -> Generator[Tally]:
        """Ask until the end of the block; on the way out every request has got its answer."""
        self._endpoints = self._ready_endpoints()
        threads = [threading.Thread(target=self._follow, name="endpoints", daemon=True)]
        threads += [threading.Thread(target=self._ask_on, args=(n,), name=f"client-{n}") for n in range(_AT_ONCE)]
        for thread in threads:
            thread.start()
        try:
            yield self.tally
        finally:
            self._done.set()
            for thread in threads[1:]:
                thread.join()

    # --- whom to ask -------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Learn of changed endpoints as a node's proxy does."""
        for _ in self._cluster.watch_endpoints(self._namespace, self._service):
            if self._done.is_set():
                return
            with self._cluster.unless_stopped():
                self._endpoints = self._ready_endpoints()

    def _ready_endpoints(self) -> list[tuple[str, str, int]]:
        """Return pod, address and port of every ready endpoint."""
        slices = self._cluster.endpoint_slices(self._namespace, self._service)
        return [
            ((endpoint.get("targetRef") or {}).get("name", ""), endpoint["addresses"][0], port["port"])
            for row in slices
            for endpoint in row.get("endpoints") or []
            for port in row.get("ports") or []
            if (endpoint.get("conditions") or {}).get("ready")
        ]

    # --- asking ------------------------------------------------------------------------------------------------------

    def _ask_on(self, number: int) -> None:
        while not self._done.wait(_PAUSE_SECONDS):
            number += 1
            endpoints = self._endpoints
            if not endpoints:
                with self._lock:
                    self.tally.unserved += 1
                continue
            pod, address, port = endpoints[number % len(endpoints)]
            self._count(pod, self._ask(address, port, _QUESTIONS[number % len(_QUESTIONS)]))

    def _count(self, pod: str, problem: str | None) -> None:
        with self._lock:
            if problem is None:
                self.tally.answered[pod] += 1
                return
            self.tally.failed += 1
            if len(self.tally.failures) < _KEPT_FAILURES:
                self.tally.failures.append(f"{pod}: {problem}")

    def _ask(self, address: str, port: int, prompt: prompts.Prompt) -> str | None:
        """Return what went wrong with a streamed request, or None."""
        connection = http.client.HTTPConnection(*self._reach(address, port), timeout=_TIMEOUT_SECONDS)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(self._body(prompt)))
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            return f"HTTP {response.status}: {text}"
        return _problem(text, str(prompt.right))

    def _body(self, prompt: prompts.Prompt) -> Object:
        return {
            "model": self._model,
            "messages": list(prompt.messages),
            "max_completion_tokens": prompt.max_tokens,
            "temperature": 0,
            "stream": True,
            "chat_template_kwargs": {"enable_thinking": False},
        }


def _problem(stream: str, right: str) -> str | None:
    """Say what is wrong with a stream that should hold the right answer and end as it should."""
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    if events[-1:] != ["[DONE]"]:
        return f"the stream broke off after {len(events)} events"
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    content = "".join(choice["delta"].get("content") or "" for choice in choices)
    reason = choices[-1]["finish_reason"] if choices else None
    if reason != "stop":
        return f"it ended with {reason}"
    return None if content.strip() == right else f"{content!r} is wrong"
