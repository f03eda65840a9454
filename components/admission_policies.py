"""Admission policies: the API server itself refuses what `kubectl` would put past the program and the policy pack."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.admissionregistration.v1 import ValidatingAdmissionPolicySpecArgsDict

from serving.admission import CONDITIONS, OPERATIONS, RESOURCES, Admission, AdmissionPolicy

_LABELS = {"app.kubernetes.io/managed-by": "pulumi"}


class AdmissionPolicies(pulumi.ComponentResource):
    """A ValidatingAdmissionPolicy with its binding for each rule; workloads depend on them and so are judged until they go."""

    def __init__(self, name: str, plan: Admission, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {"rules": [row.rule for row in plan.policies], plan.scope.operator: list(plan.scope.namespaces)}
        super().__init__("glm-on-gpus:admission_policies:AdmissionPolicies", name, props, opts)
        child = pulumi.ResourceOptions(parent=self)
        for row in plan.policies:
            policy = k8s.admissionregistration.v1.ValidatingAdmissionPolicy(
                f"{name}-{row.rule}",
                metadata={"name": f"{plan.prefix}-{row.rule}", "labels": _LABELS},
                spec=_spec(row),
                opts=child,
            )
            k8s.admissionregistration.v1.ValidatingAdmissionPolicyBinding(
                f"{name}-{row.rule}-binding",
                metadata={"name": f"{plan.prefix}-{row.rule}", "labels": _LABELS},
                spec={
                    "policy_name": policy.metadata.name,
                    "validation_actions": ["Deny"],
                    "match_resources": {
                        "namespace_selector": {
                            "match_expressions": [
                                {
                                    # The API server sets this label itself, and nobody can take it off.
                                    "key": "kubernetes.io/metadata.name",
                                    "operator": plan.scope.operator,
                                    "values": list(plan.scope.namespaces),
                                }
                            ]
                        }
                    },
                },
                opts=child,
            )
        self.register_outputs({})


def _spec(row: AdmissionPolicy) -> ValidatingAdmissionPolicySpecArgsDict:
    return {
        # What goes wrong in a policy, a cost limit or a field of an unexpected type, is a refusal.
        "failure_policy": "Fail",
        "match_constraints": {
            # Whatever version of an API a client speaks.
            "match_policy": "Equivalent",
            "resource_rules": [
                {
                    "api_groups": [rule.group],
                    "api_versions": [rule.version],
                    "operations": list(OPERATIONS),
                    "resources": list(rule.names),
                }
                for rule in RESOURCES
            ],
        },
        "match_conditions": [{"name": row.name, "expression": row.expression} for row in CONDITIONS],
        "variables": [{"name": row.name, "expression": row.expression} for row in row.variables],
        "validations": [
            {
                "expression": row.expression,
                "message": row.message,
                "message_expression": row.message_expression,
                "reason": "Forbidden",
            }
        ],
    }
