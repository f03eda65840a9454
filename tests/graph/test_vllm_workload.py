"""What a workload registers: the whole pod as one table of facts, and what holds for every plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.pod_programs import content_digest, pod_programs
from components.quantity import mebibytes, millicores
from components.vllm_workload import VllmWorkload
from rehearsal.run import ROOT, load
from serving import catalogue
from serving.catalogue import Checkpoint
from serving.component import TYPE, properties
from serving.config import parse
from serving.plan import Plan, WorkloadPlan, build
from serving.rules import image_problem
from serving.timing import NODE_DRAIN_SECONDS
from tests.graph.harness import Recorded, Run, run
from tests.graph.stacks import BLOCK, ENDED, SCHEDULED

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
SERVICE = "kubernetes:core/v1:Service"
NAMESPACE = "kubernetes:core/v1:Namespace"
ACCOUNT = "kubernetes:core/v1:ServiceAccount"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
BUDGET = "kubernetes:policy/v1:PodDisruptionBudget"

SELECTOR = {"app.kubernetes.io/name": "vllm", "app.kubernetes.io/instance": "glm"}
LABELS = {**SELECTOR, "app.kubernetes.io/version": "0.31.0", "app.kubernetes.io/managed-by": "pulumi"}
IMAGE = "vllm/vllm-openai@sha256:c1c9f6fd5c109ba7f0546a59f5b2f15fb87f64c77782e90a27b648b42a8e67c3"
SLOT = "caches/c1c9f6fd5c10/glm-0"

H200 = {"instanceType": "p5en.48xlarge", "availabilityZoneId": "use1-az6", "capacity": {"kind": "onDemand"}}
B300 = {"instanceType": "p6-b300.48xlarge", "availabilityZoneId": "usw2-az2", "capacity": {"kind": "onDemand"}}


@cache
def dev() -> WorkloadPlan:
    return load("dev", [], ROOT)[0].workloads["glm"]


def stack(nodes: int, replicas: int, precision: str = "fp8", **pool: Any) -> Plan:
    """The plan of a stack on p5en, or on what `pool` says."""
    machines: dict[str, Any] = {**H200, **pool}
    zone: str = machines["availabilityZoneId"]
    region = catalogue.region_of_zone(zone)
    settings = {
        "aws:region": region,
        "glm-on-gpus:cluster": {"kind": "eks", "availabilityZoneIds": [zone, f"{zone.rpartition('az')[0]}az1"]},
        "glm-on-gpus:nodePools": {"gpu": {**machines, "nodes": nodes}},
        "glm-on-gpus:workloads": {
            "glm": {"nodePool": "gpu", "precision": precision, "replicas": replicas, "maxModelLen": 131072}
        },
    }
    return build(parse(settings), "test")


def registered(plan: WorkloadPlan, *, preview: bool = False) -> Run:
    def program() -> Mapping[str, pulumi.Output[Any]]:
        return {"endpoint": VllmWorkload("glm", plan).endpoint}

    return run(program, preview=preview)


@cache
def dev_run() -> Run:
    return registered(dev())


def pod_of(result: Run) -> Mapping[str, Any]:
    return result.one(DEPLOYMENT).inputs["spec"]["template"]["spec"]


def facts(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of an object with its path; rows of a list go by their mount path or their name, else by number."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from facts(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, item in enumerate(value):
            key = next((key for key in ("mountPath", "name") if key in item), None)
            rest = {field: content for field, content in item.items() if field != key}
            yield from facts(rest, f"{path}[{number if key is None else item[key]}]")
    else:
        yield path, value


# --- the pod of the dev stack ----------------------------------------------------------------------------------------


def _config_maps(plan: WorkloadPlan) -> tuple[str, str]:
    """The names of a workload's ConfigMaps, programs and expectations: as objects and as resources."""
    return f"glm-programs-{pod_programs().digest}", f"glm-expectations-{content_digest(_expectations(plan))}"


