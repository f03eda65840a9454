"""The pack with one policy changed: the file that CHANGE names says which and how, and may say another thing at any time."""

# The SDK for policies is in the pack's environment only.
# pyright: basic, reportMissingImports=false
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from pulumi_policy import PolicyPack, ResourceValidationPolicy

from policy.analyzer import install
from policy.pack import LOCKED, NAME, PARAMETERS, policies

CHANGE = Path(os.environ["CHANGE"])


def changed(policy: ResourceValidationPolicy) -> ResourceValidationPolicy:
    def validate(args, report_violation) -> None:
        said = []
        policy.validate(args, said.append)
        match CHANGE.read_text().split():
            case [policy.name, "removed"]:
                said = []
            case [policy.name, "inverted"]:
                said = [] if said else ["inverted"]
        for message in said:
            report_violation(message)

    return ResourceValidationPolicy(policy.name, policy.description, validate, policy.enforcement_level)


install(LOCKED, PARAMETERS)
PolicyPack(NAME, [changed(policy) for policy in policies()])
