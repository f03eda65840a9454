"""Everything the gate asks, as data: a finite list that never changes by itself, each prompt with what counts as right.

Whoever has to answer the gate (a tiny trained model, a stand-in for the engine) needs this module only: `conversations`
returns every prompt, and `Prompt.right` is an answer that passes. Later turns of a conversation are fixed, never the
model's own words, so that no answer changes what is asked next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# How a prompt is asked. on and off: the model can be switched (chat_template_kwargs.enable_thinking); always and none: it
# cannot, and nothing is sent.
Thinking = Literal["on", "off", "always", "none"]
ModelThinking = Literal["switchable", "always", "none"]
Message = Mapping[str, Any]

# Room for thoughts about a question of one line, at the model's least effort: high for GLM-5.2, which can be told not to think,
# low for GLM-5.3, which cannot. A budget, no measurement.
_THINKING_TOKENS: Mapping[Thinking, int] = {"on": 512, "always": 384, "off": 0, "none": 0}


@dataclass(frozen=True)
class Call:
    """A tool call that counts as right: this name, and exactly these arguments with these types."""

    name: str
    arguments: Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Prompt:
    """One request. `right` is the number that the answer must give last, or the call that it must make.

    `max_tokens` bounds what the engine may generate, thoughts included. A prompt about the sparse path must be longer than
    `more_than` tokens by the engine's own count; `about` is what it is estimated to have.
    """

    id: str
    messages: tuple[Message, ...]
    right: str | Call
    thinking: Thinking
    max_tokens: int
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    more_than: int = 0

    @property
    def about(self) -> int:
        """An estimate of the prompt's tokens: words and full stops, each one token to a large vocabulary."""
        texts = [str(message.get("content") or "") for message in self.messages]
        return sum(len(text.split()) + text.count(".") for text in texts) + (_TOOLS_TOKENS if self.tools else 0)


_TOOLS_TOKENS = 400  # the three tools below with the template's words around them


def _bound(answer_tokens: int, way: Thinking) -> int:
    return answer_tokens + _THINKING_TOKENS[way]


def modes(thinking: ModelThinking, *, reasoning: bool) -> tuple[Thinking, ...]:
    """Return the ways in which a model is asked, the one with the shortest answers first.

    Without a reasoning parser (`reasoning` false) nothing takes thoughts out of an answer: it is asked with thinking off.
    """
    if thinking == "switchable":
        return ("off", "on") if reasoning else ("off",)
    return (thinking,)


def conversations(ways: Sequence[Thinking] = ("off", "on")) -> list[Prompt]:
    """Return every prompt that a run asks in these ways; the optional longer needle is not among them (`long_needle`)."""
    return list(_every(ways))


def _every(ways: Sequence[Thinking]) -> Iterator[Prompt]:
    for way in ways:
        yield simple(way)
        yield from (tool_call(choice, way) for choice in CHOICES)
    yield no_arguments(ways[0])
    yield tool_result(ways[0])
    yield from later_turns(ways[-1])
    yield from accuracy(ways[0])
    yield from needles(ways[0])
    yield coding(ways[0])


# --- a question without tools ----------------------------------------------------------------------------------------

_NUMBER_ONLY = "Answer with the number only."


def simple(way: Thinking) -> Prompt:
    """Return the question that shows whether thoughts and answer are kept apart."""
    return Prompt(f"simple/{way}", (_user(f"What is 17 plus 25? {_NUMBER_ONLY}"),), "42", way, _bound(32, way))


_SUMS = (
    ("A box holds 12 pens. How many pens are in 7 boxes?", "84"),
    ("Mia had 50 coins. She spent 18 and found 5. How many coins does she have now?", "37"),
    ("A film begins 40 minutes after nine and lasts 95 minutes. How many minutes after nine does it end?", "135"),
    ("Three friends share 45 apples equally, then each eats 4. How many apples does each have left?", "11"),
    ("A shirt costs 40 dollars. How many dollars does it cost with 25 percent off?", "30"),
    ("A farmer has 15 cows and 8 hens. How many legs do they have in all?", "76"),
    ("A tank holds 200 litres and is 35 percent full. How many litres are in it?", "70"),
    ("A pen costs 3 dollars and a book 8 dollars. How many dollars do 4 pens and 5 books cost?", "52"),
)


