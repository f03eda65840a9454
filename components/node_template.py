"""What the launch templates of all nodes have in common, and the user data that AL2023 reads."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pulumi_aws as aws
import yaml

# AL2023's root device.
_ROOT_DEVICE = "/dev/xvda"

# The boundary is fixed: a random one would make a new version of the launch template, and so new nodes, at every update.
_BOUNDARY = "glm-on-gpus-node-config"

_NODE_CONFIG_TYPE = "application/node.eks.aws"


def metadata_options() -> aws.ec2.LaunchTemplateMetadataOptionsArgs:
    """Return metadata options under which no pod gets the node's credentials.

    One hop reaches the node itself and pods in its network namespace (VPC CNI, kube-proxy, monitoring agent), and no other
    pod. Pods that need AWS get a role of their own by Pod Identity.
    """
    return aws.ec2.LaunchTemplateMetadataOptionsArgs(
        http_endpoint="enabled",
        http_tokens="required",
        http_put_response_hop_limit=1,
    )


def encrypted_root(gib: int) -> aws.ec2.LaunchTemplateBlockDeviceMappingArgs:
    """Return an encrypted root volume. A launch template takes `encrypted` and `delete_on_termination` as strings."""
    return aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
        device_name=_ROOT_DEVICE,
        ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
            volume_size=gib,
            volume_type="gp3",
            encrypted="true",
            delete_on_termination="true",
        ),
    )


def tag_specifications(tags: Mapping[str, str]) -> list[aws.ec2.LaunchTemplateTagSpecificationArgs]:
    """Return the tags of what a launch template launches. Tags of a node group do not reach its instances."""
    return [
        aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type=kind, tags=tags)
        for kind in ("instance", "volume", "network-interface")
    ]


def node_config(spec: Mapping[str, Any]) -> str:
    """Return user data, in base64, that gives nodeadm a NodeConfig with this spec.

    It is MIME multipart because EKS adds its own NodeConfig as a further part; nodeadm merges them.
    """
    document = {"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig", "spec": dict(spec)}
    part = f"Content-Type: {_NODE_CONFIG_TYPE}\n\n{yaml.safe_dump(document, sort_keys=False)}"
    message = (
        f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{_BOUNDARY}"\n\n'
        f"--{_BOUNDARY}\n{part}\n--{_BOUNDARY}--\n"
    )
    return base64.b64encode(message.encode()).decode()


def pinned(template: aws.ec2.LaunchTemplate) -> aws.eks.NodeGroupLaunchTemplateArgs:
    """Return a launch template at the version that this update makes, so that a node group rolls when it changes."""
    return aws.eks.NodeGroupLaunchTemplateArgs(id=template.id, version=template.latest_version.apply(str))
