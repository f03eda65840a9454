"""JSON that travels as text inside a request: policies, add-on configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, Literal, cast

from rehearsal.aws.draft import UNKNOWN, Draft, as_table, contains_unknown
from rehearsal.aws.world import Record

PolicyPlace = Literal["trust", "identity", "resource"]

_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_POLICY_SOURCE = "IAM error MalformedPolicyDocument; IAM user guide, policy grammar"

# What a statement must say, and what it must not, by where its policy sits.
_MUST_SAY: Final[Mapping[PolicyPlace, tuple[tuple[str, ...], ...]]] = {
    "trust": (("Action", "NotAction"), ("Principal", "NotPrincipal")),
    "identity": (("Action", "NotAction"), ("Resource", "NotResource")),
    "resource": (("Action", "NotAction"), ("Principal", "NotPrincipal"), ("Resource", "NotResource")),
}
_MUST_NOT_SAY: Final[Mapping[PolicyPlace, tuple[str, ...]]] = {
    "trust": ("Resource", "NotResource"),
    "identity": ("Principal", "NotPrincipal"),
    "resource": (),
}


def check_json(draft: Draft, field: str, source: str) -> Mapping[str, object]:
    """Return the object that a text property holds; refuse text that is no JSON object."""
    text = draft.text(field)
    if text is None:
        return {}
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise draft.refusal(field, reason, source) from None
    if not isinstance(value, dict):
        raise draft.refusal(field, "must be a JSON object", source)
    return cast("Mapping[str, object]", value)


def check_policy(draft: Draft, field: str, place: PolicyPlace) -> None:
    """Refuse a policy that IAM cannot read: it is JSON with Version and Statement, each statement complete for its place."""
    if draft.unknown(field) or draft.absent(field):
        return
    policy = draft.table(field) or check_json(draft, field, _POLICY_SOURCE)
    if policy.get("Version") not in _VERSIONS:
        raise draft.refusal(field, f"Version must be {_VERSIONS[0]} (or {_VERSIONS[1]})", _POLICY_SOURCE)
    statements = statements_of(policy)
    if not statements:
        raise draft.refusal(field, "has no Statement", _POLICY_SOURCE)
    for index, statement in enumerate(statements):
        problem = _problem(statement, place)
        if problem is not None:
            raise draft.refusal(field, f"Statement[{index}] {problem}", _POLICY_SOURCE)


def _problem(statement: Mapping[str, object], place: PolicyPlace) -> str | None:
    if statement.get("Effect") not in {"Allow", "Deny"}:
        return f"has Effect {statement.get('Effect')!r}, allowed are Allow and Deny"
    for alternatives in _MUST_SAY[place]:
        if not any(name in statement for name in alternatives):
            return f"lacks {alternatives[0]}"
    unwanted = next((name for name in _MUST_NOT_SAY[place] if name in statement), None)
    return f"has {unwanted}, which a {place} policy must not have" if unwanted else None


def statements_of(policy: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return a policy's statements; IAM takes a single one without the list, too."""
    return [as_table(item) for item in _listed(policy.get("Statement"))]


def as_policy_text(value: object) -> object:
    """Return a policy as the JSON text that the API takes; the provider accepts it as an object, too."""
    if contains_unknown(value):
        return UNKNOWN
    return json.dumps(value) if isinstance(value, Mapping) else value


def actions_allowed_to(role: Record, service: str) -> frozenset[str]:
    """Return what a role's trust policy lets a service principal do, for example sts:AssumeRole."""
    value = role.inputs.get("assumeRolePolicy")
    policy = as_table(json.loads(value)) if isinstance(value, str) else as_table(value)
    allowed: set[str] = set()
    for statement in statements_of(policy):
        principal = as_table(statement.get("Principal"))
        if statement.get("Effect") == "Allow" and service in _listed(principal.get("Service")):
            allowed.update(action for action in _listed(statement.get("Action")) if isinstance(action, str))
    return frozenset(allowed)


def check_trust(draft: Draft, field: str, role: Record, service: str, actions: Iterable[str], *, source: str) -> None:
    """Refuse a role that a service cannot assume with all the actions it needs."""
    allowed = actions_allowed_to(role, service)
    missing = [action for action in actions if action not in allowed and "sts:*" not in allowed]
    if missing:
        reason = f"the trust policy of {role.resource} does not allow {' and '.join(missing)} to {service}"
        raise draft.refusal(field, reason, source)


def _listed(value: object) -> list[object]:
    if value is None:
        return []
    return cast("list[object]", value) if isinstance(value, list) else [value]
