"""A workload whose replicas are groups of pods: what its two kinds of pods share, and where they differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import pulumi
import pytest

from components.leader_worker_sets import LeaderWorkerSets
from components.vllm_workload import VllmWorkload
from rehearsal.run import ROOT, load
from serving.manifest import read
from serving.plan import Plan, WorkloadPlan
from tests.graph.harness import Recorded, Run, run
from tests.graph.stacks import ENDED

SET = "kubernetes:leaderworkerset.x-k8s.io/v1:LeaderWorkerSet"
EXAMPLE = "h200-bf16-two-nodes"


@cache
def plan() -> Plan:
    return load(EXAMPLE, [], ROOT)[0]


def glm() -> WorkloadPlan:
    return plan().workloads["glm"]


@cache
def registered(preview: bool = False) -> Run:
    def program() -> Mapping[str, pulumi.Output[Any]]:
        return {"endpoint": VllmWorkload("glm", glm()).endpoint}

    return run(program, preview=preview)


def group() -> Recorded:
    return registered().one(SET)


def templates() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the pods of a group as the controller makes them: the one that answers, and the others."""
    of_group = group().inputs["spec"]["leaderWorkerTemplate"]
    return of_group["leaderTemplate"], of_group["workerTemplate"]


def container(template: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next(row for row in template["spec"]["containers"] if row["name"] == name)


def test_it_takes_the_deployments_place() -> None:
    made = "glm-on-gpus:vllm_workload:VllmWorkload"
    assert [re.sub(r"-[0-9a-f]{10}$", "-DIGEST", urn) for urn in registered().urns] == [
        f"{made}$kubernetes:apps/v1:StatefulSetPatch::glm-groups",
        f"{made}$kubernetes:core/v1:ConfigMap::glm-expectations-DIGEST",
        f"{made}$kubernetes:core/v1:ConfigMap::glm-programs-DIGEST",
        f"{made}$kubernetes:core/v1:Namespace::glm-namespace",
        f"{made}$kubernetes:core/v1:Service::glm-service",
        f"{made}$kubernetes:core/v1:ServiceAccount::glm-service-account",
        f"{made}$kubernetes:leaderworkerset.x-k8s.io/v1:LeaderWorkerSet::glm-leader-worker-set",
        f"{made}$kubernetes:policy/v1:PodDisruptionBudget::glm-disruption-budget",
        f"pulumi:pulumi:Stack${made}::glm",
    ]
    assert registered(preview=True).urns == registered().urns


def test_outside_of_an_active_block_there_is_no_group_to_wait_for() -> None:
    idle = load(EXAMPLE, [f"nodePools.h200.capacity={json.dumps(ENDED)}"], ROOT)[0].workloads["glm"]

    def program() -> Mapping[str, pulumi.Output[Any]]:
        return {"endpoint": VllmWorkload("glm", idle).endpoint}

    result = run(program)
    inputs = result.one(SET).inputs
    assert result.of(PATCH) == []
    assert inputs["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}
    assert {**inputs["spec"], "replicas": glm().replicas} == group().inputs["spec"]
    assert (inputs["spec"]["replicas"], glm().replicas) == (0, 1)


def test_the_group() -> None:
    inputs = group().inputs
    spec = dict(inputs["spec"])
    of_group = dict(spec.pop("leaderWorkerTemplate"))
    of_group.pop("leaderTemplate")
    of_group.pop("workerTemplate")
    assert of_group == {"size": 2, "restartPolicy": "RecreateGroupOnPodRestart"}
    assert spec == {
        "replicas": 1,
        "startupPolicy": "LeaderCreated",
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
        },
    }
    metadata = inputs["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("glm-group", "glm")
    assert metadata["annotations"] == {"pulumi.com/waitFor": '["jsonpath={.status.replicas}=1"]'}
    assert group().timeouts["create"] == f"{glm().timing.await_seconds}s"


PATCH = "kubernetes:apps/v1:StatefulSetPatch"


def digest(result: Run) -> str:
    of_group = result.one(SET).inputs["spec"]["leaderWorkerTemplate"]
    (found,) = {of_group[name]["metadata"]["annotations"]["glm-on-gpus/template"] for name in TEMPLATES}
    return found


TEMPLATES = ("leaderTemplate", "workerTemplate")


def test_pulumi_waits_for_groups_of_this_very_template() -> None:
    # The status of the set itself does not say of which generation it is; that of the controller's StatefulSet does.
    result = registered()
    patch = result.one(PATCH)
    waited = [
        f"jsonpath={{.spec.template.metadata.annotations['glm-on-gpus/template']}}={digest(result)}",
        "jsonpath={.status.replicas}=1",
        "jsonpath={.status.updatedReplicas}=1",
        "jsonpath={.status.readyReplicas}=1",
    ]
    metadata = dict(patch.inputs["metadata"])
    assert json.loads(metadata.pop("annotations")["pulumi.com/waitFor"]) == waited
    assert metadata == {"name": "glm-group", "namespace": "glm"}
    assert set(patch.inputs) == {"apiVersion", "kind", "metadata"}
    assert group().urn in patch.depends_on
    assert patch.timeouts == group().timeouts


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("workloads.glm.replicas=1", True),
        ("workloads.glm.maxNumSeqs=8", False),
        ("workloads.glm.maxModelLen=65536", False),
    ],
)
def test_another_template_has_another_digest(override: str, same: bool) -> None:
    changed = load(EXAMPLE, [override], ROOT)[0].workloads["glm"]

    def program() -> Mapping[str, pulumi.Output[Any]]:
        return {"endpoint": VllmWorkload("glm", changed).endpoint}

    assert (digest(run(program)) == digest(registered())) is same


