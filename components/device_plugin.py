"""The NVIDIA device plugin: without it a GPU node offers no `nvidia.com/gpu`."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as k8s

from serving import catalogue
from serving.plan import GPU_RESOURCE

NAME = "nvidia-device-plugin"

# Only GPU nodes: on others the plugin crash-loops (it fails without a GPU, and should).
_NODE_SELECTOR = {"nvidia.com/gpu.present": "true"}

# The kubelet's socket folder: the plugin registers there, which needs root on the host's folder but no capability.
_SOCKETS = "/var/lib/kubelet/device-plugins"


class DevicePlugin(pulumi.ComponentResource):
    """A DaemonSet on every GPU node, pinned by digest. Never together with the DRA driver: both would hand out the GPUs."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        image = catalogue.image("device-plugin")
        super().__init__("glm-on-gpus:device_plugin:DevicePlugin", name, {"image": image.reference}, opts)
        child = pulumi.ResourceOptions(parent=self)
        namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata={
                "name": NAME,
                # It mounts a host folder, which the baseline level forbids.
                "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
            },
            opts=child,
        )
        self.daemon_set = k8s.apps.v1.DaemonSet(
            f"{name}-daemonset",
            metadata={"name": NAME, "namespace": namespace.metadata.name, "labels": _labels(image.version or "")},
            spec={
                "selector": {"match_labels": {"app.kubernetes.io/name": NAME}},
                "update_strategy": {"type": "RollingUpdate"},
                "template": {"metadata": {"labels": _labels(image.version or "")}, "spec": _pod(image.reference)},
            },
            opts=child,
        )
        self.register_outputs({})


def _labels(version: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/version": version,
        "app.kubernetes.io/managed-by": "pulumi",
    }


def _pod(image: str) -> k8s.core.v1.PodSpecArgsDict:
    return {
        "priority_class_name": "system-node-critical",
        "automount_service_account_token": False,
        "node_selector": _NODE_SELECTOR,
        "tolerations": [
            {"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"},
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
        ],
        "containers": [
            {
                "name": NAME,
                "image": image,
                # The GPUs of a node with a broken driver must not look merely absent.
                "env": [{"name": "FAIL_ON_INIT_ERROR", "value": "true"}],
                "resources": {
                    "requests": {"cpu": "50m", "memory": "128Mi"},
                    "limits": {"memory": "256Mi"},
                },
                "security_context": {
                    "allow_privilege_escalation": False,
                    "read_only_root_filesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                    "seccomp_profile": {"type": "RuntimeDefault"},
                },
                "volume_mounts": [{"name": "sockets", "mount_path": _SOCKETS}],
            }
        ],
        "volumes": [{"name": "sockets", "host_path": {"path": _SOCKETS, "type": "Directory"}}],
    }
