"""One resource policy for each rule of the table, and one for what cannot be read.

Resource policies run before a resource's step, so that nothing is made that a rule refuses. Levels can be set through Pulumi's
own configuration (`--policy-pack-config`), but not those of `LOCKED`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache

from pulumi_policy import EnforcementLevel, ReportViolation, ResourceValidationArgs, ResourceValidationPolicy, Severity

from policy.analyzer import HOLDS_SECRETS, MANIFEST
from serving import component, manifest
from serving.manifest import Reading
from serving.rules import RULES, Rule, apply

NAME = "glm-on-gpus"
READABLE = "readable"
LOCKED = frozenset({READABLE, *(rule.id for rule in RULES if rule.locked)})
"""Policies that no configuration switches off. Who leaves the pack out is met by the program's own check and by the cluster's
admission policies."""

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
        validate=_validation(_unreadable, _WRITE_IT_OUT),
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
        validate=_validation(lambda reading: _refusal(rule, reading), rule.remedy),
        enforcement_level=EnforcementLevel.MANDATORY if mandatory else EnforcementLevel.ADVISORY,
        severity=Severity.CRITICAL if rule.locked else Severity.HIGH if mandatory else Severity.LOW,
        remediation_steps=rule.remedy,
    )


def _validation(
    judge: Callable[[Reading], str | None], remedy: str
) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report_violation: ReportViolation) -> None:
        for reading in _readings(args.resource_type, args.props[MANIFEST]):
            why = judge(reading)
            if why is None:
                continue
            told = _NOT_TOLD if args.props[HOLDS_SECRETS] else f"{reading.facts.workload}: {why}"
            report_violation(f"{told}. To do: {remedy}")

    return validate


@lru_cache(maxsize=16)
def _readings(resource_type: str, properties: str) -> list[Reading]:
    """Read a resource once for all policies; what is neither the component nor an object of Kubernetes has no readings."""
    if resource_type == component.TYPE:
        return [component.read(json.loads(properties))]
    return manifest.read(json.loads(properties)) if resource_type.startswith(_KUBERNETES) else []


def _unreadable(reading: Reading) -> str | None:
    return reading.unreadable and f"cannot be judged: {reading.unreadable}"


def _refusal(rule: Rule, reading: Reading) -> str | None:
    """Return why a rule is not passed; what depends on a command that is unreadable is told once, by its own policy."""
    outcome = apply(rule, reading.facts).outcome
    return None if outcome.passed or outcome.why == _unreadable(reading) else outcome.why
