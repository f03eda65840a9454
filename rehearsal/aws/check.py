"""Holds a request against botocore's model of the operation: names, types, what is required, enums, patterns, ranges.

botocore's own validator knows neither enums nor patterns nor upper bounds, because clients leave those to the
service. Here the service is the stand-in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from rehearsal.aws.botocore_models import Shape, second_opinion
from rehearsal.aws.draft import Draft, as_list, as_table, contains_unknown, joined
from rehearsal.aws.refusal import AwsRefusal
from rehearsal.aws.request import Request, walked
from serving.spelling import did_you_mean, listed

# Unicode category Z: what separates words, lines and paragraphs.
_SEPARATORS = " \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"

# Longer enums (1,437 instance types) are not listed in a refusal; the nearest spelling is.
_LONGEST_ENUM_LISTED = 25

_PYTHON_TYPES: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "string": ("a string", (str,)),
    "boolean": ("true or false", (bool,)),
    "integer": ("a whole number", (int,)),
    "long": ("a whole number", (int,)),
    "double": ("a number", (int, float)),
    "float": ("a number", (int, float)),
    "structure": ("an object", (dict,)),
    "list": ("a list", (list,)),
    "map": ("an object", (dict,)),
}


def check_request(draft: Draft, request: Request) -> None:
    """Refuse a request that the operation's model does not allow."""
    for path, value, shape in walked(request.params, request.shape):
        problem = _problem(value, shape)
        if problem is not None:
            raise _refusal(draft, request, path, value, problem)
        _check_members(draft, request, path, value, shape)
    if not contains_unknown(request.params):
        objection = second_opinion(request.params, request.shape)
        if objection is not None:
            reason = "botocore's own validator refuses the request" if draft.secrets else objection
            raise AwsRefusal(draft.resource, "inputs", "as a whole", reason, request.call.cited)


def _check_members(draft: Draft, request: Request, path: str, value: object, shape: Shape) -> None:
    if shape.type_name != "structure":
        return
    table = as_table(value)
    for name in shape.required_members:
        if name not in table:
            raise _refusal(draft, request, joined(path, name), None, "required")
    for name in table:
        if name not in shape.members:
            allowed = f"the API has no such member; it has {listed(shape.members)}"
            raise _refusal(draft, request, joined(path, name), table[name], allowed)


def _problem(value: object, shape: Shape) -> str | None:
    """Return what is wrong with one value, or None."""
    return (
        _wrong_type(value, shape)
        or _not_in_enum(value, shape)
        or _out_of_range(value, shape)
        or _no_match(value, shape)
    )


def _wrong_type(value: object, shape: Shape) -> str | None:
    if shape.type_name not in _PYTHON_TYPES:
        return None
    wanted, types = _PYTHON_TYPES[shape.type_name]
    # A bool is an int in Python, but not in an API.
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    return None if fits else f"must be {wanted}"


def _not_in_enum(value: object, shape: Shape) -> str | None:
    allowed: list[str] = list(getattr(shape, "enum", None) or [])
    if not isinstance(value, str) or not allowed or value in allowed:
        return None
    few = len(allowed) <= _LONGEST_ENUM_LISTED
    names = f"must be {listed(allowed)}" if few else f"is none of the {len(allowed):,} values of {shape.name}"
    return f"{names}{did_you_mean(value, allowed)}"


def _out_of_range(value: object, shape: Shape) -> str | None:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is None and most is None:
        return None
    size, unit = _size(value)
    if size is None or ((least is None or size >= least) and (most is None or size <= most)):
        return None
    bounds = f"at least {least}" if most is None else f"at most {most}" if least is None else f"from {least} to {most}"
    return f"must be {bounds}" if not unit else f"has {size} {unit}, allowed are {bounds}"


def _size(value: object) -> tuple[float | None, str]:
    """Return what a range is about: a number itself, or the length of anything else, and the unit of that."""
    if isinstance(value, str):
        return len(value), "characters"
    if isinstance(value, list):
        return len(as_list(value)), "members"
    if isinstance(value, Mapping):
        return len(as_table(value)), "members"
    return (value, "") if isinstance(value, int | float) and not isinstance(value, bool) else (None, "")


def _no_match(value: object, shape: Shape) -> str | None:
    pattern = shape.metadata.get("pattern")
    if not isinstance(value, str) or not isinstance(pattern, str) or compiled(pattern).fullmatch(value):
        return None
    return f"must match {pattern}"


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    r"""Return one of AWS's patterns for Python, which lacks Java's `\p{L}`.

    Patterns are held against the whole value: AWS writes some without `$` (EKS cluster names) and means it.
    """
    if r"\p{" not in pattern:
        return re.compile(pattern, re.ASCII)
    # Tags allow letters, separators and numbers of every script. Python's `\w` is letters, numbers and `_`.
    translated = pattern.replace(r"\p{L}\p{Z}\p{N}_", rf"\w{_SEPARATORS}")
    if r"\p{" in translated:
        raise ValueError(f"pattern {pattern} has a Unicode category that `compiled` cannot put into Python")
    return re.compile(translated)


def _refusal(draft: Draft, request: Request, path: str, value: object, problem: str) -> AwsRefusal:
    field = request.origin(path)
    # Not in the inputs under this path are parts of what the provider builds, and keys with dots in them.
    given = draft.at(field)
    return draft.refusal_of(field, value if given is None else given, problem, request.call.cited)
