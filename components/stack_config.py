"""From Pulumi's configuration to a plan that the rules accept, before any resource is registered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env

from serving.config import ConfigError, parse
from serving.plan import Plan, build
from serving.report import refusal


def load_plan() -> Plan:
    """Return the plan of the stack that is being run; raise `pulumi.RunError` with one sentence for each problem."""
    stack = pulumi.get_stack()
    try:
        plan = build(parse(_settings(), f"Pulumi.{stack}.yaml"), stack)
    except ConfigError as error:
        raise pulumi.RunError(str(error)) from None
    if plan.violations:
        raise pulumi.RunError(refusal(plan))
    return plan


def _settings() -> dict[str, Any]:
    # `pulumi.Config` answers only for names one already knows, so a misspelt top-level key would go unseen. The runtime
    # holds every key: in this mapping where a test or the rehearsal sets it, in the environment under the CLI.
    raw: Mapping[str, Any] = {**get_config_env(), **CONFIG.get()}
    return {key: _value(value) for key, value in raw.items()}


def _value(text: Any) -> Any:
    """Decode a value, also under a misspelt namespace; Pulumi hands all but plain text over as JSON."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
