"""The device plugin: on every GPU node, by digest, with the sockets' folder and nothing else of the host."""

from __future__ import annotations

import pulumi
import pytest

from components.device_plugin import NAME, DevicePlugin
from serving import catalogue
from serving.plan import GPU_RESOURCE, Plan
from tests.graph.harness import Run, run
from tests.graph.stacks import plan

DAEMON_SET = "kubernetes:apps/v1:DaemonSet"
IMAGE = "nvcr.io/nvidia/k8s-device-plugin@sha256:a61ba9fd8efb82f3a79f877f7580e02c1e8e7593f62473644bc9c79e315c3312"
LABELS = {
    "app.kubernetes.io/name": "nvidia-device-plugin",
    "app.kubernetes.io/version": "v0.20.0",
    "app.kubernetes.io/managed-by": "pulumi",
}
SOCKETS = "/var/lib/kubelet/device-plugins"


def registered(*, preview: bool = False) -> Run:
    def program() -> None:
        DevicePlugin("plugin", pulumi.ResourceOptions())

    return run(program, preview=preview)


@pytest.mark.parametrize("preview", [False, True])
def test_urns(preview: bool) -> None:
    made = "glm-on-gpus:device_plugin:DevicePlugin"
    assert registered(preview=preview).urns == [
        f"{made}$kubernetes:apps/v1:DaemonSet::plugin-daemonset",
        f"{made}$kubernetes:core/v1:Namespace::plugin-namespace",
        f"pulumi:pulumi:Stack${made}::plugin",
    ]


def test_the_daemon_set() -> None:
    result = registered()
    row = result.one(DAEMON_SET)
    assert row.inputs["metadata"] == {"name": NAME, "namespace": NAME, "labels": LABELS}
    assert row.inputs["spec"] == {
        "selector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
        "updateStrategy": {"type": "RollingUpdate"},
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {
                "priorityClassName": "system-node-critical",
                "automountServiceAccountToken": False,
                "nodeSelector": {"nvidia.com/gpu.present": "true"},
                "tolerations": [
                    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                    {"key": "CriticalAddonsOnly", "operator": "Exists"},
                ],
                "containers": [
                    {
                        "name": NAME,
                        "image": IMAGE,
                        "env": [{"name": "FAIL_ON_INIT_ERROR", "value": "true"}],
                        "resources": {
                            "requests": {"cpu": "50m", "memory": "128Mi"},
                            "limits": {"memory": "256Mi"},
                        },
                        # Not privileged, and no capability: registering needs root on the folder alone.
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "volumeMounts": [{"name": "sockets", "mountPath": SOCKETS}],
                    }
                ],
                "volumes": [{"name": "sockets", "hostPath": {"path": SOCKETS, "type": "Directory"}}],
            },
        },
    }
    assert result.dependencies(row) == {"Namespace plugin-namespace"}


def test_the_namespace_may_mount_a_host_folder() -> None:
    inputs = registered().one("kubernetes:core/v1:Namespace").inputs
    assert inputs["metadata"] == {"name": NAME, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}


def test_the_image_is_the_catalogues() -> None:
    image = catalogue.image("device-plugin")
    assert image.reference == IMAGE
    assert image.version == LABELS["app.kubernetes.io/version"]
    # 0.19.0 to 0.19.2 mount every uverbs device into GPU pods and clash with EFA (amazon-eks-ami#2706).
    assert image.version not in {"v0.19.0", "v0.19.1", "v0.19.2"}
    assert registered().one("glm-on-gpus:device_plugin:DevicePlugin").inputs == {"image": IMAGE}


@pytest.mark.parametrize("stack", [plan(), plan(pool={"instanceType": "p5en.48xlarge"})])
def test_it_runs_where_the_pools_put_their_label_and_taint(stack: Plan) -> None:
    pod = registered().one(DAEMON_SET).inputs["spec"]["template"]["spec"]
    for pool in stack.node_pools.values():
        assert pod["nodeSelector"].items() <= pool.labels.items()
        key, _ = pool.taint
        assert {"key": key, "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
        assert key == GPU_RESOURCE