def test_urns() -> None:
    made = "glm-on-gpus:vllm_workload:VllmWorkload"
    programs, expectations = _config_maps(dev())
    assert dev_run().urns == [
        f"{made}$kubernetes:apps/v1:Deployment::glm-deployment",
        f"{made}$kubernetes:core/v1:ConfigMap::{expectations}",
        f"{made}$kubernetes:core/v1:ConfigMap::{programs}",
        f"{made}$kubernetes:core/v1:Namespace::glm-namespace",
        f"{made}$kubernetes:core/v1:Service::glm-service",
        f"{made}$kubernetes:core/v1:ServiceAccount::glm-service-account",
        f"{made}$kubernetes:policy/v1:PodDisruptionBudget::glm-disruption-budget",
        f"pulumi:pulumi:Stack${made}::glm",
    ]


def _program(path: str, *arguments: str, cpu: str = "8", memory: str = "8Gi") -> dict[str, Any]:
    """What all programs have in common."""
    return {
        f"{path}.image": IMAGE,
        f"{path}.command": ["python3", *arguments],
        f"{path}.workingDir": "/opt/glm-on-gpus",
        f"{path}.env[NVIDIA_VISIBLE_DEVICES].value": "void",
        f"{path}.env[PYTHONDONTWRITEBYTECODE].value": "1",
        f"{path}.resources.requests.cpu": cpu,
        f"{path}.resources.requests.memory": memory,
        f"{path}.resources.limits.memory": memory,
        f"{path}.securityContext.allowPrivilegeEscalation": False,
        f"{path}.securityContext.readOnlyRootFilesystem": True,
        f"{path}.securityContext.capabilities.drop": ["ALL"],
        f"{path}.volumeMounts[/opt/glm-on-gpus].name": "programs",
        f"{path}.volumeMounts[/opt/glm-on-gpus].readOnly": True,
    }


