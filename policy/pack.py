"""One resource policy for each rule of the table, and one for what cannot be read.

Resource policies run before a resource's step, so that nothing is made that a rule refuses. Levels can be set through Pulumi's
own configuration (`--policy-pack-config`), but not those of `LOCKED`; parameters of rules only stricter than the table's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

from policy.analyzer import HOLDS_SECRETS, MANIFEST
from serving import component, manifest
from serving.manifest import Reading
from serving.rules import RULES, Rule, apply

NAME = "glm-on-gpus"
READABLE = "readable"
LOCKED = frozenset({READABLE, *(rule.id for rule in RULES if rule.locked)})
"""Policies that no configuration switches off. Who leaves the pack out is met by the program's own check and by the cluster's
admission policies."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    READABLE: (),
    **{rule.id: tuple(row.name for row in rule.parameters) for rule in RULES},
}
"""The names that a configuration may set beside a level, by policy."""

_KUBERNETES = "kubernetes:"
_NOT_TOLD = (
    "a container does not pass; why is not told, because the object holds a secret value "
    "(a variable from a Kubernetes Secret, with valueFrom, holds none)"
)
_WRITE_IT_OUT = "write the command out: `vllm serve MODEL` with its flags, variables as literal values"


def policies() -> list[ResourceValidationPolicy]:
    """Return the pack's policies, the one for unreadable containers first."""
    readable = ResourceValidationPolicy(
        name=READABLE,
        description="What a container with GPUs runs can be read from its manifest",
        validate=_validation(lambda reading, _: _unreadable(reading), _WRITE_IT_OUT),
        enforcement_level=EnforcementLevel.MANDATORY,
        severity=Severity.CRITICAL,
        remediation_steps=_WRITE_IT_OUT,
    )
    return [readable, *map(_policy, RULES)]


def _policy(rule: Rule) -> ResourceValidationPolicy:
    mandatory = rule.level == "mandatory"
    return ResourceValidationPolicy(
        name=rule.id,
        description=rule.title,
        validate=_validation(lambda reading, given: _refusal(rule, reading, given), rule.remedy),
        enforcement_level=EnforcementLevel.MANDATORY if mandatory else EnforcementLevel.ADVISORY,
        severity=Severity.CRITICAL if rule.locked else Severity.HIGH if mandatory else Severity.LOW,
        remediation_steps=rule.remedy,
        config_schema=_schema(rule),
    )


def _schema(rule: Rule) -> PolicyConfigSchema | None:
    """Return what Pulumi checks a configuration against, and fills in where it says nothing."""
    rows = {row.name: {"description": row.meaning, **row.schema} for row in rule.parameters}
    return PolicyConfigSchema(rows) if rows else None


def _validation(
    judge: Callable[[Reading, Mapping[str, object]], str | None], remedy: str
) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report_violation: ReportViolation) -> None:
        given = _given(args)
        for reading in _readings(args.resource_type, args.props[MANIFEST]):
            why = judge(reading, given)
            if why is None:
                continue
            told = _NOT_TOLD if args.props[HOLDS_SECRETS] else f"{reading.facts.workload}: {why}"
            report_violation(f"{told}. To do: {remedy}")

    return validate


def _given(args: ResourceValidationArgs) -> dict[str, object]:
    """Return what is configured for a policy; its whole numbers have come as floats, as all of protobuf's `Struct` do."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in args.get_config().items()
    }


@lru_cache(maxsize=16)
def _readings(resource_type: str, properties: str) -> list[Reading]:
    """Read a resource once for all policies; what is neither the component nor an object of Kubernetes has no readings."""
    if resource_type == component.TYPE:
        return [component.read(json.loads(properties))]
    return manifest.read(json.loads(properties)) if resource_type.startswith(_KUBERNETES) else []


def _unreadable(reading: Reading) -> str | None:
    return reading.unreadable and f"cannot be judged: {reading.unreadable}"


def _refusal(rule: Rule, reading: Reading, given: Mapping[str, object]) -> str | None:
    """Return why a rule is not passed; what depends on a command that is unreadable is told once, by its own policy."""
    outcome = apply(rule, reading.facts, given).outcome
    return None if outcome.passed or outcome.why == _unreadable(reading) else outcome.why