def accuracy(way: Thinking) -> list[Prompt]:
    """Return the accuracy set: sums of one or two steps in the manner of GSM8K, short enough to answer at once."""
    return [
        Prompt(f"accuracy/{number}/{way}", (_user(f"{question} {_NUMBER_ONLY}"),), answer, way, _bound(64, way))
        for number, (question, answer) in enumerate(_SUMS, start=1)
    ]


def coding(way: Thinking) -> Prompt:
    """Return the coding prompt whose times are measured. Its answer, thoughts or code, is not judged."""
    question = (
        "Write a Python function total(values) that returns the sum of the even numbers in a list. Only the code."
    )
    code = "def total(values):\n    return sum(value for value in values if value % 2 == 0)"
    return Prompt(f"coding/{way}", (_user(question),), code, way, 128)


def timed(way: Thinking, *, tools: bool) -> dict[str, Prompt]:
    """Return the prompts whose times are measured, by the name of their kind."""
    return {"coding": coding(way), **({"tool-call": tool_call("auto", way)} if tools else {})}


# --- tools -----------------------------------------------------------------------------------------------------------


def _tool(name: str, description: str, properties: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = (
    _tool(
        "get_weather",
        "Get the weather forecast for a city.",
        {
            "city": {"type": "string", "description": "Name of the city"},
            "days": {"type": "integer", "description": "Number of days"},
            "metric": {"type": "boolean", "description": "Whether to use metric units"},
        },
    ),
    _tool(
        "search_docs",
        "Search the documentation.",
        {
            "query": {"type": "string", "description": "What to search for"},
            "limit": {"type": "integer", "description": "Most results to return"},
        },
    ),
    _tool(
        "open_ticket",
        "Open a support ticket.",
        {
            "number": {"type": "integer", "description": "Number of the ticket"},
            "priority": {
                "type": "string",
                "enum": ["low", "normal", "urgent"],
                "description": "Priority of the ticket",
            },
        },
    ),
)

ToolChoice = Literal["auto", "required", "named"]
CHOICES: tuple[ToolChoice, ...] = ("auto", "required", "named")

_CALL_TOKENS = 96

# One conversation in three turns. What a turn asks, the call it must make, what the tool then says.
_TURNS = (
    (
        "What is the temperature in Oslo? Call get_weather with days 1 and metric true, then answer with the number only.",
        Call("get_weather", {"city": "Oslo", "days": 1, "metric": True}),
        "7",
    ),
    ("And in Rome?", Call("get_weather", {"city": "Rome", "days": 1, "metric": True}), "18"),
    ("And in Cairo?", Call("get_weather", {"city": "Cairo", "days": 1, "metric": True}), "31"),
)


def tool_call(choice: ToolChoice, way: Thinking) -> Prompt:
    """Return the first turn: a prompt that makes a call whatever the choice is."""
    question, call, _ = _TURNS[0]
    sent: str | Mapping[str, Any] = choice
    if choice == "named":
        sent = {"type": "function", "function": {"name": call.name}}
    return Prompt(f"tools/{choice}/{way}", (_user(question),), call, way, _bound(_CALL_TOKENS, way), TOOLS, sent)


def no_arguments(way: Thinking) -> Prompt:
    """Return a prompt that makes a call without arguments, which parsers have lost (vllm#34449, #48103)."""
    tool = _tool("list_tickets", "List the support tickets that are open.", {})
    question = "Which support tickets are open? Call list_tickets."
    call = Call("list_tickets", {})
    return Prompt(
        f"tools/no-arguments/{way}", (_user(question),), call, way, _bound(_CALL_TOKENS, way), (tool,), "auto"
    )


def tool_result(way: Thinking) -> Prompt:
    """Return the first turn once its tool has answered."""
    return _after_call(0, way)


def later_turns(way: Thinking) -> list[Prompt]:
    """Return the second turn and the third, and the third once its tool has answered: each with tool results before it."""
    return [_before_call(1, way), _before_call(2, way), _after_call(2, way)]


def _before_call(turn: int, way: Thinking) -> Prompt:
    question, call, _ = _TURNS[turn]
    messages = (*_history(turn), _user(question))
    return Prompt(f"turn-{turn + 1}/call/{way}", messages, call, way, _bound(_CALL_TOKENS, way), TOOLS, "auto")


def _after_call(turn: int, way: Thinking) -> Prompt:
    messages = (*_history(turn), *_called(turn))
    return Prompt(f"turn-{turn + 1}/answer/{way}", messages, _TURNS[turn][2], way, _bound(32, way), TOOLS, "auto")


def _history(turns: int) -> tuple[Message, ...]:
    """Return whole turns, from the question to the answer."""
    return tuple(
        message
        for turn in range(turns)
        for message in (*_called(turn), {"role": "assistant", "content": _TURNS[turn][2]})
    )


def _called(turn: int) -> tuple[Message, ...]:
    """Return a turn's question, its call and what the tool said."""
    question, call, temperature = _TURNS[turn]
    call_id = f"call_{turn + 1}"
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return (
        _user(question),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call_id, "content": json.dumps({"temperature": int(temperature)})},
    )