def _pod(plan: WorkloadPlan) -> dict[str, Any]:
    """The table: all that the pod of the dev stack says, and nothing else."""
    times = plan.timing
    vllm, prepare, fetch = "containers[vllm]", "initContainers[prepare-node]", "initContainers[fetch-weights]"
    gate = "containers[gate]"
    serve = ("--base-url", "http://127.0.0.1:8000", "--expect", "/etc/gate/expect.json", "--serve", "0.0.0.0:8090")
    serve += ("--termination-message", "/dev/termination-log", "--runs", "1")
    return {
        "serviceAccountName": "glm",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector.accelerator.nvidia.com/class": "h200-8gpu",
        "nodeSelector.glm-on-gpus/node-pool": "h200",
        "tolerations[0].key": "nvidia.com/gpu",
        "tolerations[0].operator": "Equal",
        "tolerations[0].value": "present",
        "tolerations[0].effect": "NoSchedule",
        "terminationGracePeriodSeconds": times.termination_grace_period_seconds,
        "securityContext.runAsNonRoot": True,
        "securityContext.runAsUser": 2000,
        "securityContext.runAsGroup": 0,
        "securityContext.seccompProfile.type": "RuntimeDefault",
        "volumes[node-disk].hostPath.path": "/mnt/k8s-disks/0",
        "volumes[node-disk].hostPath.type": "Directory",
        "volumes[shared-memory].emptyDir.medium": "Memory",
        "volumes[shared-memory].emptyDir.sizeLimit": "16Gi",
        "volumes[tmp].emptyDir": {},
        "volumes[programs].configMap.name": _config_maps(plan)[0],
        **{
            f"volumes[programs].configMap.items[{number}].{field}": value
            for number, item in enumerate(pod_programs().items)
            for field, value in item.items()
        },
        "volumes[expectations].configMap.name": _config_maps(plan)[1],
        # The engine.
        f"{vllm}.image": IMAGE,
        f"{vllm}.command": list(plan.command),
        **{f"{vllm}.env[{name}].value": value for name, value in plan.env.items()},
        f"{vllm}.ports[http].containerPort": 8000,
        f"{vllm}.resources.requests.cpu": millicores(plan.resources.cpu_millis),
        f"{vllm}.resources.requests.memory": mebibytes(plan.resources.memory_mib),
        f"{vllm}.resources.requests.nvidia.com/gpu": "8",
        f"{vllm}.resources.limits.memory": mebibytes(plan.resources.memory_mib),
        f"{vllm}.resources.limits.nvidia.com/gpu": "8",
        f"{vllm}.securityContext.allowPrivilegeEscalation": False,
        f"{vllm}.securityContext.capabilities.drop": ["ALL"],
        f"{vllm}.startupProbe.httpGet.path": "/health",
        f"{vllm}.startupProbe.httpGet.port": "http",
        f"{vllm}.startupProbe.periodSeconds": times.startup_probe_period_seconds,
        f"{vllm}.startupProbe.failureThreshold": times.startup_probe_failures,
        f"{vllm}.startupProbe.timeoutSeconds": 5,
        f"{vllm}.livenessProbe.httpGet.path": "/health",
        f"{vllm}.livenessProbe.httpGet.port": "http",
        f"{vllm}.livenessProbe.periodSeconds": 30,
        f"{vllm}.livenessProbe.failureThreshold": 3,
        f"{vllm}.livenessProbe.timeoutSeconds": 5,
        f"{vllm}.readinessProbe.httpGet.path": "/v1/models",
        f"{vllm}.readinessProbe.httpGet.port": "http",
        f"{vllm}.readinessProbe.periodSeconds": 10,
        f"{vllm}.readinessProbe.failureThreshold": 3,
        f"{vllm}.readinessProbe.timeoutSeconds": 5,
        f"{vllm}.lifecycle.preStop.sleep.seconds": times.pre_stop_seconds,
        f"{vllm}.terminationMessagePolicy": "FallbackToLogsOnError",
        f"{vllm}.volumeMounts[/models].name": "node-disk",
        f"{vllm}.volumeMounts[/models].subPath": "models",
        f"{vllm}.volumeMounts[/models].readOnly": True,
        f"{vllm}.volumeMounts[/caches].name": "node-disk",
        f"{vllm}.volumeMounts[/caches].subPath": "caches",
        f"{vllm}.volumeMounts[/dev/shm].name": "shared-memory",
        f"{vllm}.volumeMounts[/tmp].name": "tmp",
        # Before it: root makes the folders, ...
        **_program(prepare, "prepare_node.py"),
        f"{prepare}.env[NODE_DISK].value": "/node-disk",
        f"{prepare}.env[FOLDERS].value": f"models:{SLOT}",
        f"{prepare}.env[OWNER_UID].value": "2000",
        f"{prepare}.env[OWNER_GID].value": "0",
        f"{prepare}.env[NEEDED_BYTES].value": "755000000000",
        f"{prepare}.securityContext.runAsUser": 0,
        f"{prepare}.securityContext.runAsNonRoot": False,
        f"{prepare}.securityContext.capabilities.add": ["CHOWN"],
        f"{prepare}.volumeMounts[/node-disk].name": "node-disk",
        # ... and the serving user fetches the weights.
        **_program(fetch, "-m", "weights"),
        f"{fetch}.env[MODEL].value": "zai-org/GLM-5.2-FP8",
        f"{fetch}.env[REVISION].value": "31cba24fb749908a485082bdeed6eb1ac6cffc2f",
        f"{fetch}.env[HF_HUB_CACHE].value": "/models",
        f"{fetch}.volumeMounts[/models].name": "node-disk",
        f"{fetch}.volumeMounts[/models].subPath": "models",
        # Beside it: the gate, whose readiness is the pod's.
        **_program(gate, "-m", "gate", *serve, cpu="250m", memory="256Mi"),
        f"{gate}.ports[gate].containerPort": 8090,
        f"{gate}.readinessProbe.httpGet.path": "/ready",
        f"{gate}.readinessProbe.httpGet.port": "gate",
        f"{gate}.readinessProbe.periodSeconds": 5,
        f"{gate}.readinessProbe.failureThreshold": 2,
        f"{gate}.readinessProbe.timeoutSeconds": 5,
        f"{gate}.terminationMessagePolicy": "FallbackToLogsOnError",
        f"{gate}.volumeMounts[/etc/gate].name": "expectations",
        f"{gate}.volumeMounts[/etc/gate].readOnly": True,
    }


def _expectations(plan: WorkloadPlan) -> dict[str, str]:
    return {"expect.json": json.dumps(dict(plan.expectations), indent=2)}


def test_the_pod() -> None:
    assert dict(facts(pod_of(dev_run()))) == _pod(dev())


