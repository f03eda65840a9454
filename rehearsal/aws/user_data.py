"""User data of nodes: base64, MIME multipart, and a NodeConfig that nodeadm can read.

A NodeConfig with a slip in it does not fail loudly on AWS: the node comes up without its local disks, and the model
cache lands on the root volume. Hence every key is checked (nodeadm doc/api.md).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from email import message_from_bytes
from email.message import Message
from typing import Final, NoReturn, cast

import yaml

from rehearsal.aws.draft import Draft, as_list, as_table, joined, value_at
from serving.spelling import did_you_mean, listed

_FIELD = "userData"
_MODEL = "EC2 RequestLaunchTemplateData"
_NODEADM = "awslabs/amazon-eks-ami, nodeadm/doc/api.md"
# "User data is limited to 16 KB" before base64 (RequestLaunchTemplateData).
_LARGEST_BYTES = 16 * 1024
_NODE_CONFIG_TYPE = "application/node.eks.aws"
_API_VERSION = "node.eks.aws/v1alpha1"

# path in NodeConfig -> keys it may have
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("apiVersion", "kind", "metadata", "spec"),
    "spec": ("cluster", "containerd", "featureGates", "instance", "kubelet"),
    "spec.instance": ("localStorage",),
    "spec.instance.localStorage": ("strategy", "mountPath", "disabledMounts"),
    "spec.kubelet": ("config", "flags", "maxPodsExpression"),
    "spec.containerd": ("config", "baseRuntimeSpec"),
    "spec.featureGates": ("InstanceIdNodeName", "FastImagePull"),
}
_STRATEGIES: Final = ("RAID0", "RAID10", "Mount")
_MOUNTS: Final = ("Containerd", "PodLogs", "SOCI")


def check_user_data(template: Draft) -> None:
    """Refuse user data that EC2 refuses, and a NodeConfig in it that nodeadm would not follow."""
    decoded = _decoded(template)
    if decoded is None:
        return
    if len(decoded) > _LARGEST_BYTES:
        reason = f"holds {len(decoded):,} bytes, allowed are {_LARGEST_BYTES:,} before base64"
        raise template.refusal(_FIELD, reason, _MODEL)
    for part in message_from_bytes(decoded).walk():
        if part.get_content_type() == _NODE_CONFIG_TYPE:
            _check_node_config(template, _text_of(part))


def check_is_mime(template: Draft) -> None:
    """Refuse user data that is no MIME multipart: what EKS asks of a node group's template with an EKS image."""
    decoded = _decoded(template)
    if decoded is None:
        return
    message = message_from_bytes(decoded)
    if not message.is_multipart():
        reason = "Ec2LaunchTemplateInvalidConfiguration: User data was not in the MIME multipart format"
        raise template.refusal_of(
            _FIELD, _readable(decoded), reason, "EKS error text, terraform-aws-modules/terraform-aws-eks#1875"
        )
    if any(part.defects for part in message.walk()):
        defect = type(next(defect for part in message.walk() for defect in part.defects)).__name__
        raise template.refusal_of(_FIELD, _readable(decoded), f"MIME multipart with a defect: {defect}", "RFC 2046")


def _decoded(template: Draft) -> bytes | None:
    text = template.text(_FIELD)
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        reason = "InvalidUserData.Malformed: Invalid BASE64 encoding of user data"
        raise template.refusal(_FIELD, reason, _MODEL) from None


def _text_of(part: Message) -> str:
    return _readable(cast("bytes", part.get_payload(decode=True)))


def _readable(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _check_node_config(template: Draft, text: str) -> None:
    try:
        config: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = f"is not YAML: {' '.join(str(error).split())}"
        raise template.refusal_of(f"{_FIELD}.NodeConfig", text, reason, _NODEADM) from None
    for key, expected in (("apiVersion", _API_VERSION), ("kind", "NodeConfig")):
        if value_at(config, key) != expected:
            _refuse(template, key, value_at(config, key), f"must be {expected}")
    for path, keys in _KEYS.items():
        _check_keys(template, config, path, keys)
    _check_local_storage(template, value_at(config, "spec.instance.localStorage"))


def _check_keys(template: Draft, config: object, path: str, keys: tuple[str, ...]) -> None:
    table = value_at(config, path)
    if table is None:
        return
    if not isinstance(table, Mapping):
        _refuse(template, path, table, "must be a mapping")
    for key in as_table(cast("object", table)):
        if key not in keys:
            at = f"{path}.{key}" if path else key
            _refuse(
                template,
                at,
                value_at(config, at),
                f"no such field{did_you_mean(key, keys)}; allowed are {listed(keys)}",
            )


def _check_local_storage(template: Draft, storage: object) -> None:
    if storage is None:
        return
    path = "spec.instance.localStorage"
    strategy = value_at(storage, "strategy")
    if strategy not in _STRATEGIES:
        guess = did_you_mean(strategy, _STRATEGIES) if isinstance(strategy, str) else ""
        _refuse(template, f"{path}.strategy", strategy, f"must be {listed(_STRATEGIES)}{guess}")
    for mount in as_list(value_at(storage, "disabledMounts")):
        if mount not in _MOUNTS:
            _refuse(template, f"{path}.disabledMounts", mount, f"must be {listed(_MOUNTS)}")


def _refuse(template: Draft, path: str, value: object, reason: str) -> NoReturn:
    raise template.refusal_of(joined(f"{_FIELD}.NodeConfig", path), value, reason, _NODEADM)
