"""What the model writes: the table's answers, calls where the grammar forces one, and what is wrong with a wrecked one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

from rehearsal.vllm.faults import Fault
from rehearsal.vllm.glm import Answer, Call, call_text, parameters_of, tokens
from rehearsal.vllm.request import ChatRequest
from rehearsal.vllm.settings import EngineSettings

_SYLLABLES = ("qua", "zor", "eth", "ulm", "pri", "vex", "ond", "gla", "tir", "osk", "ben", "yul")
_GIBBERISH_WORDS = 60

_FREE_CALL_GRAMMAR = (0, 32)  # observed: not in 0.31.0, in 0.32.0

_ACCURACY_SET = "accuracy"  # sums in two steps; what takes one step comes out right even then

# Prompt lengths, in tokens, beyond which the sparse attention's wrong keys were seen to spoil the output.
_CORRUPT_BEYOND = {
    Fault.WRONG_BEYOND_2048: 2048,
    Fault.WRONG_BEYOND_4096: 4096,
    Fault.WRONG_AT_5400_WITH_TOOLS: 5400,
}

Table = Callable[[ChatRequest], Answer | None]
"""The finite table of what the model knows; None for a question that is not in it."""


@dataclass(frozen=True)
class Model:
    """A model behind one engine. With the same table and fault it always writes the same."""

    table: Table
    settings: EngineSettings
    fault: Fault | None = None

    def write(self, request: ChatRequest) -> Iterator[str]:
        """Yield the tokens of an answer. They may go on for ever; `max_tokens` is the engine's to keep."""
        answer = self._answer(request)
        if self.fault is Fault.STREAMS_FOREVER:
            return repeat(" more")
        if self.fault is Fault.REQUIRED_REPEATS and request.choice == "required":
            return _repeated(answer, thinking=request.thinking)
        if self._is_gibberish(request):
            return tokens(_gibberish(request))
        if self.fault is Fault.CALL_IN_THINKING and answer.calls and request.thinking:
            return tokens(answer.reasoning + "".join(map(call_text, answer.calls)))
        # Without a reasoning parser the grammar of a forced call is active from the first token on: no thoughts come out.
        thoughtless = request.forced and self.settings.reasoning_parser is None
        return tokens(answer.text(thinking=request.thinking and not thoughtless))

    def _answer(self, request: ChatRequest) -> Answer:
        known = self.table(request) or _unknown(request)
        if request.forced:
            known = known.calling(*_forced(known, request))
        if self._is_wrecked(request):
            return known.calling(*(replace(call, arguments={}) for call in known.calls))
        if self.fault is Fault.CALL_NEVER_ISSUED and request.choice == "auto" and known.calls:
            return replace(known, content="I will call the tool now.", calls=())
        if self.fault is Fault.LOW_ACCURACY and known.topic == _ACCURACY_SET:
            return replace(known, content=_miscounted(known.content))
        return known

    def _is_wrecked(self, request: ChatRequest) -> bool:
        """Whether nothing sensible comes out of the model for this prompt."""
        if self.fault is Fault.WRONG_AT_5400_WITH_TOOLS and not request.tools:
            return False
        limit = 0 if self.fault is Fault.GIBBERISH else _CORRUPT_BEYOND.get(self.fault) if self.fault else None
        return limit is not None and request.prompt_tokens > limit

    def _is_gibberish(self, request: ChatRequest) -> bool:
        """Whether the answer is gibberish as text. A forced call is well formed even then: the grammar sees to it."""
        if request.forced:
            return False
        if self._is_wrecked(request):
            return True
        # From 0.32 on a free call has a grammar, too. Without a reasoning parser it is active from the first token on, and
        # `</think>` is not in it: the model thinks on and on in other words. 0.31 lets thoughts and call pass.
        thinks = request.thinking and self.settings.reasoning_parser is None
        return thinks and request.choice == "auto" and self.settings.release >= _FREE_CALL_GRAMMAR


def _repeated(answer: Answer, *, thinking: bool) -> Iterator[str]:
    """Write an answer whose calls come again and again."""
    yield from tokens(replace(answer, calls=()).text(thinking=thinking))
    for calls in repeat(answer.calls):
        yield from tokens("".join(map(call_text, calls)))


def _unknown(request: ChatRequest) -> Answer:
    reasoning = "This question is not in the table." if request.thinking else ""
    return Answer(reasoning, "I am a stand-in and know the gate's questions only.")


def _forced(known: Answer, request: ChatRequest) -> tuple[Call, ...]:
    """Return the calls that the grammar lets through: the model's own where they fit, else one that fits the schema."""
    if request.named is None and known.calls:
        return known.calls
    name = request.named or request.tools[0]["function"]["name"]
    own = tuple(call for call in known.calls if call.name == name)
    return own or (Call(name, _instance(parameters_of(name, request.tools))),)


def _instance(schema: Mapping[str, Any]) -> Any:
    """Return the smallest value that fits a JSON schema."""
    if "enum" in schema:
        return schema["enum"][0]
    properties = schema.get("properties", {})
    match schema.get("type", "object"):
        case "object":
            return {key: _instance(properties[key]) for key in schema.get("required", ()) if key in properties}
        case "array":
            return []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return "text"


def _gibberish(request: ChatRequest) -> str:
    """Return words of no language, the same ones for the same question."""
    seed = hashlib.sha256(repr(request.messages).encode()).digest()
    count = len(_SYLLABLES)
    words = (_SYLLABLES[seed[n % 32] % count] + _SYLLABLES[(seed[n % 31] + n) % count] for n in range(_GIBBERISH_WORDS))
    return " ".join(words)


def _miscounted(text: str) -> str:
    """Return an answer with every digit off by one."""
    return re.sub(r"\d", lambda match: str((int(match[0]) + 1) % 10), text)
