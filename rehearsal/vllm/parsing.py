"""From what the model wrote to what a client gets: reasoning, content and calls, as the parsers of the flags take them apart."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rehearsal.vllm.faults import Fault
from rehearsal.vllm.glm import END_OF_THINKING, THINK, Call, call_text, calls_in
from rehearsal.vllm.parsers import GLM_PARSERS
from rehearsal.vllm.request import ChatRequest
from rehearsal.vllm.settings import EngineSettings

_NEAR_MAX_CONTEXT = 0.9
_THIRD_TURN = 3


@dataclass(frozen=True)
class ParsedCall:
    """A call as the client gets it; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Parsed:
    """The parts of a message. None is JSON's null."""

    reasoning: str | None = None
    content: str | None = None
    calls: tuple[ParsedCall, ...] = ()


def parsed(text: str, request: ChatRequest, settings: EngineSettings, fault: Fault | None) -> Parsed:
    """Take an answer's text apart as the server's parsers do."""
    if fault is Fault.TURN_THREE_REASONING and _turn(request) >= _THIRD_TURN and request.thinking:
        return Parsed(content=f"{THINK}{text}")
    reasoning, content = _without_reasoning(text, request, settings)
    if content is None or settings.tool_call_parser is None:
        return Parsed(reasoning, content)
    if settings.tool_call_parser not in GLM_PARSERS:
        return _foreign(reasoning, content, request)
    rest, calls = calls_in(content, request.tools)
    if request.choice == "none":
        return Parsed(reasoning, rest or None)
    lost = [call for call in calls if _is_lost(call, request, settings, fault)]
    rest += "".join(map(call_text, lost))
    kept = tuple(_for_client(call, request, fault) for call in calls if call not in lost)
    if request.forced:
        return Parsed(reasoning, rest, kept)
    return Parsed(reasoning, rest if rest.strip() or not kept else None, kept)


def _without_reasoning(text: str, request: ChatRequest, settings: EngineSettings) -> tuple[str | None, str | None]:
    if settings.reasoning_parser is None:
        return None, text
    if not request.thinking:
        # Observed with deepseek_r1: waiting for an end of thinking it takes everything for thinking, but not in a stream.
        patient = settings.reasoning_parser in GLM_PARSERS or request.stream
        return (None, text) if patient else (text, None)
    reasoning, end, content = text.partition(END_OF_THINKING)
    return reasoning or None, content if end else None


def _foreign(reasoning: str | None, content: str, request: ChatRequest) -> Parsed:
    """Answer as observed with the parser hermes on GLM's format; other foreign parsers were not tried."""
    if request.forced:
        name = request.named or request.tools[0]["function"]["name"]
        return Parsed(reasoning, "", (ParsedCall(name, "true"),))
    if request.choice == "auto" and request.stream and "<tool_call>" in content:
        return Parsed(reasoning, "")
    return Parsed(reasoning, content)


def _is_lost(call: Call, request: ChatRequest, settings: EngineSettings, fault: Fault | None) -> bool:
    """Whether a fault leaves the call in the content."""
    if fault is Fault.CALL_LOST_NEAR_MAX_CONTEXT:
        return request.prompt_tokens > _NEAR_MAX_CONTEXT * settings.max_model_len
    return (fault is Fault.FORCED_CALL_IN_CONTENT and request.forced) or (
        fault is Fault.ZERO_ARGUMENT_CALL_LOST and not call.arguments
    )


def _for_client(call: Call, request: ChatRequest, fault: Fault | None) -> ParsedCall:
    if fault is Fault.STREAMED_CALL_LOST and request.stream:
        return ParsedCall(call.name, "")
    return ParsedCall(call.name, json.dumps(dict(call.arguments)))


def _turn(request: ChatRequest) -> int:
    return sum(message["role"] == "user" for message in request.messages)
