"""IAM roles for services of AWS, with the managed policies that they need."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

_MANAGED_POLICY = "arn:aws:iam::aws:policy/"


@dataclass(frozen=True)
class ServiceRole:
    """A role and what must exist before the role can do its work, and must still exist while it does."""

    role: aws.iam.Role
    attachments: tuple[aws.iam.RolePolicyAttachment, ...]


def service_role(
    name: str,
    service: str,
    policies: Iterable[str],
    parent: pulumi.Resource,
    actions: tuple[str, ...] = ("sts:AssumeRole",),
) -> ServiceRole:
    """Make a role that one service may assume. `policies` are names of AWS's managed policies."""
    opts = pulumi.ResourceOptions(parent=parent)
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": list(actions)}],
    }
    role = aws.iam.Role(name, assume_role_policy=json.dumps(trust), opts=opts)
    attachments = [
        aws.iam.RolePolicyAttachment(
            f"{name}-{policy}", role=role.name, policy_arn=f"{_MANAGED_POLICY}{policy}", opts=opts
        )
        for policy in policies
    ]
    return ServiceRole(role, tuple(attachments))
