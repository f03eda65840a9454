"""Which resources change: two renderings compared, and a preview's event log read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.review.changes import Change, changes, flat
from serving.review.resources import (
    PolicyMessage,
    ResourceChange,
    ResourceChanges,
    of_preview,
    of_renderings,
    rendering,
)
from serving.spelling import InputError

# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "leaves"),
    [
        pytest.param({"a": {"b": 1, "c": None}}, {"a.b": 1, "a.c": None}, id="maps"),
        pytest.param({"a": [1, 2]}, {"a": [1, 2]}, id="plain-list-is-one-leaf"),
        pytest.param({"a": [], "b": {}}, {"a": [], "b": {}}, id="empty"),
        pytest.param(
            {"env": [{"name": "A", "value": "1"}, {"name": "B"}]},
            {"env[A].name": "A", "env[A].value": "1", "env[B].name": "B"},
            id="items-by-name",
        ),
        pytest.param(
            {"x": [{"name": "A"}, {"name": "A"}]}, {"x[0].name": "A", "x[1].name": "A"}, id="names-that-repeat"
        ),
        pytest.param({"x": [{"a": 1}, 2]}, {"x[0].a": 1, "x[1]": 2}, id="mixed-list"),
    ],
)
def test_leaves_by_path(value: object, leaves: dict[str, Any]) -> None:
    assert flat(value) == leaves


def test_changes_in_the_order_of_the_new_side() -> None:
    before = {"gone": 1, "same": 2, "other": 3}
    assert changes(before, {"new": 0, "other": 4, "same": 2}) == (
        Change("new", None, 0),
        Change("other", 3, 4),
        Change("gone", 1, None),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)
)
def test_two_values_differ_where_their_leaves_do(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert changes(flat(one), flat(one)) == ()
    # A key with nothing in it is no difference to a reviewer; every other difference shows.
    differ = {name: value for name, value in flat(one).items() if value is not None} != {
        name: value for name, value in flat(other).items() if value is not None
    }
    assert bool(changes(flat(one), flat(other))) is differ


# --- renderings ------------------------------------------------------------------------------------------------------


def resource(type_: str, name: str, **inputs: object) -> dict[str, Any]:
    return {"type": type_, "name": name, "inputs": inputs}


DEPLOYMENT = "kubernetes:apps/v1:Deployment"
GLM = {"name": "glm", "namespace": "glm"}


def compared(before: dict[str, Any], after: dict[str, Any]) -> tuple[ResourceChange, ...]:
    found = of_renderings(rendering(json.dumps(before), "before"), rendering(json.dumps(after), "after"))
    assert found.source == "rendering"
    return found.changes


def test_renderings_are_compared_by_urn() -> None:
    before = {
        "urn:kept": resource("aws:ec2/vpc:Vpc", "vpc", cidr="10.0.0.0/16"),
        "urn:changed": resource(DEPLOYMENT, "glm-deployment", metadata=GLM, spec={"replicas": 2, "paused": False}),
        "urn:gone": resource("aws:kms/key:Key", "key"),
    }
    after = {
        "urn:new": resource("aws:s3/bucket:Bucket", "bucket", acl="private"),
        "urn:kept": resource("aws:ec2/vpc:Vpc", "vpc", cidr="10.0.0.0/16"),
        "urn:changed": resource(DEPLOYMENT, "glm-deployment", metadata=GLM, spec={"replicas": 1, "paused": False}),
    }
    assert compared(before, after) == (
        ResourceChange("update", DEPLOYMENT, "glm-deployment", "glm", (Change("spec.replicas", 2, 1),)),
        ResourceChange("delete", "aws:kms/key:Key", "key", None, ()),
        ResourceChange("create", "aws:s3/bucket:Bucket", "bucket", None, ()),
    )
    assert compared(after, after) == ()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"urn:a": {"type": "t"}}', "apiVersion: v1"])
def test_something_else_than_a_rendering(text: str) -> None:
    with pytest.raises(InputError) as refused:
        rendering(text, "base/dev.json")
    assert str(refused.value) == (
        "base/dev.json: not a rendering; write it with python -m rehearsal resources --stack NAME"
    )


# --- event logs ------------------------------------------------------------------------------------------------------


def step(op: str, type_: str, name: str, *, custom: bool = True, **more: object) -> dict[str, Any]:
    urn = f"urn:pulumi:prod::glm-on-gpus::glm-on-gpus:x:X${type_}::{name}"
    state = {"urn": urn, "type": type_, "id": "", **({"custom": True} if custom else {})}
    sides = {"old": state, "new": None} if op == "delete" else {"old": None, "new": state}
    metadata = {"op": op, "urn": urn, "type": type_, "provider": "", **sides, **more}
    return {"sequence": 1, "timestamp": 1, "resourcePreEvent": {"metadata": metadata, "planning": True}}


def policy(name: str, level: str, message: str) -> dict[str, Any]:
    urn = f"urn:pulumi:prod::glm-on-gpus::{DEPLOYMENT}::glm-deployment"
    event = {"resourceUrn": urn, "message": message, "policyName": name, "enforcementLevel": level, "color": "raw"}
    return {"policyEvent": {**event, "policyPackName": "p", "policyPackVersion": "", "policyPackVersionTag": ""}}


def diagnostic(severity: str, message: str) -> dict[str, Any]:
    return {"diagnosticEvent": {"message": message, "severity": severity, "color": "raw", "prefix": "error: "}}


def summary(result: str) -> dict[str, Any]:
    return {"summaryEvent": {"maybeCorrupt": False, "resourceChanges": {"same": 1}, "result": result}}


def previewed(*events: dict[str, Any]) -> ResourceChanges:
    return of_preview("".join(f"{json.dumps(event)}\n" for event in events), "prod.jsonl")


def test_the_steps_of_a_preview() -> None:
    place = {"spec.template.spec.containers[0].command[9]": {"diffKind": "update", "inputDiff": False}}
    found = previewed(
        {"sequence": 0, "preludeEvent": {"config": {"aws:region": "us-east-1"}}},
        step("same", "pulumi:pulumi:Stack", "glm-on-gpus-prod", custom=False),
        step("update", "pulumi:pulumi:Stack", "glm-on-gpus-prod", custom=False),
        step("update", "glm-on-gpus:vllm_workload:VllmWorkload", "glm", custom=False),
        step("same", "aws:ec2/vpc:Vpc", "vpc"),
        step("update", DEPLOYMENT, "glm-deployment", detailedDiff=place, diffs=["spec"]),
        step("create-replacement", "aws:eks/nodeGroup:NodeGroup", "b200-nodes"),
        step("replace", "aws:eks/nodeGroup:NodeGroup", "b200-nodes", diffs=["releaseVersion"], keys=["releaseVersion"]),
        step("delete-replaced", "aws:eks/nodeGroup:NodeGroup", "b200-nodes"),
        step("create", "kubernetes:core/v1:Service", "glm-service", detailedDiff={"spec": {"diffKind": "add"}}),
        step("delete", "aws:kms/key:Key", "key", detailedDiff=None),
        step("read", "aws:ec2/vpc:Vpc", "other"),
        summary("succeeded"),
    )
    assert found == ResourceChanges(
        "preview",
        (
            ResourceChange(
                *("update", DEPLOYMENT, "glm-deployment", None),
                (Change("spec.template.spec.containers[0].command[9]", None, None),),
            ),
            ResourceChange(
                *("replace", "aws:eks/nodeGroup:NodeGroup", "b200-nodes", None), (Change("releaseVersion", None, None),)
            ),
            ResourceChange("create", "kubernetes:core/v1:Service", "glm-service", None, ()),
            ResourceChange("delete", "aws:kms/key:Key", "key", None, ()),
        ),
    )


def test_what_policies_and_the_engine_said() -> None:
    found = previewed(
        policy("image-digest", "mandatory", "<{%fg 1%}>image 'x' is not pinned<{%reset%}>\n"),
        policy("labels", "advisory", "no owner"),
        diagnostic("warning", "a deprecation"),
        diagnostic("error", "<{%reset%}>the cluster does not answer<{%reset%}>\n"),
        summary("failed"),
    )
    assert found.policies == (
        PolicyMessage("image-digest", "mandatory", "glm-deployment", "image 'x' is not pinned"),
        PolicyMessage("labels", "advisory", "glm-deployment", "no owner"),
    )
    assert found.errors == ("the cluster does not answer",)
    assert found.failed


@pytest.mark.parametrize(
    ("events", "failed"),
    [((summary("succeeded"),), False), ((summary("failed"),), True), ((summary("canceled"),), True), ((), True)],
)
def test_only_a_preview_that_succeeded_has_not_failed(events: tuple[dict[str, Any], ...], failed: bool) -> None:
    assert previewed(*events).failed is failed


@pytest.mark.parametrize("text", ["{", "[1]", '{"resourcePreEvent": {"metadata": {}}}'])
def test_something_else_than_an_event_log(text: str) -> None:
    with pytest.raises(InputError) as refused:
        of_preview(text, "prod.jsonl")
    assert str(refused.value) == "prod.jsonl: not an event log; write it with pulumi preview --event-log FILE"
