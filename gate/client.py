"""Asks an engine, within bounds: whatever it does, a question ends in an `Answer` or in `CheckFailedError`, and in time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import openai

from gate.expect import Expectations
from gate.prompts import Prompt

# Requests in flight: the throughput of a batch without the delays of a crowd. docs/gate.md counts with it.
AT_ONCE = 4

_PLAIN_SECONDS = 10.0  # /health, /metrics, /version and /v1/models answer at once, also under load

# Chunks beyond one for each token: the role, the usage, tool-call headers. A stream with more does not heed max tokens.
_SPARE_CHUNKS = 64


class CheckFailedError(Exception):
    """A check failed: what is wrong, what was sent, what came back."""

    def __init__(self, problem: str, sent: str = "", received: str = "") -> None:
        self.problem = problem
        self.sent = sent
        self.received = received
        super().__init__(problem)


class NoAnswerError(CheckFailedError):
    """Nothing came back in time."""


class NotAskedError(Exception):
    """A question was not sent, because the engine had left an earlier one without an answer."""


@dataclass(frozen=True)
class MadeCall:
    """A tool call as it came back. `arguments` is text, JSON if all is well."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Usage:
    """Tokens as the engine counted them."""

    prompt: int
    completion: int
    total: int


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt; `sent` is the request. Seconds from sending it to the first token, if streamed, and to the end."""

    prompt: Prompt
    sent: str
    content: str
    reasoning: str
    calls: tuple[MadeCall, ...]
    finish_reason: str | None
    usage: Usage | None
    seconds: float
    first_token_seconds: float | None = None

    def failed(self, problem: str) -> CheckFailedError:
        """Return the failure that this answer proves."""
        return CheckFailedError(problem, self.sent, self.received)

    @property
    def received(self) -> str:
        """The answer as a person wants to see it: short, and only what is there."""
        parts: dict[str, object] = {"content": shorten(self.content, 300)}
        if self.reasoning:
            parts["reasoning"] = shorten(self.reasoning, 120)
        if self.calls:
            calls = [f"{call.name}({shorten(call.arguments, 160)})" for call in self.calls[:3]]
            more = len(self.calls) - len(calls)
            parts["tool_calls"] = [*calls, f"and {more} more"] if more else calls
        return json.dumps({**parts, "finish_reason": self.finish_reason}, ensure_ascii=False)


class Engine:
    """An engine at a URL. `lost` says why it counts as gone or stuck once a request got no answer, else it is None."""

    def __init__(self, base_url: str, expect: Expectations, api_key: str) -> None:
        self.base_url = base_url
        self.lost: str | None = None
        self._expect = expect
        self._slots = asyncio.Semaphore(AT_ONCE)
        # Certificates that nobody needs take longer to load than a question to answer.
        self._http = openai.DefaultAsyncHttpxClient(timeout=None, verify=base_url.startswith("https:"))
        # No retries: an engine that answers every other time is what the gate is there to find.
        self._client = openai.AsyncOpenAI(
            base_url=f"{base_url}/v1", api_key=api_key, max_retries=0, timeout=None, http_client=self._http
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, path: str, seconds: float = _PLAIN_SECONDS) -> str:
        """Return the text at a path; fail unless its status is 200."""
        sent = f"GET {path}"
        try:
            async with asyncio.timeout(seconds):
                # A connection of its own: one that was kept may be dead although the engine lives.
                response = await self._http.get(f"{self.base_url}{path}", headers={"Connection": "close"})
        except TimeoutError:
            raise self._lost(NoAnswerError(f"no answer within {seconds:g} s", sent)) from None
        except Exception as error:  # noqa: BLE001 (the HTTP library is openai's own choice, and so are its exceptions)
            raise self._lost(CheckFailedError(_said(error), sent)) from None
        if response.status_code != 200:
            raise CheckFailedError(f"HTTP {response.status_code}", sent, shorten(response.text, 300))
        return response.text

    async def ask(self, prompt: Prompt, *, stream: bool, patient: bool = False) -> Answer:
        """Ask a prompt. A patient question may take what is left of the run, any other the seconds of a request."""
        body = self._body(prompt, stream=stream)
        sent = f"POST /v1/chat/completions {json.dumps(_shortened(body), ensure_ascii=False)}"
        seconds = None if patient else self._expect.request_seconds
        async with self._slots:
            if self.lost is not None:
                raise NotAskedError(self.lost)
            try:
                async with asyncio.timeout(seconds):
                    answer = await (self._streamed if stream else self._whole)(prompt, body, sent)
            except TimeoutError:
                raise self._lost(NoAnswerError(f"no complete answer within {seconds:g} s", sent)) from None
            except CheckFailedError:
                raise
            except openai.APIStatusError as error:
                text = shorten(error.response.text, 300)
                raise CheckFailedError(f"HTTP {error.status_code}", sent, text) from None
            except openai.APIConnectionError as error:
                raise self._lost(CheckFailedError(_said(error.__cause__ or error), sent)) from None
            except Exception as error:  # noqa: BLE001 (whatever the client cannot read is a broken answer)
                raise CheckFailedError(f"the answer cannot be read: {_said(error)}", sent) from None
        if answer.finish_reason is None:
            raise answer.failed("the answer breaks off: it has no finish_reason")
        return answer

    def _lost(self, failure: CheckFailedError) -> CheckFailedError:
        """Note that the engine counts as gone or stuck, and why."""
        self.lost = f"{failure.sent.partition(' {')[0]}: {failure.problem}"
        return failure

    def _body(self, prompt: Prompt, *, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._expect.served_model_name,
            "messages": list(prompt.messages),
            "temperature": 0,
            "max_completion_tokens": prompt.max_tokens,
        }
        if prompt.tools:
            body |= {"tools": list(prompt.tools), "tool_choice": prompt.tool_choice}
        if prompt.thinking in {"on", "off"}:
            body["chat_template_kwargs"] = {"enable_thinking": prompt.thinking == "on"}
        if prompt.thinking in {"on", "always"} and self._expect.reasoning_effort is not None:
            body["reasoning_effort"] = self._expect.reasoning_effort
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def _create(self, body: Mapping[str, Any]) -> Any:
        """Send a request through openai's client, which takes what is not OpenAI's own apart from the rest."""
        own = {name: value for name, value in body.items() if name != "chat_template_kwargs"}
        extra = {name: value for name, value in body.items() if name == "chat_template_kwargs"}
        return await cast("Any", self._client.chat.completions).create(**own, extra_body=extra or None)

    async def _whole(self, prompt: Prompt, body: Mapping[str, Any], sent: str) -> Answer:
        start = time.monotonic()
        completion = _plain(await self._create(body))
        seconds = time.monotonic() - start
        choices = objects(completion.get("choices"))
        if not choices:
            raise CheckFailedError("the answer is no chat completion", sent, shorten(json.dumps(completion), 300))
        parts = _Parts()
        parts.add(choices[0], "message")
        return parts.answer(prompt, sent, _usage(completion), seconds)

    async def _streamed(self, prompt: Prompt, body: Mapping[str, Any], sent: str) -> Answer:
        start = time.monotonic()
        parts, usage, first, end, chunks = _Parts(), None, None, start, 0
        stream = await self._create(body)
        if not hasattr(stream, "__aiter__"):
            raise CheckFailedError("the answer is no stream", sent, shorten(json.dumps(_plain(stream)), 300))
        async with stream:  # leaves the connection closed, so that the engine stops generating for nobody
            async for chunk in stream:
                row = _plain(chunk)
                usage = _usage(row) or usage
                chunks += 1
                if chunks > prompt.max_tokens + _SPARE_CHUNKS:
                    answer = parts.answer(prompt, sent, usage, end - start, first)
                    raise answer.failed(
                        f"the stream goes on after {chunks} chunks for at most {prompt.max_tokens} tokens"
                    )
                for choice in objects(row.get("choices")):
                    if parts.add(choice, "delta"):
                        end = time.monotonic()
                        first = end - start if first is None else first
        return parts.answer(prompt, sent, usage, end - start, first)


def _plain(model: Any) -> dict[str, Any]:
    """Return what openai's client made of an answer as plain data. It reads leniently: any field may hold anything."""
    return _object(model.to_dict(warnings=False)) if hasattr(model, "to_dict") else {"text": str(model)}


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """Return a JSON list of objects; what is none of either counts as empty."""
    return [_object(item) for item in cast("list[Any]", value)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _usage(row: Mapping[str, Any]) -> Usage | None:
    given = _object(row.get("usage"))
    counts = [given.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    prompt, completion, total = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(prompt, completion, total) if given else None


@dataclass
class _Parts:
    """What has come of an answer so far."""

    content: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    calls: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    finish_reason: str | None = None

    def add(self, choice: Mapping[str, Any], key: str) -> bool:
        """Add a message or a delta; return whether it held a part of the answer."""
        given = _object(choice.get(key))
        self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
        content = _text(given.get("content"))
        # vLLM says `reasoning`; earlier releases said `reasoning_content`.
        reasoning = _text(given.get("reasoning")) or _text(given.get("reasoning_content"))
        self.content.append(content)
        self.reasoning.append(reasoning)
        calls = objects(given.get("tool_calls"))
        for number, call in enumerate(calls):
            index = call.get("index") if key == "delta" else number
            made = self.calls.setdefault(index if isinstance(index, int) else number, ["", ""])
            function = _object(call.get("function"))
            made[0] += _text(function.get("name"))
            arguments = function.get("arguments")
            made[1] += "" if arguments is None else str(arguments)
        return bool(content or reasoning or calls)

    def answer(
        self, prompt: Prompt, sent: str, usage: Usage | None, seconds: float, first_token_seconds: float | None = None
    ) -> Answer:
        return Answer(
            prompt,
            sent,
            "".join(self.content),
            "".join(self.reasoning),
            tuple(MadeCall(name, arguments) for _, (name, arguments) in sorted(self.calls.items())),
            self.finish_reason,
            usage,
            seconds,
            first_token_seconds,
        )


def _said(error: BaseException) -> str:
    return shorten(" ".join(f"{type(error).__name__}: {error}".split()), 200)


def shorten(text: str, limit: int) -> str:
    """Return text of at most `limit` characters, without its middle if it is longer."""
    if len(text) <= limit:
        return text
    half = (limit - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def _shortened(value: Any) -> Any:
    """Return a request in which no text is long: the tools by their names, a needle's notes without their middle."""
    if isinstance(value, str):
        return shorten(value, 160)
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        return {key: _names(item) if key == "tools" else _shortened(item) for key, item in table.items()}
    return [_shortened(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def _names(tools: list[dict[str, Any]]) -> list[str]:
    return [tool["function"]["name"] for tool in tools]
