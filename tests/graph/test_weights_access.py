"""Pods read their mirror: a role for one folder, given to one service account before the first pod is made."""

from __future__ import annotations

import json
from functools import cache

from serving.stack_file import read
from tests.graph.test_program import ROOT, Updated, update

MIRROR = "s3://my-models/glm"
COMPONENT = "glm-on-gpus:weights_access:WeightsAccess"


@cache
def with_mirror() -> Updated:
    return update(read(ROOT / "Pulumi.dev.yaml", [f"workloads.glm.weightsMirror={MIRROR}"]), "dev")


def test_what_is_made() -> None:
    assert [urn for urn in with_mirror().urns if COMPONENT in urn] == [
        f"{COMPONENT}$aws:eks/podIdentityAssociation:PodIdentityAssociation::glm-weights-access-association",
        f"{COMPONENT}$aws:iam/role:Role::glm-weights-access-role",
        f"{COMPONENT}$aws:iam/rolePolicy:RolePolicy::glm-weights-access-policy",
        f"pulumi:pulumi:Stack${COMPONENT}::glm-weights-access",
    ]


def test_the_role_reads_one_folder_and_nothing_else() -> None:
    made = {resource.name: resource.inputs for resource in with_mirror().resources}
    assert json.loads(made["glm-weights-access-policy"]["policy"]) == {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::my-models/glm/*"}],
    }
    association = made["glm-weights-access-association"]
    assert (association["namespace"], association["serviceAccount"]) == ("glm", "glm")
    assert json.loads(made["glm-weights-access-role"]["assumeRolePolicy"])["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    ]


def test_no_pod_is_made_before_it() -> None:
    assert {"glm-weights-access-association", "glm-weights-access-policy"} <= with_mirror().all_needs("glm-deployment")


def test_the_pod_is_told_where_the_weights_are() -> None:
    made = {resource.name: resource.inputs for resource in with_mirror().resources}
    fetch = made["glm-deployment"]["spec"]["template"]["spec"]["initContainers"][1]
    assert {"name": "WEIGHTS_FROM", "value": MIRROR} in fetch["env"]
