"""The pod of a workload: weights on the node's NVMe array, an engine with every flag stated, a gate that answers for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.core.v1 import (
    AffinityArgsDict,
    CapabilitiesArgsDict,
    ContainerArgsDict,
    EnvVarArgsDict,
    KeyToPathArgsDict,
    PodSpecArgsDict,
    ProbeArgsDict,
    SecurityContextArgsDict,
    VolumeArgsDict,
    VolumeMountArgsDict,
)

from components.pod_programs import MOUNT as PROGRAMS_MOUNT
from components.quantity import gibibytes, mebibytes, millicores
from serving.command import CACHES_MOUNT, MODELS_MOUNT, POD_ADDRESS
from serving.plan import EFA_RESOURCE, GPU_RESOURCE, NODE_DISK, WorkloadPlan

EXPECT_FILE = "expect.json"

GROUP_LABEL = "leaderworkerset.sigs.k8s.io/group-key"
"""The label in which all pods of one group have the same value, another one than every other group."""

_NODE_DISK_MOUNT = "/node-disk"
_EXPECT_MOUNT = "/etc/gate"

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

_GATE_PORT = 8090
_TERMINATION_MESSAGE = "/dev/termination-log"  # where the kubelet looks for a container's last words by default
_GATE_PERIOD_SECONDS = 5
_GATE_MEMORY = "256Mi"  # docs/gate.md has what it takes


def _tolerations(plan: WorkloadPlan) -> list[k8s.core.v1.TolerationArgsDict]:
    key, value = plan.taint
    return [{"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}]


@dataclass(frozen=True)
class PodNeeds:
    """What a pod refers to by name: its service account and two ConfigMaps, of one of them the files with their paths."""

    account: pulumi.Output[str]
    programs: pulumi.Output[str]
    program_files: list[KeyToPathArgsDict]
    expectations: pulumi.Output[str]


def pod_spec(plan: WorkloadPlan, needs: PodNeeds) -> PodSpecArgsDict:
    """Return the pod that answers requests: the only one of a replica, or the first of its group."""
    expectations: VolumeArgsDict = {"name": "expectations", "config_map": {"name": needs.expectations}}
    return _pod(plan, needs, [_server(plan), _gate(plan)], [expectations])


def worker_pod_spec(plan: WorkloadPlan, needs: PodNeeds) -> PodSpecArgsDict:
    """Return the other pods of a group. They answer nobody: no port, no probe, no gate; they live and die with the first."""
    return _pod(plan, needs, [_engine(plan, plan.worker_command)], [])


def _pod(
    plan: WorkloadPlan, needs: PodNeeds, containers: list[ContainerArgsDict], volumes: list[VolumeArgsDict]
) -> PodSpecArgsDict:
    return {
        "affinity": _together(plan),
        "service_account_name": needs.account,
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
        "containers": containers,
        "volumes": [
            # Directory, never DirectoryOrCreate: without the array the pod must fail, not fill the root volume.
            {"name": "node-disk", "host_path": {"path": NODE_DISK, "type": "Directory"}},
            {
                "name": "shared-memory",
                "empty_dir": {"medium": "Memory", "size_limit": gibibytes(plan.resources.shared_memory_gib)},
            },
            {"name": "tmp", "empty_dir": {}},
            {"name": "programs", "config_map": {"name": needs.programs, "items": needs.program_files}},
            *volumes,
        ],
    }


def _together(plan: WorkloadPlan) -> AffinityArgsDict | None:
    """Keep the pods of a group in one zone, which EFA does not leave; within a pool of this stack they are in one anyway."""
    if plan.kind == "Deployment":
        return None
    return {
        "pod_affinity": {
            "required_during_scheduling_ignored_during_execution": [
                {
                    "topology_key": "topology.kubernetes.io/zone",
                    "label_selector": {"match_labels": {"app.kubernetes.io/instance": plan.name}},
                    "match_label_keys": [GROUP_LABEL],
                }
            ]
        }
    }


def _server(plan: WorkloadPlan) -> ContainerArgsDict:
    return {
        **_engine(plan, plan.command),
        "ports": [{"name": "http", "container_port": plan.port}],
        "startup_probe": _http_probe(
            "/health", plan.timing.startup_probe_period_seconds, plan.timing.startup_probe_failures
        ),
        "liveness_probe": _http_probe("/health", _LIVENESS_PERIOD_SECONDS, 3),
        "readiness_probe": _http_probe("/v1/models", _READINESS_PERIOD_SECONDS, 3),
        # Endpoints forget the pod first, then vLLM finishes what runs (--shutdown-timeout).
        "lifecycle": {"pre_stop": {"sleep": {"seconds": plan.timing.pre_stop_seconds}}},
    }


def _engine(plan: WorkloadPlan, command: tuple[str, ...]) -> ContainerArgsDict:
    devices = _devices(plan)
    memory = mebibytes(plan.resources.memory_mib)
    capabilities: CapabilitiesArgsDict = {"drop": ["ALL"]}
    if plan.resources.efa_interfaces:
        # RDMA works on memory that is not swapped out.
        capabilities["add"] = ["IPC_LOCK"]
    return {
        "name": "vllm",
        "image": plan.image,
        "command": list(command),
        "env": _engine_env(plan),
        "resources": {
            "requests": {"cpu": millicores(plan.resources.cpu_millis), "memory": memory, **devices},
            # A release has filled the host's memory at start (vllm#54237): the limit keeps the node alive.
            "limits": {"memory": memory, **devices},
        },
        # No read-only root: kernels that are compiled at run time were not proven to keep to the cache folders.
        "security_context": {"allow_privilege_escalation": False, "capabilities": capabilities},
        # Why it did not start stands in its log only; so the pod's status has it, and Pulumi shows it.
        "termination_message_policy": "FallbackToLogsOnError",
        "volume_mounts": [
            {"name": "node-disk", "mount_path": MODELS_MOUNT, "sub_path": _MODELS, "read_only": True},
            {"name": "node-disk", "mount_path": CACHES_MOUNT, "sub_path": _CACHES},
            {"name": "shared-memory", "mount_path": "/dev/shm"},
            {"name": "tmp", "mount_path": "/tmp"},
        ],
    }


def _devices(plan: WorkloadPlan) -> dict[str, str]:
    resources = plan.resources
    devices = {GPU_RESOURCE: str(resources.gpus)}
    if resources.efa_interfaces:
        devices |= {EFA_RESOURCE: str(resources.efa_interfaces), "hugepages-2Mi": mebibytes(resources.hugepages_mib)}
    return devices


def _engine_env(plan: WorkloadPlan) -> list[EnvVarArgsDict]:
    """Return the engine's variables, and before them the pod's address where they refer to it."""
    address: EnvVarArgsDict = {"name": POD_ADDRESS, "value_from": {"field_ref": {"field_path": "status.podIP"}}}
    return [*([address] if plan.kind == "LeaderWorkerSet" else []), *_env(plan.env)]


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


def _gate(plan: WorkloadPlan) -> ContainerArgsDict:
    """Return the gate, which waits for the engine and answers for it until it has ended.

    A container, not a native sidecar: Pulumi shows the last words of containers, of init containers it shows none
    (pulumi-kubernetes, `provider/pkg/await/checker/pod/check.go`). That it ends after the engine, too, is its own doing.
    """
    arguments = [
        *("--base-url", f"http://127.0.0.1:{plan.port}"),
        *("--expect", f"{_EXPECT_MOUNT}/{EXPECT_FILE}"),
        *("--serve", f"0.0.0.0:{_GATE_PORT}"),
        *("--termination-message", _TERMINATION_MESSAGE),
        *("--runs", str(plan.gate_runs)),
    ]
    return {
        **_program(
            plan,
            "gate",
            ["-m", "gate", *arguments],
            env={},
            mounts=[{"name": "expectations", "mount_path": _EXPECT_MOUNT, "read_only": True}],
            security={"capabilities": {"drop": ["ALL"]}},
            cpu="250m",
            memory=_GATE_MEMORY,
        ),
        "ports": [{"name": "gate", "container_port": _GATE_PORT}],
        "readiness_probe": _http_probe("/ready", _GATE_PERIOD_SECONDS, 2, port="gate"),
        # The gate writes its last words; for what is killed before it can, the end of its log has to do.
        "termination_message_policy": "FallbackToLogsOnError",
    }


def _program(
    plan: WorkloadPlan,
    name: str,
    arguments: list[str],
    *,
    env: Mapping[str, str],
    mounts: list[VolumeMountArgsDict],
    security: SecurityContextArgsDict,
    cpu: str = "8",
    memory: str = _PROGRAM_MEMORY,
) -> ContainerArgsDict:
    """Return a container that runs one of our programs with the Python of the engine's image."""
    return {
        "name": name,
        "image": plan.image,
        "command": ["python3", *arguments],
        "working_dir": PROGRAMS_MOUNT,
        # The node's default runtime gives an image every GPU unless it is told otherwise.
        "env": _env({**env, "NVIDIA_VISIBLE_DEVICES": "void", "PYTHONDONTWRITEBYTECODE": "1"}),
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
        "security_context": {
            "allow_privilege_escalation": False,
            "read_only_root_filesystem": True,
            **security,
        },
        "volume_mounts": [{"name": "programs", "mount_path": PROGRAMS_MOUNT, "read_only": True}, *mounts],
    }


def _env(values: Mapping[str, str]) -> list[EnvVarArgsDict]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _http_probe(path: str, period_seconds: int, failures: int, port: str = "http") -> ProbeArgsDict:
    return {
        "http_get": {"path": path, "port": port},
        "period_seconds": period_seconds,
        "failure_threshold": failures,
        "timeout_seconds": _PROBE_TIMEOUT_SECONDS,
    }
