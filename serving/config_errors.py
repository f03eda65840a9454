"""pydantic's errors as sentences: path, value, what is allowed, nearest spelling."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from serving.spelling import did_you_mean, listed


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one sentence for each problem of a validation error of `model`, without repeating a path."""
    found: dict[str, str] = {}
    for details in error.errors():
        path, field, owner, is_key = _resolve(details["loc"], model)
        found.setdefault(path, f"{path}: {_reason(details, field, owner, is_key)}")
    return list(found.values())


def _reason(details: ErrorDetails, field: FieldInfo | None, owner: type[BaseModel] | None, is_key: bool) -> str:
    given = details.get("input")
    expected = (field.description if field else None) or details["msg"]
    context = details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            keys = _aliases(owner)
            name = str(details["loc"][-1])
            return f"unknown key; allowed here are {listed(keys)}{did_you_mean(name, keys)}"
        case "missing":
            return f"missing; expected {expected}"
        case "union_tag_not_found":
            return f"kind is missing; expected {expected}"
        case "union_tag_invalid":
            tags = [tag.strip().strip("'") for tag in str(context["expected_tags"]).split(",")]
            tag = str(context["tag"])
            return f"unknown kind {tag!r}; allowed are {listed(tags)}{did_you_mean(tag, tags)}"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            allowed = [value.strip().strip("'") for value in str(context["expected"]).replace(" or ", ", ").split(",")]
            return f"{given!r} is not allowed; expected {expected}{did_you_mean(str(given), allowed)}"
        case _ if is_key:
            return (
                f"{given!r} cannot be a name here; expected lower-case letters, digits and hyphens, "
                "beginning with a letter, at most 30 characters"
            )
        case _:
            return f"{_shown(given)} is not allowed; expected {expected}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _aliases(owner: type[BaseModel] | None) -> list[str]:
    if owner is None:
        return []
    return [field.alias or name for name, field in owner.model_fields.items()]


def _resolve(
    loc: tuple[int | str, ...], model: type[BaseModel]
) -> tuple[str, FieldInfo | None, type[BaseModel] | None, bool]:
    """Walk an error's location through the models: path as a user writes it, last field, its model, is it a map key."""
    path = ""
    kind: Any = model
    field: FieldInfo | None = None
    owner: type[BaseModel] | None = None
    is_key = False
    for part in loc:
        if part == "[key]":
            is_key = True
        elif isinstance(part, int):
            path += f"[{part}]"
            kind = _item(kind)
        elif (chosen := _tagged(kind, part)) is not None:
            kind = chosen
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            path += f".{part}" if path else str(part)
            owner = kind
            field = next((f for n, f in kind.model_fields.items() if part in (f.alias, n)), None)
            kind = _bare(field.annotation) if field else None
        else:
            path += f".{part}" if path else str(part)
            kind = _item(kind)
    shown = "aws:region" if path == "region" else path
    return shown, field, owner, is_key


def _bare(annotation: Any) -> Any:
    """Strip Annotated and None from a type."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _item(kind: Any) -> Any:
    """Return the type of a map's values or a sequence's items."""
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return _bare(arguments[1])
    return _bare(arguments[0]) if arguments else None


def _tagged(kind: Any, tag: int | str) -> type[BaseModel] | None:
    """Return the member of a discriminated union that a tag names, or None if this is no such union."""
    if get_origin(kind) not in (Union, UnionType):
        return None
    for member in get_args(kind):
        bare = _bare(member)
        if isinstance(bare, type) and issubclass(bare, BaseModel) and "kind" in bare.model_fields:
            literal = bare.model_fields["kind"].annotation
            if get_origin(literal) is Literal and tag in get_args(literal):
                return bare
    return None
