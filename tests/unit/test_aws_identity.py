"""Rules of IAM, KMS and CloudWatch Logs."""

from __future__ import annotations

import pytest
from aws_account import ALIAS, CLUSTER_LOGS, DELETE, KEY, NODE_ROLE, Case, in_words

from rehearsal.aws import AwsRefusal

_TRUST_WITH_RESOURCE = (
    '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"a:b","Principal":"*","Resource":"*"}}'
)

_REFUSED = (
    Case(
        "trust policy that is no JSON",
        NODE_ROLE,
        {"assumeRolePolicy": '{"Version": "2012-10-17",}'},
        (
            'aws:iam/role:Role::nodes: assumeRolePolicy: \'{"Version": "2012-10-17",}\': is not JSON: Expecting '
            "property name enclosed in double quotes at line 1, column 26 (IAM error MalformedPolicyDocument; IAM "
            "user guide, policy grammar)"
        ),
    ),
    Case(
        "trust policy without a version",
        NODE_ROLE,
        {"assumeRolePolicy": '{"Statement": []}'},
        (
            "aws:iam/role:Role::nodes: assumeRolePolicy: '{\"Statement\": []}': Version must be 2012-10-17 (or "
            "2008-10-17) (IAM error MalformedPolicyDocument; IAM user guide, policy grammar)"
        ),
    ),
    Case(
        "trust policy without a statement",
        NODE_ROLE,
        {"assumeRolePolicy": '{"Version": "2012-10-17"}'},
        (
            'aws:iam/role:Role::nodes: assumeRolePolicy: \'{"Version": "2012-10-17"}\': has no Statement (IAM '
            "error MalformedPolicyDocument; IAM user guide, policy grammar)"
        ),
    ),
    Case(
        "trust policy without a principal",
        NODE_ROLE,
        {"assumeRolePolicy": '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}'},
        (
            "aws:iam/role:Role::nodes: assumeRolePolicy: "
            '\'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}\': Statement[0] '
            "lacks Principal (IAM error MalformedPolicyDocument; IAM user guide, policy grammar)"
        ),
    ),
    Case(
        "trust policy with a resource",
        NODE_ROLE,
        {"assumeRolePolicy": _TRUST_WITH_RESOURCE},
        (
            "aws:iam/role:Role::nodes: assumeRolePolicy: "
            '\'{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"a:b","Principal":"*","Resource":"*"… '
            "(103 characters): Statement[0] has Resource, which a trust policy must not have (IAM error "
            "MalformedPolicyDocument; IAM user guide, policy grammar)"
        ),
    ),
    Case(
        "effect",
        ("RolePolicy", "weights"),
        {"policy": '{"Version":"2012-10-17","Statement":{"Effect":"allow"}}'},
        (
            "aws:iam/rolePolicy:RolePolicy::weights: policy: "
            '\'{"Version":"2012-10-17","Statement":{"Effect":"allow"}}\': Statement[0] has Effect \'allow\', '
            "allowed are Allow and Deny (IAM error MalformedPolicyDocument; IAM user guide, policy grammar)"
        ),
    ),
    Case(
        "policy without a resource",
        ("RolePolicy", "weights"),
        {"policy": '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject"}}'},
        (
            "aws:iam/rolePolicy:RolePolicy::weights: policy: "
            '\'{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject"}}\': Statement[0] '
            "lacks Resource (IAM error MalformedPolicyDocument; IAM user guide, policy grammar)"
        ),
    ),
    Case(
        "deprecated inline policy",
        NODE_ROLE,
        {"managedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"]},
        (
            'aws:iam/role:Role::nodes: managedPolicyArns: ["arn:aws:iam::aws:policy/AdministratorAccess"]: '
            "deprecated by the provider: use aws.iam.RolePolicyAttachment resources (pulumi_aws.iam.Role)"
        ),
    ),
    Case(
        "role name taken in another case",
        NODE_ROLE,
        {"name": "GLM"},
        (
            "aws:iam/role:Role::nodes: name: 'GLM': EntityAlreadyExists: it is the name of "
            "aws:iam/role:Role::cluster (IAM CreateRole, <botocore>)"
        ),
        others={("Role", "cluster"): {"name": "glm"}},
    ),
    Case(
        "attachment to no role",
        ("RolePolicyAttachment", "nodes-AmazonEKS_CNI_Policy"),
        {"role": "nobody"},
        (
            "aws:iam/rolePolicyAttachment:RolePolicyAttachment::nodes-AmazonEKS_CNI_Policy: role: 'nobody': "
            "NoSuchEntity: there is no such Role in the rehearsed account yet; take the value from the resource's "
            "output, so that it is created first (AWS error code, region us-east-2)"
        ),
    ),
    Case(
        "policy ARN",
        ("RolePolicyAttachment", "nodes-AmazonEKS_CNI_Policy"),
        {"policyArn": "arn:aws:eks::aws:policy/AmazonEKS_CNI_Policy"},
        (
            "aws:iam/rolePolicyAttachment:RolePolicyAttachment::nodes-AmazonEKS_CNI_Policy: policyArn: "
            "'arn:aws:eks::aws:policy/AmazonEKS_CNI_Policy': must be arn:aws:iam::aws:policy/<name> or "
            "arn:aws:iam::123456789012:policy/<name> (IAM AttachRolePolicy, <botocore>)"
        ),
    ),
    Case(
        "OIDC URL",
        ("OpenIdConnectProvider", "main"),
        {"url": "http://oidc.example.com"},
        (
            "aws:iam/openIdConnectProvider:OpenIdConnectProvider::main: url: 'http://oidc.example.com': must begin "
            "with https:// (IAM CreateOpenIDConnectProvider, <botocore>)"
        ),
    ),
    Case(
        "key deletion window",
        KEY,
        {"deletionWindowInDays": 3},
        (
            "aws:kms/key:Key::secrets: deletionWindowInDays: 3: must be from 7 to 30 days (KMS "
            "ScheduleKeyDeletion, <botocore>)"
        ),
    ),
    Case(
        "key rotation period without rotation",
        KEY,
        {"enableKeyRotation": False},
        (
            "aws:kms/key:Key::secrets: rotationPeriodInDays: 365: needs enableKeyRotation (KMS EnableKeyRotation, "
            "<botocore>)"
        ),
    ),
    Case(
        "key rotation of an asymmetric key",
        KEY,
        {"customerMasterKeySpec": "RSA_4096"},
        (
            "aws:kms/key:Key::secrets: enableKeyRotation: true: only for symmetric keys, not for RSA_4096 (KMS "
            "EnableKeyRotation, <botocore>)"
        ),
    ),
    Case(
        "key rotation period",
        KEY,
        {"rotationPeriodInDays": 30},
        (
            "aws:kms/key:Key::secrets: rotationPeriodInDays: 30: must be from 90 to 2560 (KMS EnableKeyRotation, "
            "<botocore>)"
        ),
    ),
    Case(
        "alias without alias/",
        ALIAS,
        {"name": "secrets"},
        (
            "aws:kms/alias:Alias::secrets: name: 'secrets': must begin with alias/, and not with alias/aws/, which "
            "AWS keeps for its own keys (KMS CreateAlias, <botocore>)"
        ),
    ),
    Case(
        "alias of AWS",
        ALIAS,
        {"name": "alias/aws/eks"},
        (
            "aws:kms/alias:Alias::secrets: name: 'alias/aws/eks': must begin with alias/, and not with alias/aws/, "
            "which AWS keeps for its own keys (KMS CreateAlias, <botocore>)"
        ),
    ),
    Case(
        "alias of no key",
        ALIAS,
        {"targetKeyId": "1234"},
        (
            "aws:kms/alias:Alias::secrets: targetKeyId: '1234': NotFoundException: there is no such Key in the "
            "rehearsed account yet; take the value from the resource's output, so that it is created first (AWS "
            "error code, region us-east-2)"
        ),
    ),
    Case(
        "log retention",
        CLUSTER_LOGS,
        {"retentionInDays": 100},
        (
            "aws:cloudwatch/logGroup:LogGroup::cluster: retentionInDays: 100: must be 0, 1, 3, 5, 7, 14, 30, 60, "
            "90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653 (CloudWatch Logs "
            "PutRetentionPolicy, <botocore>)"
        ),
    ),
    Case(
        "log group name of AWS",
        CLUSTER_LOGS,
        {"name": "aws/logs"},
        (
            "aws:cloudwatch/logGroup:LogGroup::cluster: name: 'aws/logs': must not begin with aws/ (CloudWatch "
            "Logs CreateLogGroup, <botocore>)"
        ),
    ),
    Case(
        "log group taken",
        CLUSTER_LOGS,
        {"name": "<LogGroup flow-logs>"},
        (
            "aws:cloudwatch/logGroup:LogGroup::cluster: name: '<LogGroup flow-logs>': "
            "ResourceAlreadyExistsException: it exists already (CloudWatch Logs CreateLogGroup, <botocore>)"
        ),
    ),
)