# --- needles ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Needle:
    """A number in a text of about so many tokens, at a depth (0 the beginning, 1 the end)."""

    name: str
    tokens: int
    more_than: int
    depth: float
    whose: str
    number: int


# GLM-5.2 selects keys only beyond index_topk = 2,048 tokens; corruptions were seen from 2k and 4,096 tokens on, and from
# 5.4-5.9k on only with tools defined (vllm#47827, TensorRT-LLM#15295).
_NEEDLES = (
    _Needle("needle-3k", 3_000, 2_048, 0.10, "green lighthouse", 48_213),
    _Needle("needle-5k", 5_000, 4_096, 0.40, "silver bridge", 73_592),
)
_NEEDLE_WITH_TOOLS = _Needle("needle-8k-tools", 8_000, 5_900, 0.25, "blue harbour", 61_847)

# Everyday words, each one token to any large vocabulary. The numbers of alternatives have no common factor, so that the
# first 2,520 sentences differ.
_WHO = (
    "The old man",
    "A young woman",
    "The small boy",
    "My best friend",
    "The new teacher",
    "A tall girl",
    "The doctor",
)
_DID = ("walked to", "looked at", "talked about", "went past", "stood near", "thought of", "came back to", "ran from")
_WHAT = (
    *("the white house", "the long road", "the big river", "the open door", "the quiet street"),
    *("the high wall", "the cold water", "the dark wood", "the market"),
)
_WHEN = ("in the morning", "after the rain", "on a cold day", "before dinner", "at the end of the week")


def needles(way: Thinking) -> list[Prompt]:
    """Return the prompts of the sparse path: a number hidden in a long text, the last time with three tools defined."""
    return [*(_asked(needle, way) for needle in _NEEDLES), _asked_with_tools(_NEEDLE_WITH_TOOLS, way)]


def long_needle(tokens: int, way: Thinking, *, tools: bool) -> Prompt:
    """Return a prompt of about that many tokens, for a check near the planned context; with tools where they are promised."""
    needle = _Needle("needle-long", tokens, tokens * 3 // 4, 0.20, "red windmill", 29_364)
    return _asked_with_tools(needle, way) if tools else _asked(needle, way)


def _asked(needle: _Needle, way: Thinking) -> Prompt:
    text = f"{_text(needle, needle.tokens)}\n\nWhat is the number of the {needle.whose}? {_NUMBER_ONLY}"
    right = str(needle.number)
    return Prompt(f"{needle.name}/{way}", (_user(text),), right, way, _bound(32, way), more_than=needle.more_than)


def _asked_with_tools(needle: _Needle, way: Thinking) -> Prompt:
    notes = _text(needle, needle.tokens - _TOOLS_TOKENS)
    text = f"{notes}\n\nOpen the ticket of the {needle.whose} with priority urgent. Its number is in the notes."
    return Prompt(
        f"{needle.name}/{way}",
        (_user(text),),
        Call("open_ticket", {"number": needle.number, "priority": "urgent"}),
        way,
        _bound(_CALL_TOKENS, way),
        TOOLS,
        "auto",
        needle.more_than,
    )


def _text(needle: _Needle, tokens: int) -> str:
    """Return notes of about that many tokens with the needle in them."""
    sentences: list[str] = []
    size = 0
    while size < tokens:
        sentence = _sentence(len(sentences))
        sentences.append(sentence)
        size += len(sentence.split()) + 1
    place = round(len(sentences) * needle.depth)
    sentences.insert(place, f"The number of the {needle.whose} is {needle.number}.")
    return f"Read these notes.\n\n{' '.join(sentences)}"


def _sentence(number: int) -> str:
    parts = (options[number % len(options)] for options in (_WHO, _DID, _WHAT, _WHEN))
    return f"{' '.join(parts)}."


def _user(text: str) -> Message:
    return {"role": "user", "content": text}
