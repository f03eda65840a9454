"""A chat completion request: what of it matters here, and what vLLM 0.32.0 refuses about it, in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from rehearsal.vllm.glm import Message, Tool, count_tokens, prompt
from rehearsal.vllm.settings import EngineSettings


class RequestError(Exception):
    """A request is refused with a status and a message. `param` is the field at fault, `value` what it holds, if that is told."""

    def __init__(
        self,
        message: str,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        *,
        param: str | None = None,
        value: int | None = None,
    ) -> None:
        extras = [f"parameter={param}"] if param and status == HTTPStatus.BAD_REQUEST else []
        extras += [] if value is None else [f"value={value}"]
        super().__init__(f"{message} ({', '.join(extras)})" if extras else message)
        self.status = status
        self.param = param

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        kind = {HTTPStatus.NOT_FOUND: "NotFoundError", HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError"}
        return {
            "error": {
                "message": str(self),
                "type": kind.get(self.status, "BadRequestError"),
                "param": self.param,
                "code": int(self.status),
            }
        }


@dataclass(frozen=True)
class ChatRequest:
    """One request. `choice` is none, auto, required or named; `named` is the tool of a named choice."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[Tool]
    choice: str
    named: str | None
    thinking: bool
    max_tokens: int
    stream: bool
    include_usage: bool
    prompt_tokens: int

    @property
    def forced(self) -> bool:
        """Whether the answer has to be a call."""
        return self.choice in {"required", "named"}


def chat_request(body: Mapping[str, Any], settings: EngineSettings) -> ChatRequest:
    """Read a request's JSON; raise `RequestError` for what vLLM would refuse."""
    messages, tools = body.get("messages"), body.get("tools")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages: Field required")
    _check_model(body.get("model"), settings)
    choice, named = _choice(body, tools)
    _check_parser(choice, named, settings)
    thinking = bool((body.get("chat_template_kwargs") or {}).get("enable_thinking", True))
    messages, tools = cast("list[Message]", messages), cast("list[Tool]", tools or [])
    length = count_tokens(prompt(messages, tools, thinking=thinking))
    _check_length(length, settings.max_model_len)
    asked = _asked_tokens(body, settings.max_model_len)
    return ChatRequest(
        model=body.get("model") or settings.served_names[0],
        messages=messages,
        tools=tools,
        choice=choice,
        named=named,
        thinking=thinking,
        max_tokens=min(asked, settings.max_model_len - length),
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        prompt_tokens=length,
    )


def _check_model(model: str | None, settings: EngineSettings) -> None:
    if model and model not in settings.served_names:
        # 0.31 does not say which names there are, 0.32 does.
        aliases = f" Valid aliases: {', '.join(settings.served_names)}." if settings.release >= (0, 32) else ""
        raise RequestError(f"The model `{model}` does not exist.{aliases}", HTTPStatus.NOT_FOUND, param="model")


def _choice(body: Mapping[str, Any], tools: object) -> tuple[str, str | None]:
    """Return the kind of tool choice and the tool it names (`check_tool_usage`)."""
    if tools == []:
        raise RequestError(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
            param="tools",
        )
    choice = body.get("tool_choice", "auto" if tools else "none")
    if choice is None or choice == "none":
        return "none", None
    if not tools:
        raise RequestError("When using `tool_choice`, `tools` must be set.", param="tool_choice")
    if isinstance(choice, dict):
        return "named", _named(cast("Mapping[str, Any]", choice), cast("list[Tool]", tools))
    if choice not in ("auto", "required"):
        raise RequestError(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            param="tool_choice",
        )
    return str(choice), None


def _named(choice: Mapping[str, Any], tools: Sequence[Tool]) -> str:
    name = (choice.get("function") or {}).get("name")
    if name not in [tool["function"]["name"] for tool in tools]:
        raise RequestError(
            "The tool specified in `tool_choice` does not match any of the specified `tools`", param="tool_choice"
        )
    return str(name)


def _check_parser(choice: str, named: str | None, settings: EngineSettings) -> None:
    """Refuse a tool choice that no parser can serve (`OnlineRenderer.render_chat`)."""
    if settings.tool_call_parser is not None or choice == "none":
        return
    if choice == "auto":
        raise RequestError('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    wanted = '"required"' if named is None else f'function "{named}"'
    raise RequestError(f"tool_choice={wanted} requires --tool-call-parser to be set")


def _asked_tokens(body: Mapping[str, Any], limit: int) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        asked = body.get(name)
        if asked is None:
            continue
        if asked > limit:
            raise RequestError(
                f"{name}={asked} cannot be greater than max_model_len={limit}. Please request fewer output tokens.",
                param=name,
                value=asked,
            )
        return int(asked)
    return limit


def _check_length(length: int, limit: int) -> None:
    """Refuse a prompt that leaves no room; the tokenizer stops one token beyond the limit, so that is all vLLM knows."""
    if length >= limit:
        raise RequestError(
            f"This model's maximum context length is {limit} tokens. However, your prompt contains at least {limit + 1} input"
            " tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.",
            param="input_tokens",
            value=limit + 1,
        )