def test_its_name_leaves_the_services_name_alone() -> None:
    """The controller makes a headless Service of the set's name; one that exists it takes for its own."""
    service = registered().one("kubernetes:core/v1:Service").inputs["metadata"]["name"]
    assert service == "glm"
    assert group().inputs["metadata"]["name"] != service


def test_only_the_first_pod_of_a_group_answers() -> None:
    leader, worker = templates()
    assert [row["name"] for row in leader["spec"]["containers"]] == ["vllm", "gate"]
    assert [row["name"] for row in worker["spec"]["containers"]] == ["vllm"]
    answering, working = container(leader, "vllm"), container(worker, "vllm")
    assert set(answering) - set(working) == {"ports", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"}
    assert {key for key in working if working[key] != answering[key]} == {"command"}
    assert (tuple(answering["command"]), tuple(working["command"])) == (glm().command, glm().worker_command)
    volumes = [{row["name"] for row in template["spec"]["volumes"]} for template in templates()]
    assert volumes[0] - volumes[1] == {"expectations"}
    assert registered().one("kubernetes:core/v1:Service").inputs["spec"]["selector"] == {
        "app.kubernetes.io/name": "vllm",
        "app.kubernetes.io/instance": "glm",
        "leaderworkerset.sigs.k8s.io/worker-index": "0",
    }


def test_a_gate_that_fails_once_does_not_end_its_group() -> None:
    """The controller makes a group anew when any container of it has restarted."""
    words = container(templates()[0], "gate")["command"]
    assert words[words.index("--runs") + 1] == "2"


def test_everything_else_is_the_same_in_both_pods() -> None:
    leader, worker = templates()
    assert leader["metadata"] == worker["metadata"]
    differing = {"containers", "volumes"}
    first, others = ({k: v for k, v in row["spec"].items() if k not in differing} for row in (leader, worker))
    assert first == others
    assert {row["name"] for row in first["initContainers"]} == {"prepare-node", "fetch-weights"}


def test_engines_reach_each_other_over_efa() -> None:
    for template in templates():
        engine = container(template, "vllm")
        for share in ("requests", "limits"):
            asked = engine["resources"][share]
            assert asked["vpc.amazonaws.com/efa"] == "16"
            assert asked["hugepages-2Mi"] == "5Gi"
            assert asked["nvidia.com/gpu"] == "8"
        assert engine["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
        # A variable may refer to those before it only.
        names = [row["name"] for row in engine["env"]]
        assert names.index("POD_IP") < names.index("VLLM_HOST_IP")
        assert engine["env"][0] == {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def test_the_pods_of_a_group_are_in_one_zone_and_of_two_groups_need_not_be() -> None:
    for template in templates():
        assert template["spec"]["affinity"] == {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "topologyKey": "topology.kubernetes.io/zone",
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/instance": "glm"}},
                        "matchLabelKeys": ["leaderworkerset.sigs.k8s.io/group-key"],
                    }
                ]
            }
        }


def test_a_disruption_budget_counts_all_pods() -> None:
    """A group is lost with any of its pods."""
    selector = registered().one("kubernetes:policy/v1:PodDisruptionBudget").inputs["spec"]["selector"]["matchLabels"]
    for template in templates():
        assert selector.items() <= template["metadata"]["labels"].items()


def test_whoever_reads_the_object_judges_what_the_plan_judged() -> None:
    leader, worker = (reading.facts for reading in read(_manifest()))
    assert (leader.headless, worker.headless) == (False, True)
    for facts in (leader, worker):
        assert facts.nodes_per_replica == 2
        assert facts.memory == glm().memory
    assert leader.gated


def test_every_node_of_a_group_shares_the_cache_out() -> None:
    sharing = load(EXAMPLE, ["workloads.glm.decodeContextParallelSize=16"], ROOT)[0].workloads["glm"]

    def program() -> Mapping[str, pulumi.Output[Any]]:
        return {"endpoint": VllmWorkload("glm", sharing).endpoint}

    found = [reading.facts for reading in read(_manifest(run(program).one(SET)))]
    assert [facts.headless for facts in found] == [False, True]
    for facts in found:
        assert (facts.tensor_parallel_size, facts.decode_context_parallel_size, facts.dcp_comm_backend) == (
            16,
            16,
            "ag_rs",
        )
        assert facts.memory == sharing.memory != glm().memory


def _manifest(made: Recorded | None = None) -> Mapping[str, Any]:
    return json.loads(json.dumps(dict((made or group()).inputs)))


# --- the controller --------------------------------------------------------------------------------------------------


def test_the_controller_is_pinned_by_version_and_digest() -> None:
    made = run(lambda: LeaderWorkerSets("sets") and None)
    release = made.one("kubernetes:helm.sh/v3:Release")
    assert release.inputs == {
        "name": "lws",
        "chart": "oci://registry.k8s.io/lws/charts/lws",
        "version": "0.7.0",
        "namespace": "lws-system",
        "values": {
            "image": {
                "manager": {
                    # kubernetes/k8s.io, registry.k8s.io/images/k8s-staging-lws/images.yaml
                    "tag": "v0.7.0@sha256:7f60e6ac66ff79564a5f1b5b0078e29d839d007461131b63d11845da49d6a50c",
                    "pullPolicy": "IfNotPresent",
                }
            }
        },
        "compat": "true",
    }
    assert made.dependencies(release) == {"Namespace sets-namespace"}
