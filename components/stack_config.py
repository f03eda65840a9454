"""From Pulumi's configuration to a plan that the rules accept, before any resource is registered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env, is_config_secret

from serving.config import NO_SECRETS, PROJECT, ConfigError, parse
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
    for key in raw:
        if key.startswith(f"{PROJECT}:") and (is_config_secret(key) or key in get_config_secret_keys_env()):
            raise pulumi.RunError(f"Pulumi.{pulumi.get_stack()}.yaml: {key} holds a secret; {NO_SECRETS}")
    return {key: _value(value) for key, value in raw.items()}


def _value(text: Any) -> Any:
    """Decode a value, also under a misspelt namespace; Pulumi hands all but plain text over as JSON."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
