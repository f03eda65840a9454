"""pydantic's errors as sentences: path, value, what is allowed, nearest spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from serving.spelling import allowed, did_you_mean, listed, nearest


@dataclass(frozen=True)
class _Place:
    """Where an error is: the path as a user writes it, what the models expect there, and whether it is a map's key.

    `kind` is the type at the place, `owner` the model whose field it is.
    """

    path: str
    kind: Any
    expected: str | None = None
    owner: type[BaseModel] | None = None
    is_key: bool = False


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one sentence for each problem of a validation error of `model`, without repeating a path.

    A misspelt key is one problem: that the key it was meant for is missing is not reported beside it.
    """
    places = [(details, _resolve(details["loc"], model)) for details in error.errors()]
    meant = {_meant(details, place) for details, place in places}
    found: dict[str, str] = {}
    for details, place in places:
        if details["type"] != "missing" or place.path not in meant:
            found.setdefault(place.path, f"{place.path}: {_reason(details, place)}")
    # A list whose item is wrong is not also reported as too short.
    return [text for path, text in found.items() if not any(_is_inside(other, path) for other in found)]


def _is_inside(path: str, outer: str) -> bool:
    return path.startswith((f"{outer}.", f"{outer}["))


def _meant(details: ErrorDetails, place: _Place) -> str | None:
    """Return the path that a misspelt key was probably meant for."""
    if details["type"] != "extra_forbidden":
        return None
    *above, name = place.path.split(".")
    match = nearest(name, _aliases(place.owner))
    return ".".join([*above, match]) if match else None


def _reason(details: ErrorDetails, place: _Place) -> str:
    given = details.get("input")
    expected = place.expected or details["msg"]
    context = details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            keys = _aliases(place.owner)
            return f"unknown key; {allowed(keys)}{did_you_mean(str(details['loc'][-1]), keys)}"
        case "missing":
            return f"missing; expected {expected}"
        case "union_tag_not_found":
            return f"kind is missing; expected {expected}"
        case "union_tag_invalid":
            tags = _quoted(str(context["expected_tags"]))
            tag = str(context["tag"])
            return f"unknown kind {tag!r}; {allowed(tags)}{did_you_mean(tag, tags)}"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            spellings = _quoted(str(context["expected"]).replace(" or ", ", "))
            return f"{_shown(given)} is not allowed; expected {expected}{did_you_mean(str(given), spellings)}"
        case "model_type" | "model_attributes_type" if _is_model(place.kind):
            required = [f.alias or name for name, f in place.kind.model_fields.items() if f.is_required()]
            return f"{_shown(given)} is not allowed; expected a map with {listed(required, 'and')}"
        case _ if place.is_key:
            hint = _as_name(str(given), str(context.get("pattern", "")))
            return f"{_shown(given)} cannot be a name here; expected {expected}{hint}"
        case _:
            return f"{_shown(given)} is not allowed; expected {expected}"


def _shown(value: object) -> str:
    """Return a value as a stack file spells it, cut to one line."""
    if value is None:
        return "an empty value"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _quoted(text: str) -> list[str]:
    """Read pydantic's list of spellings: 'a', 'b'."""
    return [part.strip().strip("'") for part in text.split(",")]


def _as_name(given: str, pattern: str) -> str:
    """Return `; did you mean X?` if other letter case or separators make a name that the pattern allows."""
    spellings = (given.lower().replace("_", "-"), given.upper().replace("-", "_"))
    match = next((spelling for spelling in spellings if pattern and re.fullmatch(pattern, spelling)), None)
    return f"; did you mean {match}?" if match else ""


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _aliases(owner: type[BaseModel] | None) -> list[str]:
    if owner is None:
        return []
    return [field.alias or name for name, field in owner.model_fields.items()]


def _resolve(loc: tuple[int | str, ...], model: type[BaseModel]) -> _Place:
    """Walk an error's location through the models."""
    place = _Place("", model)
    above: Any = None
    for part in loc:
        if part == "[key]":
            key = get_args(above)[0]
            place = replace(place, is_key=True, expected=_described(key) or place.expected)
        elif (chosen := _tagged(place.kind, part)) is not None:
            place = replace(place, kind=chosen)
        else:
            above = place.kind
            place = _below(place, part)
    return replace(place, path="aws:region") if place.path == "region" else place


def _below(place: _Place, part: int | str) -> _Place:
    """Step into a model's field, a map's value or a sequence's item."""
    path = f"{place.path}.{part}" if place.path else str(part)
    if _is_model(place.kind):
        owner: type[BaseModel] = place.kind
        field = next((f for name, f in owner.model_fields.items() if part in (f.alias, name)), None)
        if field is None:
            return _Place(path, None, owner=owner)
        return _Place(path, _bare(field.annotation), field.description, owner)
    if isinstance(part, int) and get_origin(place.kind) is not dict:
        path = f"{place.path}[{part}]"
    item = _item(place.kind)
    return _Place(path, _bare(item), _described(item) or place.expected, place.owner)


def _described(annotation: Any) -> str | None:
    """Return the description that an annotation carries, or None."""
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((row.description for row in metadata if isinstance(row, FieldInfo) and row.description), None)


def _bare(annotation: Any) -> Any:
    """Strip Annotated and None from a type."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _item(kind: Any) -> Any:
    """Return the annotation of a map's values or a sequence's items."""
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[1]
    return arguments[0] if arguments else None


def _tagged(kind: Any, tag: int | str) -> type[BaseModel] | None:
    """Return the member of a discriminated union that a tag names, or None if this is no such union."""
    if get_origin(kind) not in (Union, UnionType):
        return None
    for member in get_args(kind):
        bare = _bare(member)
        if _is_model(bare) and "kind" in bare.model_fields:
            literal = bare.model_fields["kind"].annotation
            if get_origin(literal) is Literal and tag in get_args(literal):
                return bare
    return None