ACCEPTED = (
    Case(
        "trust policy as an object",
        NODE_ROLE,
        {
            "assumeRolePolicy": {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
                ],
            }
        },
    ),
    Case("role with a path", NODE_ROLE, {"path": "/glm/"}),
    Case("role with a prefix", NODE_ROLE, {"namePrefix": "glm-"}),
    Case("tags in any script", NODE_ROLE, {"tags": {"équipe": "モデル 1"}}),
    Case(
        "asymmetric key without rotation",
        KEY,
        {
            "customerMasterKeySpec": "RSA_4096",
            "keyUsage": "SIGN_VERIFY",
            "enableKeyRotation": False,
            "rotationPeriodInDays": DELETE,
        },
    ),
    Case(
        "key with a policy",
        KEY,
        {
            "policy": '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}}'
        },
    ),
    Case("alias by ARN", ALIAS, {"targetKeyId": "arn:aws:kms:us-east-2:123456789012:key/<Key secrets>"}),
    Case("log group for ever", ("LogGroup", "flow-logs"), {"retentionInDays": 0}),
)


@pytest.mark.parametrize("case", _REFUSED, ids=lambda case: case.name)
def test_refused(case: Case) -> None:
    with pytest.raises(AwsRefusal) as refusal:
        case.create()
    assert in_words(str(refusal.value)) == case.message


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_accepted(case: Case) -> None:
    stand_in, created = case.create()
    assert f"{created.token}::{created.name} ({created.id})" in stand_in.remaining()