def test_the_deployment_around_it() -> None:
    row = dev_run().one(DEPLOYMENT)
    spec = {key: value for key, value in row.inputs["spec"].items() if key != "template"}
    assert row.inputs["metadata"] == {"name": "glm", "namespace": "glm", "labels": LABELS}
    assert spec == {
        "replicas": 1,
        "selector": {"matchLabels": SELECTOR},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "progressDeadlineSeconds": dev().timing.progress_deadline_seconds,
        "revisionHistoryLimit": 3,
    }
    assert row.inputs["spec"]["template"]["metadata"] == {
        "labels": LABELS,
        "annotations": {
            "glm-on-gpus/model": "zai-org/GLM-5.2-FP8",
            "glm-on-gpus/revision": "31cba24fb749908a485082bdeed6eb1ac6cffc2f",
            "kubectl.kubernetes.io/default-container": "vllm",
        },
    }
    assert dev_run().dependencies(row) == {
        "Namespace glm-namespace",
        "ServiceAccount glm-service-account",
        *(f"ConfigMap {name}" for name in _config_maps(dev())),
        "PodDisruptionBudget glm-disruption-budget",
    }


def test_what_stands_beside_it() -> None:
    result = dev_run()
    rows = {row.type: row.inputs for row in result.resources if row.custom and row.type not in {DEPLOYMENT, CONFIG_MAP}}
    place = {"namespace": "glm", "labels": LABELS}
    assert {type_: _without_defaults(inputs) for type_, inputs in rows.items()} == {
        # The weights live on a folder of the host, which no stricter level allows.
        NAMESPACE: {
            "metadata": {"name": "glm", "labels": {**LABELS, "pod-security.kubernetes.io/enforce": "privileged"}}
        },
        ACCOUNT: {"metadata": {"name": "glm", **place}, "automountServiceAccountToken": False},
        SERVICE: {
            # Pulumi gives a Service ten minutes for its first endpoint; fetching and loading take longer.
            "metadata": {"name": "glm", **place, "annotations": {"pulumi.com/skipAwait": "true"}},
            "spec": {
                "type": "ClusterIP",
                "selector": SELECTOR,
                "ports": [{"name": "http", "port": 8000, "targetPort": "http", "appProtocol": "http"}],
            },
        },
        BUDGET: {
            "metadata": {"name": "glm", **place},
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": SELECTOR},
            },
        },
    }
    assert result.exports["endpoint"].value == "http://glm.glm.svc.cluster.local:8000/v1"


def test_config_maps_never_change_and_are_named_by_their_content() -> None:
    expect = _expectations(dev())
    programs, expectations = _config_maps(dev())
    place = {"namespace": "glm", "labels": LABELS}
    assert {row.name: _without_defaults(row.inputs) for row in dev_run().of(CONFIG_MAP)} == {
        programs: {
            "metadata": {"name": programs, **place},
            "data": pod_programs().data,
            "immutable": True,
        },
        expectations: {
            "metadata": {"name": expectations, **place},
            "data": expect,
            "immutable": True,
        },
    }


def test_another_expectation_is_another_config_map() -> None:
    stricter = replace(dev(), expectations={**dev().expectations, "accuracyThreshold": 1.0})
    runs = [
        {row.name: row.inputs["metadata"]["name"] for row in run.of(CONFIG_MAP)}
        for run in (dev_run(), registered(stricter))
    ]
    programs, old = _config_maps(dev())
    assert runs == [{programs: programs, old: old}, {programs: programs, (new := _config_maps(stricter)[1]): new}]
    assert new != old


def _without_defaults(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if key not in {"apiVersion", "kind"}}


def test_what_a_policy_sees_of_the_component() -> None:
    assert dev_run().one(TYPE).inputs == properties(dev())


def test_a_preview_registers_the_same() -> None:
    previewed = registered(dev(), preview=True)
    assert previewed.urns == dev_run().urns
    assert facts_of(previewed.one(DEPLOYMENT)) == facts_of(dev_run().one(DEPLOYMENT))


def facts_of(row: Recorded) -> dict[str, Any]:
    return dict(facts(row.inputs))


# --- what holds for every plan ---------------------------------------------------------------------------------------

