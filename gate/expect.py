"""The expect file: what the plan of a workload promises, and by how much reality may differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

from gate.prompts import ModelThinking, Thinking, modes


class InputError(ValueError):
    """Bad input. Its text is one sentence: where, what was given, what is allowed."""


@dataclass(frozen=True)
class Expectations:
    """One workload's promises. A feature that is not promised is not asked for; nothing is left to a default.

    `kv_cache_tokens_least` is the prediction less its margin. `acceptance_floor` is the least share of draft tokens that must
    be accepted, `accuracy_threshold` the least share of right sums. `long_needle_tokens` asks for one more, longer needle;
    `recheck_seconds` is the time from one re-check to the next while the pod serves. Times are seconds.
    """

    served_model_name: str
    image: str
    model_revision: str
    engine_version: str
    max_model_len: int
    kv_cache_tokens_predicted: int
    kv_cache_tokens_least: int
    tool_calling: bool
    reasoning: bool
    thinking: ModelThinking
    reasoning_effort: str | None
    speculative_tokens: int
    acceptance_floor: float
    accuracy_threshold: float
    long_needle_tokens: int | None
    recheck_seconds: int | None
    request_seconds: float
    deadline_seconds: float

    @property
    def ways(self) -> tuple[Thinking, ...]:
        """How the model is asked, the way with the shortest answers first."""
        return modes(self.thinking, reasoning=self.reasoning)


def load(path: Path) -> Expectations:
    """Read an expect file; raise `InputError` with one sentence if it cannot be used."""
    try:
        given: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name the expect file of a workload") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(given, dict):
        raise InputError(f"{path}: {_shown(given)} is not allowed; expected an object with {', '.join(_ALLOWED)}")
    return _expectations(cast("dict[str, object]", given), str(path))


def _expectations(given: Mapping[str, object], where: str) -> Expectations:
    for key in given.keys() - _ALLOWED.keys():
        raise InputError(f"{where}: {key}: unknown key; allowed are {', '.join(_ALLOWED)}")
    for key, (allowed, expected) in _ALLOWED.items():
        if key not in given:
            raise InputError(f"{where}: {key}: missing; expected {expected}")
        if not allowed(given[key]):
            raise InputError(f"{where}: {key}: {_shown(given[key])} is not allowed; expected {expected}")
    return Expectations(**{_snake(key): value for key, value in given.items()})  # pyright: ignore[reportArgumentType]


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _snake(camel: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel)


_Allowed = tuple[Callable[[object], bool], str]


def _number(least: float, most: float = float("inf")) -> Callable[[object], bool]:
    def allowed(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most

    return allowed


def _whole(least: int) -> Callable[[object], bool]:
    def allowed(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return allowed


def _or_null(allowed: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or allowed(value)


def _one_of(*names: str) -> _Allowed:
    return (lambda value: value in names, ", ".join(names))


_TEXT: _Allowed = (lambda value: isinstance(value, str) and bool(value), "text")
_SWITCH: _Allowed = (lambda value: isinstance(value, bool), "true or false")
_TOKENS: _Allowed = (_whole(1), "a whole number of tokens")
_SHARE: _Allowed = (_number(0, 1), "a fraction from 0 to 1")
_SECONDS: _Allowed = (_number(0.1), "a number of seconds, at least 0.1")

_ALLOWED: Mapping[str, _Allowed] = {
    "servedModelName": _TEXT,
    "image": _TEXT,
    "modelRevision": _TEXT,
    "engineVersion": _TEXT,
    "maxModelLen": _TOKENS,
    "kvCacheTokensPredicted": _TOKENS,
    "kvCacheTokensLeast": _TOKENS,
    "toolCalling": _SWITCH,
    "reasoning": _SWITCH,
    "thinking": _one_of("switchable", "always", "none"),
    "reasoningEffort": (_or_null(_TEXT[0]), "text such as high, or null to send none"),
    "speculativeTokens": (_whole(0), "a whole number of tokens, 0 without speculation"),
    "acceptanceFloor": _SHARE,
    "accuracyThreshold": _SHARE,
    "longNeedleTokens": (_or_null(_TOKENS[0]), "a whole number of tokens, or null for no longer needle"),
    "recheckSeconds": (_or_null(_whole(1)), "a whole number of seconds, or null for no re-check"),
    "requestSeconds": _SECONDS,
    "deadlineSeconds": _SECONDS,
}
assert {_snake(key) for key in _ALLOWED} == {field.name for field in fields(Expectations)}
