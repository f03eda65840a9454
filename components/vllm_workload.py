"""A model served by vLLM: weights on the node's NVMe array, an engine with every flag stated, probes that wait for it."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.core.v1 import (
    ContainerArgsDict,
    EnvVarArgsDict,
    PodSpecArgsDict,
    ProbeArgsDict,
    SecurityContextArgsDict,
    VolumeMountArgsDict,
)

from components.pod_programs import MOUNT as PROGRAMS_MOUNT
from components.pod_programs import PodPrograms, pod_programs
from serving.command import CACHES_MOUNT, MODELS_MOUNT
from serving.plan import GPU_RESOURCE, NODE_DISK, WorkloadPlan

_NODE_DISK_MOUNT = "/node-disk"

# The user that vLLM's own image ships with a home and a passwd entry (vllm#40275). An unknown uid fails: torch asks for its
# name while it is imported.
_UID = 2000
_GID = 0

# A program takes some 100 MB itself; what it has written and the array has not taken yet counts too, and the kernel slows a
# writer down long before that fills its limit. The engine asks for far more, so that a pod is not larger for it.
_PROGRAM_MEMORY = "8Gi"

# Probes after the start. The engine answers /health as soon as it is alive, also under load.
_LIVENESS_PERIOD_SECONDS = 30
_READINESS_PERIOD_SECONDS = 10
_PROBE_TIMEOUT_SECONDS = 5


class VllmWorkload(pulumi.ComponentResource):
    """Namespace, service account, weights, Deployment, Service and disruption budget of one workload."""

    endpoint: pulumi.Output[str]

    def __init__(self, name: str, plan: WorkloadPlan, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("glm-on-gpus:vllm_workload:VllmWorkload", name, _facts(plan), opts)
        child = pulumi.ResourceOptions(parent=self)
        labels = _labels(plan)
        selector = _selector(plan)
        namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata={
                "name": plan.namespace,
                # The weights live on a folder of the host, which the baseline level forbids.
                "labels": {**labels, "pod-security.kubernetes.io/enforce": "privileged"},
            },
            opts=child,
        )
        place = namespace.metadata.name
        account = k8s.core.v1.ServiceAccount(
            f"{name}-service-account",
            metadata={"name": plan.name, "namespace": place, "labels": labels},
            automount_service_account_token=False,
            opts=child,
        )
        programs = pod_programs()
        config_map = k8s.core.v1.ConfigMap(
            f"{name}-programs",
            metadata={"name": f"{plan.name}-programs-{programs.digest}", "namespace": place, "labels": labels},
            data=programs.data,
            immutable=True,
            opts=child,
        )
        k8s.core.v1.Service(
            f"{name}-service",
            metadata={
                "name": plan.name,
                "namespace": place,
                "labels": labels,
                # Pulumi would give the Service ten minutes to get endpoints; the weights take longer than that, and the
                # Deployment is waited for anyway.
                "annotations": {"pulumi.com/skipAwait": "true"},
            },
            spec={
                "type": "ClusterIP",
                "selector": selector,
                "ports": [{"name": "http", "port": plan.port, "target_port": "http", "app_protocol": "http"}],
            },
            opts=child,
        )
        budget = k8s.policy.v1.PodDisruptionBudget(
            f"{name}-disruption-budget",
            metadata={"name": plan.name, "namespace": place, "labels": labels},
            spec={
                # One at a time, also where there is one: a budget of none would block every node update.
                "max_unavailable": 1,
                "unhealthy_pod_eviction_policy": "AlwaysAllow",
                "selector": {"match_labels": selector},
            },
            opts=child,
        )
        self.deployment = k8s.apps.v1.Deployment(
            f"{name}-deployment",
            metadata={"name": plan.name, "namespace": place, "labels": labels},
            spec={
                "replicas": plan.replicas,
                "selector": {"match_labels": selector},
                "strategy": _strategy(plan),
                "progress_deadline_seconds": plan.timing.progress_deadline_seconds,
                "revision_history_limit": 3,
                "template": {
                    "metadata": {"labels": labels, "annotations": _annotations(plan)},
                    "spec": _pod(plan, account.metadata.name, config_map.metadata.name, programs),
                },
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[budget],
                custom_timeouts=pulumi.CustomTimeouts(
                    create=f"{plan.timing.await_seconds}s",
                    update=f"{plan.timing.await_seconds}s",
                    delete=f"{plan.timing.delete_seconds}s",
                ),
            ),
        )
        # From the plan, so that a preview shows it.
        endpoint = f"http://{plan.name}.{plan.namespace}.svc.cluster.local:{plan.port}/v1"
        self.endpoint = pulumi.Output.from_input(endpoint)
        self.register_outputs({"endpoint": self.endpoint})


def _facts(plan: WorkloadPlan) -> dict[str, object]:
    """What a policy sees of the component: the stable contract beside the flags themselves."""
    return {
        "checkpoint": plan.checkpoint.repository,
        "precision": plan.checkpoint.precision,
        "revision": plan.revision,
        "image": plan.image,
        "engineVersion": plan.engine_version,
        "replicas": plan.replicas,
        "nodesPerReplica": plan.nodes_per_replica,
        "tensorParallelSize": plan.tensor_parallel_size,
        "maxModelLen": plan.max_model_len,
    }


def _selector(plan: WorkloadPlan) -> dict[str, str]:
    return {"app.kubernetes.io/name": "vllm", "app.kubernetes.io/instance": plan.name}


def _labels(plan: WorkloadPlan) -> dict[str, str]:
    return {
        **_selector(plan),
        "app.kubernetes.io/version": plan.engine_version,
        "app.kubernetes.io/managed-by": "pulumi",
    }


def _annotations(plan: WorkloadPlan) -> dict[str, str]:
    """Say in the cluster what the flags say to vLLM."""
    return {
        "glm-on-gpus/model": plan.checkpoint.repository,
        "glm-on-gpus/revision": plan.revision,
        "kubectl.kubernetes.io/default-container": "vllm",
    }


def _strategy(plan: WorkloadPlan) -> k8s.apps.v1.DeploymentStrategyArgsDict:
    return {
        "type": "RollingUpdate",
        "rolling_update": {"max_surge": plan.rollout.max_surge, "max_unavailable": plan.rollout.max_unavailable},
    }


def _tolerations(plan: WorkloadPlan) -> list[k8s.core.v1.TolerationArgsDict]:
    key, value = plan.taint
    return [{"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}]


def _pod(
    plan: WorkloadPlan, account: pulumi.Output[str], config_map: pulumi.Output[str], programs: PodPrograms
) -> PodSpecArgsDict:
    return {
        "service_account_name": account,
        "automount_service_account_token": False,
        # Variables named after every service of the namespace would reach vLLM, which reads VLLM_*.
        "enable_service_links": False,
        "node_selector": dict(plan.node_selector),
        "tolerations": _tolerations(plan),
        "termination_grace_period_seconds": plan.timing.termination_grace_period_seconds,
        "security_context": {
            "run_as_non_root": True,
            "run_as_user": _UID,
            "run_as_group": _GID,
            "seccomp_profile": {"type": "RuntimeDefault"},
        },
        "init_containers": [_prepare(plan), _fetch(plan)],
        "containers": [_engine(plan)],
        "volumes": [
            # Directory, never DirectoryOrCreate: without the array the pod must fail, not fill the root volume.
            {"name": "node-disk", "host_path": {"path": NODE_DISK, "type": "Directory"}},
            {
                "name": "shared-memory",
                "empty_dir": {"medium": "Memory", "size_limit": f"{plan.resources.shared_memory_gib}Gi"},
            },
            {"name": "tmp", "empty_dir": {}},
            {"name": "programs", "config_map": {"name": config_map, "items": programs.items}},
        ],
    }


def _engine(plan: WorkloadPlan) -> ContainerArgsDict:
    resources = plan.resources
    return {
        "name": "vllm",
        "image": plan.image,
        "command": list(plan.command),
        "env": _env(plan.env),
        "ports": [{"name": "http", "container_port": plan.port}],
        "resources": {
            "requests": {
                "cpu": f"{resources.cpu_millis}m",
                "memory": f"{resources.memory_mib}Mi",
                GPU_RESOURCE: str(resources.gpus),
            },
            # A release has filled the host's memory at start (vllm#54237): the limit keeps the node alive.
            "limits": {"memory": f"{resources.memory_mib}Mi", GPU_RESOURCE: str(resources.gpus)},
        },
        # No read-only root: kernels that are compiled at run time were not proven to keep to the cache folders.
        "security_context": {"allow_privilege_escalation": False, "capabilities": {"drop": ["ALL"]}},
        "startup_probe": _http_probe(
            "/health", plan.timing.startup_probe_period_seconds, plan.timing.startup_probe_failures
        ),
        "liveness_probe": _http_probe("/health", _LIVENESS_PERIOD_SECONDS, 3),
        "readiness_probe": _http_probe("/v1/models", _READINESS_PERIOD_SECONDS, 3),
        # Endpoints forget the pod first, then vLLM finishes what runs (--shutdown-timeout).
        "lifecycle": {"pre_stop": {"sleep": {"seconds": plan.timing.pre_stop_seconds}}},
        "volume_mounts": [
            {"name": "node-disk", "mount_path": MODELS_MOUNT, "sub_path": _MODELS, "read_only": True},
            {"name": "node-disk", "mount_path": CACHES_MOUNT, "sub_path": _CACHES},
            {"name": "shared-memory", "mount_path": "/dev/shm"},
            {"name": "tmp", "mount_path": "/tmp"},
        ],
    }


_MODELS = MODELS_MOUNT.strip("/")
_CACHES = CACHES_MOUNT.strip("/")


def _prepare(plan: WorkloadPlan) -> ContainerArgsDict:
    folders = [_MODELS, f"{_CACHES}{plan.cache_path.removeprefix(CACHES_MOUNT)}"]
    return _program(
        plan,
        "prepare-node",
        ["prepare_node.py"],
        env={
            "NODE_DISK": _NODE_DISK_MOUNT,
            "FOLDERS": ":".join(folders),
            "OWNER_UID": str(_UID),
            "OWNER_GID": str(_GID),
            "NEEDED_BYTES": str(plan.checkpoint.bytes),
        },
        mounts=[{"name": "node-disk", "mount_path": _NODE_DISK_MOUNT}],
        # The kubelet made the array's root; only root may make folders there and hand them to the serving user.
        security={"run_as_user": 0, "run_as_non_root": False, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}},
    )


def _fetch(plan: WorkloadPlan) -> ContainerArgsDict:
    return _program(
        plan,
        "fetch-weights",
        ["-m", "weights"],
        env={
            "MODEL": plan.checkpoint.repository,
            "REVISION": plan.revision,
            "HF_HUB_CACHE": MODELS_MOUNT,
            **({"WEIGHTS_FROM": plan.weights_mirror} if plan.weights_mirror else {}),
        },
        mounts=[{"name": "node-disk", "mount_path": MODELS_MOUNT, "sub_path": _MODELS}],
        security={"capabilities": {"drop": ["ALL"]}},
    )


def _program(
    plan: WorkloadPlan,
    name: str,
    arguments: list[str],
    *,
    env: Mapping[str, str],
    mounts: list[VolumeMountArgsDict],
    security: SecurityContextArgsDict,
) -> ContainerArgsDict:
    """Return an init container that runs one of our programs with the Python of the engine's image."""
    return {
        "name": name,
        "image": plan.image,
        "command": ["python3", *arguments],
        "working_dir": PROGRAMS_MOUNT,
        # The node's default runtime gives an image every GPU unless it is told otherwise.
        "env": _env({**env, "NVIDIA_VISIBLE_DEVICES": "void", "PYTHONDONTWRITEBYTECODE": "1"}),
        "resources": {"requests": {"cpu": "8", "memory": _PROGRAM_MEMORY}, "limits": {"memory": _PROGRAM_MEMORY}},
        "security_context": {
            "allow_privilege_escalation": False,
            "read_only_root_filesystem": True,
            **security,
        },
        "volume_mounts": [{"name": "programs", "mount_path": PROGRAMS_MOUNT, "read_only": True}, *mounts],
    }


def _env(values: Mapping[str, str]) -> list[EnvVarArgsDict]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _http_probe(path: str, period_seconds: int, failures: int) -> ProbeArgsDict:
    return {
        "http_get": {"path": path, "port": "http"},
        "period_seconds": period_seconds,
        "failure_threshold": failures,
        "timeout_seconds": _PROBE_TIMEOUT_SECONDS,
    }