# One node, two nodes that are both taken, a spare one; a second release beside the first; the other checkpoints.
PLANS = {
    "one-node": stack(1, 1),
    "two-nodes": stack(2, 2),
    "spare-node": stack(2, 1),
    "prod": load("prod", [], ROOT)[0],
    "bf16": stack(1, 1, "bf16", **B300),
    "nvfp4": stack(3, 2, "nvfp4", **B300),
}
EVERY_PLAN = pytest.mark.parametrize("name", PLANS)


@cache
def run_of(name: str) -> Run:
    return registered(PLANS[name].workloads["glm"])


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("one-node", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        ("two-nodes", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        ("prod", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        ("spare-node", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        ("nvfp4", {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
    ],
)
def test_the_strategy_follows_from_capacity(name: str, strategy: dict[str, Any]) -> None:
    assert run_of(name).one(DEPLOYMENT).inputs["spec"]["strategy"] == strategy


@pytest.mark.parametrize("capacity", [SCHEDULED, ENDED])
def test_outside_of_an_active_block_a_workload_has_no_replica_and_nothing_waits(capacity: dict[str, str]) -> None:
    active, idle = (registered(stack(2, 2, capacity=row).workloads["glm"]).one(DEPLOYMENT) for row in (BLOCK, capacity))
    assert (active.inputs["spec"]["replicas"], idle.inputs["spec"]["replicas"]) == (2, 0)
    assert "annotations" not in active.inputs["metadata"]
    assert idle.inputs["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}
    # The pods, and how they are replaced, are those of the active block.
    assert {**idle.inputs["spec"], "replicas": 2} == active.inputs["spec"]
    assert idle.timeouts == active.timeouts


def containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*pod["initContainers"], *pod["containers"]]


def variables(container: Mapping[str, Any]) -> dict[str, str]:
    return {row["name"]: row["value"] for row in container["env"]}


@EVERY_PLAN
def test_every_image_is_pinned(name: str) -> None:
    images = [container["image"] for container in containers(pod_of(run_of(name)))]
    assert {image: image_problem(image) for image in images} == {PLANS[name].workloads["glm"].image: None}
    assert len(images) == 4


@EVERY_PLAN
def test_a_host_path_is_never_made(name: str) -> None:
    volumes = pod_of(run_of(name))["volumes"]
    assert [volume["hostPath"] for volume in volumes if "hostPath" in volume] == [
        {"path": "/mnt/k8s-disks/0", "type": "Directory"}
    ]


@EVERY_PLAN
def test_every_container_gives_up_what_it_can(name: str) -> None:
    for container in containers(pod_of(run_of(name))):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
        assert not security.get("privileged")
        root = container["name"] == "prepare-node"
        assert (security.get("runAsUser") == 0) == root
        assert security["capabilities"].get("add", []) == (["CHOWN"] if root else [])


@EVERY_PLAN
def test_only_the_engine_sees_gpus(name: str) -> None:
    """On these nodes an image gets every GPU unless it asks for some or says `void`."""
    for container in containers(pod_of(run_of(name))):
        asked = container["resources"]["limits"].get("nvidia.com/gpu")
        hidden = variables(container).get("NVIDIA_VISIBLE_DEVICES") == "void"
        assert (asked, hidden) == (("8", False) if container["name"] == "vllm" else (None, True))


@EVERY_PLAN
def test_programs_before_the_engine_do_not_enlarge_the_pod(name: str) -> None:
    plan = PLANS[name].workloads["glm"]
    for container in pod_of(run_of(name))["initContainers"]:
        requests = container["resources"]["requests"]
        assert int(requests["cpu"]) * 1000 <= plan.resources.cpu_millis
        assert int(requests["memory"].removesuffix("Gi")) * 1024 <= plan.resources.memory_mib
        assert container["resources"]["limits"]["memory"] == requests["memory"]


@EVERY_PLAN
def test_folders_are_those_that_are_prepared(name: str) -> None:
    """What the engine writes to is made for it, and for this image and this pod alone."""
    plan = PLANS[name].workloads["glm"]
    pod = pod_of(run_of(name))
    prepare, fetch, engine, _ = containers(pod)
    prepared = {f"/{folder}" for folder in variables(prepare)["FOLDERS"].split(":")}
    assert prepared == {"/models", plan.cache_path}
    digest = plan.image.partition("@sha256:")[2]
    assert plan.cache_path.split("/") == ["", "caches", digest[:12], "glm-0"]
    written = [value for value in variables(engine).values() if value.startswith("/")]
    assert len(written) > 5
    assert all(Path(value) == Path("/models") or Path(value).is_relative_to(plan.cache_path) for value in written)
    assert variables(fetch)["HF_HUB_CACHE"] == variables(engine)["HF_HUB_CACHE"] == "/models"
    assert variables(engine)["HF_HUB_OFFLINE"] == "1"
    # A mount's path inside the container is its path on the array, or preparing it would prepare another.
    mounts = [mount for row in (fetch, engine) for mount in row["volumeMounts"] if mount["name"] == "node-disk"]
    assert [mount["mountPath"] for mount in mounts] == [f"/{mount['subPath']}" for mount in mounts]


@EVERY_PLAN
def test_the_engine_cannot_change_weights(name: str) -> None:
    engine = pod_of(run_of(name))["containers"][0]
    assert {mount["mountPath"]: mount.get("readOnly", False) for mount in engine["volumeMounts"]} == {
        "/models": True,
        "/caches": False,
        "/dev/shm": False,
        "/tmp": False,
    }


@EVERY_PLAN
def test_everything_that_selects_pods_selects_these(name: str) -> None:
    result = run_of(name)
    spec = result.one(DEPLOYMENT).inputs["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = [
        spec["selector"]["matchLabels"],
        result.one(SERVICE).inputs["spec"]["selector"],
        result.one(BUDGET).inputs["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    # A Deployment's selector cannot change: nothing of it may follow a release.
    assert selectors == [SELECTOR] * 3
    ports = {port["name"] for port in spec["template"]["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in result.one(SERVICE).inputs["spec"]["ports"]} <= ports


def test_two_workloads_do_not_select_each_others_pods() -> None:
    def program() -> None:
        VllmWorkload("glm", dev())
        VllmWorkload("other", replace(dev(), name="other", namespace="other"))

    result = run(program)
    labels = {row.name: row.inputs["spec"]["template"]["metadata"]["labels"] for row in result.of(DEPLOYMENT)}
    for service in result.of(SERVICE):
        selector = service.inputs["spec"]["selector"]
        chosen = [name for name, row in labels.items() if selector.items() <= row.items()]
        assert chosen == [service.name.replace("-service", "-deployment")]


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 2, 3, 64])
@pytest.mark.parametrize("checkpoint", catalogue.checkpoints().values(), ids=lambda row: row.precision)
def test_what_waits_longer_than_what(checkpoint: Checkpoint, replicas: int) -> None:
    """Read back from what is registered, for every checkpoint and few and many replicas."""
    row = registered(stack(replicas, replicas, checkpoint.precision, **B300).workloads["glm"]).one(DEPLOYMENT)
    spec = row.inputs["spec"]
    pod = spec["template"]["spec"]
    engine = pod["containers"][0]
    flags = dict(zip(engine["command"], engine["command"][1:], strict=False))
    pre_stop = engine["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod["terminationGracePeriodSeconds"]
    assert pre_stop + int(flags["--shutdown-timeout"]) < grace <= NODE_DRAIN_SECONDS == 900

    startup = engine["startupProbe"]["periodSeconds"] * engine["startupProbe"]["failureThreshold"]
    waits = {operation: int(text.removesuffix("s")) for operation, text in row.timeouts.items()}
    ready = int(variables(engine)["VLLM_ENGINE_READY_TIMEOUT_S"])
    assert ready <= startup <= spec["progressDeadlineSeconds"] <= waits["create"] == waits["update"]
    assert waits["create"] >= replicas * spec["progressDeadlineSeconds"]
    assert grace < waits["delete"]


def test_pulumi_waits_as_long_as_the_plan_says() -> None:
    times = dev().timing
    assert dev_run().one(DEPLOYMENT).timeouts == {
        "create": f"{times.await_seconds}s",
        "update": f"{times.await_seconds}s",
        "delete": f"{times.delete_seconds}s",
    }
