"""What lets a workload's pods read their weights from a mirror in S3."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.iam import service_role
from serving.plan import WorkloadPlan


@dataclass(frozen=True)
class WeightsAccessArgs:
    """Whose pods read which mirror, in which EKS cluster."""

    workload: WorkloadPlan
    mirror: str
    cluster_name: pulumi.Input[str]


class WeightsAccess(pulumi.ComponentResource):
    """A role that reads one folder of one bucket, given to one service account through EKS Pod Identity.

    Credentials are put into a pod when it is made: the workload waits for this component.
    """

    def __init__(self, name: str, args: WeightsAccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("glm-on-gpus:weights_access:WeightsAccess", name, {"mirror": args.mirror}, opts)
        actions = ("sts:AssumeRole", "sts:TagSession")
        role = service_role(f"{name}-role", "pods.eks.amazonaws.com", (), self, actions).role
        child = pulumi.ResourceOptions(parent=self)
        policy = aws.iam.RolePolicy(
            f"{name}-policy", role=role.name, policy=json.dumps(_read_only(args.mirror)), opts=child
        )
        aws.eks.PodIdentityAssociation(
            f"{name}-association",
            cluster_name=args.cluster_name,
            namespace=args.workload.namespace,
            service_account=args.workload.name,
            role_arn=role.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        self.register_outputs({})


def _read_only(mirror: str) -> dict[str, object]:
    """Reading objects is enough: the mirror's manifest says which there are."""
    folder = mirror.removeprefix("s3://").rstrip("/")
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{folder}/*"}
    return {"Version": "2012-10-17", "Statement": [statement]}
