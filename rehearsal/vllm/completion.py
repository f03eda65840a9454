"""One chat completion from request to answer: whole, or as the chunks of a stream."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rehearsal.vllm.faults import Fault
from rehearsal.vllm.glm import END_OF_THINKING, tokens
from rehearsal.vllm.latency import Latency, Pace
from rehearsal.vllm.metrics import Metrics
from rehearsal.vllm.model import Model
from rehearsal.vllm.parsing import Parsed, ParsedCall, parsed
from rehearsal.vllm.request import ChatRequest

Json = dict[str, Any]

_ENDLESS_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Written:
    """The tokens of an answer up to its end or its limit, and why it ended: stop, length or abort."""

    tokens: tuple[str, ...]
    reason: str

    @property
    def text(self) -> str:
        """The answer's text."""
        return "".join(self.tokens)


@dataclass
class Completions:
    """Answers requests. `draining` refuses new ones as vLLM does, `aborting` also ends those that run."""

    model: Model
    metrics: Metrics
    latency: Latency
    draining: threading.Event = field(default_factory=threading.Event)
    aborting: threading.Event = field(default_factory=threading.Event)

    def whole(self, request: ChatRequest) -> Json:
        """Return the answer to a request that does not stream."""
        started = time.monotonic()
        pace = self._begin(request)
        written = self._written(request)
        pace.tokens(len(written.tokens))
        self._end(request, written, started)
        parts = self._parts(request, written)
        message: Json = {"role": "assistant", "content": parts.content, "reasoning": parts.reasoning}
        message["tool_calls"] = [_call(call) for call in parts.calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _finish_reason(request, parts, written.reason),
            "stop_reason": None,
        }
        return {**_head(request, "chat.completion"), "choices": [choice], "usage": self._usage(request, written)}

    def stream(self, request: ChatRequest) -> Iterator[Json]:
        """Yield the chunks of an answer."""
        head, started = _head(request, "chat.completion.chunk"), time.monotonic()
        pace = self._begin(request)
        yield {**head, "choices": [_delta({"role": "assistant", "content": ""})]}
        written = self._written(request)
        parts = self._parts(request, written)
        for delta in _deltas(parts):
            pace.tokens(1)
            if self.aborting.is_set():
                written = replace(written, reason="abort")
                break
            yield {**head, "choices": [_delta(delta)]}
        self._end(request, written, started)
        yield {**head, "choices": [_delta({}, _finish_reason(request, parts, written.reason))]}
        if request.include_usage:
            yield {**head, "choices": [], "usage": self._usage(request, written)}

    def endless(self, request: ChatRequest) -> Iterator[Json]:
        """Yield the chunks of an answer that has no end."""
        head = _head(request, "chat.completion.chunk")
        for token in self.model.write(request):
            if self.aborting.wait(_ENDLESS_PAUSE_SECONDS):
                return
            yield {**head, "choices": [_delta({"content": token})]}

    def _begin(self, request: ChatRequest) -> Pace:
        pace = Pace(self.latency, self.aborting)
        if not self.draining.is_set():
            pace.prefill(request.prompt_tokens)
        return pace

    def _written(self, request: ChatRequest) -> Written:
        if self.draining.is_set():  # `EngineCore._reject_add_in_shutdown`: HTTP 200, nothing written, reason abort
            return Written((), "abort")
        cut = tuple(itertools.islice(self.model.write(request), request.max_tokens + 1))
        if len(cut) > request.max_tokens:
            return Written(cut[: request.max_tokens], "length")
        return Written(cut, "stop")

    def _end(self, request: ChatRequest, written: Written, started: float) -> None:
        first = self.latency.first_token(request.prompt_tokens)
        self.metrics.finished(request, len(written.tokens), written.reason, first, time.monotonic() - started)

    def _parts(self, request: ChatRequest, written: Written) -> Parsed:
        return parsed(written.text, request, self.model.settings, self.model.fault)

    def _usage(self, request: ChatRequest, written: Written) -> Json:
        usage: Json = {
            "prompt_tokens": request.prompt_tokens,
            "total_tokens": request.prompt_tokens + len(written.tokens),
            "completion_tokens": len(written.tokens),
            "prompt_tokens_details": None,
        }
        if self.model.settings.reasoning_parser is not None:
            reasoning = written.tokens.index(END_OF_THINKING) if END_OF_THINKING in written.tokens else 0
            usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        return usage


def is_endless(model: Model) -> bool:
    """Whether this model's answers never end."""
    return model.fault is Fault.STREAMS_FOREVER


def _head(request: ChatRequest, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
    }


def _delta(delta: Json, finish_reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _deltas(parts: Parsed) -> Iterator[Json]:
    for piece in tokens(parts.reasoning or ""):
        yield {"reasoning": piece}
    for piece in tokens(parts.content or ""):
        yield {"content": piece}
    for index, call in enumerate(parts.calls):
        start = _call(call)
        del start["function"]["arguments"]
        yield {"tool_calls": [{"index": index, **start}]}
        for piece in tokens(call.arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _call(call: ParsedCall) -> Json:
    return {
        "id": f"chatcmpl-tool-{uuid.uuid4().hex[:16]}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _finish_reason(request: ChatRequest, parts: Parsed, reason: str) -> str:
    """Return vLLM's reason: a named call ends with stop, every other with tool_calls, a limit with length."""
    if reason != "stop" or request.choice == "named":
        return reason
    return "tool_calls" if parts.calls or request.choice == "required" else "stop"
