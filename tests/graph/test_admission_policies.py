"""The component `AdmissionPolicies`: what it registers, where its policies hold, and that workloads stand between."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import pulumi
import pytest

from components.admission_policies import AdmissionPolicies
from serving.admission import Admission, admission
from serving.config import parse
from serving.plan import build
from tests.fixtures.stacks import plan as stack_plan
from tests.graph.harness import Recorded, Run, run
from tests.graph.stacks import plan

POLICY = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy"
BINDING = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicyBinding"
RULES = ["image-digest", "model-revision", "bf16-one-node", "dev-mode", "host-path"]


def on_existing_cluster(**cluster: Any) -> Admission | None:
    settings = {
        "glm-on-gpus:cluster": {"kind": "existing", "context": "shared", **cluster},
        "glm-on-gpus:nodePools": {"gpu": {"instanceType": "p5en.48xlarge", "nodes": 2}},
        "glm-on-gpus:workloads": {
            name: {"nodePool": "gpu", "precision": "fp8", "replicas": 1, "maxModelLen": 131072}
            for name in ("glm", "chat")
        },
    }
    return admission(build(parse(settings), "test"))


def registered(rules: Admission | None) -> Run:
    assert rules is not None
    return run(lambda: _made(rules))


def _made(rules: Admission) -> None:
    AdmissionPolicies("admission", rules, pulumi.ResourceOptions())


@cache
def own_cluster() -> Run:
    return registered(admission(plan()))


def spec(row: Recorded) -> Mapping[str, Any]:
    return row.inputs["spec"]


def test_it_registers_a_policy_and_a_binding_for_each_rule() -> None:
    assert own_cluster().urns == sorted(
        [
            "pulumi:pulumi:Stack$glm-on-gpus:admission_policies:AdmissionPolicies::admission",
            *(f"glm-on-gpus:admission_policies:AdmissionPolicies${POLICY}::admission-{rule}" for rule in RULES),
            *(
                f"glm-on-gpus:admission_policies:AdmissionPolicies${BINDING}::admission-{rule}-binding"
                for rule in RULES
            ),
        ]
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_binding_denies_what_its_policy_refuses(rule: str) -> None:
    result = own_cluster()
    policy = result.one(POLICY, f"admission-{rule}")
    binding = result.one(BINDING, f"admission-{rule}-binding")
    name = f"glm-on-gpus-test-{rule}"
    assert policy.inputs["metadata"] == {"name": name, "labels": {"app.kubernetes.io/managed-by": "pulumi"}}
    assert binding.inputs["metadata"] == policy.inputs["metadata"]
    everywhere_else = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}
    assert spec(binding) == {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchExpressions": [everywhere_else]}},
    }
    # So it is made after the policy, and deleted before it.
    assert result.dependencies(binding) == {policy.label}


@pytest.mark.parametrize("rule", RULES)
def test_a_policy_that_breaks_refuses(rule: str) -> None:
    policy = spec(own_cluster().one(POLICY, f"admission-{rule}"))
    assert policy["failurePolicy"] == "Fail"
    assert "paramKind" not in policy  # nothing that could be missing: the numbers are in the policy itself


@pytest.mark.parametrize("rule", RULES)
def test_a_policy_judges_every_way_to_make_a_pod_and_no_deletion(rule: str) -> None:
    matched = spec(own_cluster().one(POLICY, f"admission-{rule}"))["matchConstraints"]
    writes = {"operations": ["CREATE", "UPDATE"]}
    assert matched == {
        "matchPolicy": "Equivalent",
        "resourceRules": [
            {
                **writes,
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods", "pods/ephemeralcontainers", "replicationcontrollers"],
            },
            {
                **writes,
                "apiGroups": ["apps"],
                "apiVersions": ["v1"],
                "resources": ["deployments", "statefulsets", "daemonsets", "replicasets"],
            },
            {**writes, "apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs", "cronjobs"]},
            {
                **writes,
                "apiGroups": ["leaderworkerset.x-k8s.io"],
                "apiVersions": ["*"],
                "resources": ["leaderworkersets"],
            },
        ],
    }


@pytest.mark.parametrize("rule", RULES)
def test_variables_rest_on_earlier_ones(rule: str) -> None:
    policy = spec(own_cluster().one(POLICY, f"admission-{rule}"))
    known: set[str] = set()
    for variable in policy["variables"]:
        assert set(re.findall(r"\bvariables\.(\w+)", variable["expression"])) <= known
        known.add(variable["name"])
    (validation,) = policy["validations"]
    assert set(re.findall(r"\bvariables\.(\w+)", str(validation))) == {"refusals"} <= known


def test_they_are_the_same_for_every_stack() -> None:
    # A policy that changed with a workload would judge it by its old self for a moment.
    own = admission(plan())
    image = f"mirror.example/vllm/vllm-openai@sha256:{'0' * 64}"
    other = admission(stack_plan("prod", f"workloads.glm.image={image}"))
    assert own is not None
    assert other is not None
    assert other.policies == own.policies


def test_on_an_existing_cluster_they_hold_in_the_workloads_namespaces_only() -> None:
    result = registered(on_existing_cluster())
    for row in result.of(BINDING):
        (expression,) = spec(row)["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert expression == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["chat", "glm"]}


def test_an_existing_cluster_can_do_without_them() -> None:
    assert on_existing_cluster(installAdmissionPolicies=False) is None
