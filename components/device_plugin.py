"""Device plugins: without them a node offers none of its GPUs (`nvidia.com/gpu`) or EFA interfaces (`vpc.amazonaws.com/efa`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_kubernetes as k8s

from serving import catalogue
from serving.plan import EFA_LABEL, GPU_LABEL, GPU_RESOURCE

# The kubelet's socket folder: a plugin registers there, which needs root on the host's folder but no capability.
_SOCKETS = "/var/lib/kubelet/device-plugins"


@dataclass(frozen=True)
class Plugin:
    """A device plugin: the name of its namespace and DaemonSet, image by digest, version if it is known, the nodes it is for.

    `folders` are the host's folders that it looks for devices in.
    """

    name: str
    image: str
    version: str | None
    node_selector: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    folders: Mapping[str, str] = field(default_factory=dict[str, str])
    host_network: bool = False


def nvidia_plugin() -> Plugin:
    """Return NVIDIA's plugin. Never together with the DRA driver: both would hand out the GPUs."""
    image = catalogue.image("device-plugin")
    return Plugin(
        name="nvidia-device-plugin",
        image=image.reference,
        version=image.version,
        # Only GPU nodes: on others the plugin crash-loops (it fails without a GPU, and should).
        node_selector={GPU_LABEL: "true"},
        # The GPUs of a node with a broken driver must not look merely absent.
        env={"FAIL_ON_INIT_ERROR": "true"},
    )


def efa_plugin(image: str) -> Plugin:
    """Return AWS's plugin for EFA interfaces, from an image by digest; as in its chart, where it has the node's network."""
    known = catalogue.image("efa-plugin")
    return Plugin(
        name="efa-device-plugin",
        image=image,
        version=known.version if known.digest and image == known.reference else None,
        node_selector={EFA_LABEL: "true"},
        folders={"devices": "/dev/infiniband"},
        host_network=True,
    )


class DevicePlugin(pulumi.ComponentResource):
    """A DaemonSet on every node that has the devices, pinned by digest."""

    def __init__(self, name: str, plugin: Plugin, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("glm-on-gpus:device_plugin:DevicePlugin", name, {"image": plugin.image}, opts)
        child = pulumi.ResourceOptions(parent=self)
        namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata={
                "name": plugin.name,
                # It mounts a host folder, which the baseline level forbids.
                "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
            },
            opts=child,
        )
        self.daemon_set = k8s.apps.v1.DaemonSet(
            f"{name}-daemonset",
            metadata={"name": plugin.name, "namespace": namespace.metadata.name, "labels": _labels(plugin)},
            spec={
                "selector": {"match_labels": {"app.kubernetes.io/name": plugin.name}},
                "update_strategy": {"type": "RollingUpdate"},
                "template": {"metadata": {"labels": _labels(plugin)}, "spec": _pod(plugin)},
            },
            opts=child,
        )
        self.register_outputs({})


def _labels(plugin: Plugin) -> dict[str, str]:
    version = {"app.kubernetes.io/version": plugin.version} if plugin.version else {}
    return {"app.kubernetes.io/name": plugin.name, **version, "app.kubernetes.io/managed-by": "pulumi"}


def _pod(plugin: Plugin) -> k8s.core.v1.PodSpecArgsDict:
    folders = {"sockets": _SOCKETS, **plugin.folders}
    return {
        "host_network": plugin.host_network or None,
        "priority_class_name": "system-node-critical",
        "automount_service_account_token": False,
        "node_selector": plugin.node_selector,
        "tolerations": [
            {"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"},
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
        ],
        "containers": [
            {
                "name": plugin.name,
                "image": plugin.image,
                "env": [{"name": name, "value": value} for name, value in plugin.env.items()],
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
                "volume_mounts": [{"name": name, "mount_path": path} for name, path in folders.items()],
            }
        ],
        "volumes": [{"name": name, "host_path": {"path": path, "type": "Directory"}} for name, path in folders.items()],
    }
