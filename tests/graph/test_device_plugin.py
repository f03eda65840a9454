"""Device plugins: on every node that has the devices, by digest, with the folders they need and nothing else of the host."""

from __future__ import annotations

import pulumi
import pytest

from components.device_plugin import DevicePlugin, Plugin, efa_plugin, nvidia_plugin
from serving import catalogue
from serving.plan import EFA_LABEL, GPU_RESOURCE, Plan
from tests.graph.harness import Run, run
from tests.graph.stacks import EFA_PLUGIN, plan

NAME = "nvidia-device-plugin"
DAEMON_SET = "kubernetes:apps/v1:DaemonSet"
IMAGE = "nvcr.io/nvidia/k8s-device-plugin@sha256:a61ba9fd8efb82f3a79f877f7580e02c1e8e7593f62473644bc9c79e315c3312"
LABELS = {
    "app.kubernetes.io/name": NAME,
    "app.kubernetes.io/version": "v0.20.0",
    "app.kubernetes.io/managed-by": "pulumi",
}
SOCKETS = "/var/lib/kubelet/device-plugins"


def registered(plugin: Plugin | None = None, *, preview: bool = False) -> Run:
    def program() -> None:
        DevicePlugin("plugin", plugin or nvidia_plugin(), pulumi.ResourceOptions())

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


# --- EFA -----------------------------------------------------------------------------------------------------------------


def test_the_plugin_for_efa_differs_where_its_devices_do() -> None:
    pod = registered(efa_plugin(EFA_PLUGIN)).one(DAEMON_SET).inputs["spec"]["template"]["spec"]
    gpus = registered().one(DAEMON_SET).inputs["spec"]["template"]["spec"]
    container, of_gpus = pod["containers"][0], gpus["containers"][0]
    assert {key for key in pod if pod[key] != gpus.get(key)} == {"nodeSelector", "hostNetwork", "containers", "volumes"}
    assert {key for key in container if container[key] != of_gpus[key]} == {"name", "image", "env", "volumeMounts"}
    assert (pod["nodeSelector"], pod["hostNetwork"]) == ({"vpc.amazonaws.com/efa.present": "true"}, True)
    assert (container["name"], container["image"], container["env"]) == ("efa-device-plugin", EFA_PLUGIN, [])
    assert {row["name"]: row["hostPath"] for row in pod["volumes"]} == {
        "sockets": {"path": SOCKETS, "type": "Directory"},
        "devices": {"path": "/dev/infiniband", "type": "Directory"},
    }
    assert {row["name"]: row["mountPath"] for row in container["volumeMounts"]} == {
        "sockets": SOCKETS,
        "devices": "/dev/infiniband",
    }


def test_a_copy_of_the_plugin_says_no_version_that_nobody_knows() -> None:
    row = registered(efa_plugin(EFA_PLUGIN)).one(DAEMON_SET)
    assert row.inputs["metadata"]["labels"] == {
        "app.kubernetes.io/name": "efa-device-plugin",
        "app.kubernetes.io/managed-by": "pulumi",
    }


def test_only_pools_with_efa_have_the_label_that_its_plugin_selects() -> None:
    for efa in (True, False):
        pool = plan(pool={"efa": efa}).node_pools["gpu"]
        assert (pool.labels.get(EFA_LABEL) == "true") is efa
