"""A replica on several nodes: what a stack file may say, and what follows in command, times, pods and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from serving import argv, catalogue
from serving.catalogue import Precision
from serving.config import ConfigError, parse
from serving.parallelism import aligned_partition, partition_problem, rank_problem
from serving.plan import Plan, Rollout, WorkloadPlan, build
from serving.reading import from_command
from serving.report import as_markdown
from serving.rules import violations
from serving.timing import timing
from tests.fixtures.stacks import glm

EFA_PLUGIN = f"plugins.example/efa@sha256:{'e' * 64}"
GLM = catalogue.checkpoint_for("glm-5.2", "bf16").architecture


def settings(
    *, cluster: Mapping[str, Any] | None = None, pool: Mapping[str, Any] | None = None, **workload: Any
) -> dict[str, Any]:
    """A stack with one replica of BF16 on two 8xH200 machines, unless told otherwise."""
    return {
        "aws:region": "us-east-1",
        "glm-on-gpus:cluster": {
            "kind": "eks",
            "availabilityZoneIds": ["use1-az6", "use1-az2"],
            "efaPluginImage": EFA_PLUGIN,
            **(cluster or {}),
        },
        "glm-on-gpus:nodePools": {
            "h200": {
                "instanceType": "p5en.48xlarge",
                "nodes": 2,
                "availabilityZoneId": "use1-az6",
                "capacity": {"kind": "onDemand"},
                "efa": True,
                **(pool or {}),
            }
        },
        "glm-on-gpus:workloads": {
            "glm": {
                "nodePool": "h200",
                "precision": "bf16",
                "replicas": 1,
                "nodesPerReplica": 2,
                "maxModelLen": 131072,
                **workload,
            }
        },
    }


def plan(**changes: Any) -> Plan:
    return build(parse(settings(**changes)), "test")


def workload(**changes: Any) -> WorkloadPlan:
    return plan(**changes).workloads["glm"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"pool": {"efa": False}},
            "workloads.glm.nodesPerReplica: 2 nodes exchange the output of every layer, and nodePools.h200.efa is false; set it "
            "to true (over TCP they are about 28 times slower)",
            id="without-efa",
        ),
        pytest.param(
            {"cluster": {"efaPluginImage": None}},
            "cluster.efaPluginImage: missing, nodePools.h200.efa needs it, and no public digest of the EFA device plugin v0.5.20 "
            "is known; pin it (python -m serving pin efa-plugin v0.5.20), or set it to your copy by digest, repository@sha256:…",
            id="without-plugin",
        ),
        pytest.param(
            {"cluster": {"efaPluginImage": "plugins.example/efa:v0.5.20"}},
            "cluster.efaPluginImage: 'plugins.example/efa:v0.5.20' is not allowed; expected an image by digest, "
            "repository@sha256:…; the catalogue's EFA device plugin if left out",
            id="plugin-by-tag",
        ),
        pytest.param(
            {"pool": {"nodes": 3}, "replicas": 2},
            "workloads.glm.replicas: the replicas (2 of glm) need 4 nodes, 2 for each of glm, but nodePools.h200.nodes is 3; "
            "lower the replicas or raise the nodes",
            id="too-few-nodes",
        ),
        pytest.param(
            {"pool": {"nodes": 3}, "nodesPerReplica": 3},
            "workloads.glm.nodesPerReplica: 24 GPUs cannot have the same number of 64 attention heads each; change "
            "nodesPerReplica or pipelineParallelSize",
            id="three-nodes-in-one-stage",
        ),
        pytest.param(
            {"pipelineParallelSize": 3},
            "workloads.glm.pipelineParallelSize: 16 GPUs do not make 3 pipeline stages of equal size; change nodesPerReplica or "
            "pipelineParallelSize",
            id="three-stages-on-two-nodes",
        ),
        pytest.param(
            {"nodesPerReplica": 5},
            "workloads.glm.nodesPerReplica: 5 is not allowed; expected a whole number of nodes from 1 to 4; more than one serve "
            "a model together, over EFA",
            id="five-nodes",
        ),
    ],
)
def test_refused(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(settings(**changes), "Pulumi.test.yaml")
    assert refused.value.problems == [f"Pulumi.test.yaml: {said}"]


@pytest.mark.parametrize("owner_installs", [True, False])
def test_an_existing_clusters_owner_may_have_seen_to_the_plugin(owner_installs: bool) -> None:
    cluster = {"kind": "existing", "context": "lab", "installDevicePlugin": not owner_installs}
    given = settings()
    given["glm-on-gpus:cluster"] = cluster
    given["glm-on-gpus:nodePools"] = {"h200": {"instanceType": "p5en.48xlarge", "nodes": 2, "efa": True}}
    if owner_installs:
        made = build(parse(given), "test")
        assert (made.efa_plugin_image, made.installs_leader_worker_set) == (None, False)
    else:
        with pytest.raises(ConfigError, match=r"cluster\.efaPluginImage: missing"):
            parse(given)
    given["glm-on-gpus:cluster"] = {**cluster, "efaPluginImage": EFA_PLUGIN, "installLeaderWorkerSet": True}
    made = build(parse(given), "test")
    assert (made.efa_plugin_image, made.installs_leader_worker_set) == (None if owner_installs else EFA_PLUGIN, True)


@pytest.mark.parametrize(
    ("precision", "gpus", "stages", "problem"),
    [
        ("bf16", 16, 1, None),
        ("fp8", 16, 1, None),  # 2048 / 16 = 128 columns of an expert, exactly an FP8 block
        ("fp8", 24, 3, None),
        ("fp8", 32, 2, None),
        ("bf16", 32, 1, None),
        ("fp8", 32, 1, "32 GPUs cut FP8 blocks: 64 columns of an expert on each, and a block has 128"),
        ("nvfp4", 32, 1, None),
        ("fp8", 24, 1, "24 GPUs cannot have the same number of 64 attention heads each"),
        ("fp8", 16, 3, "16 GPUs do not make 3 pipeline stages of equal size"),
    ],
)
def test_how_many_gpus_a_model_divides_among(precision: Precision, gpus: int, stages: int, problem: str | None) -> None:
    assert rank_problem(GLM, precision, gpus, stages) == problem


# --- what follows ----------------------------------------------------------------------------------------------------


def test_the_kind_follows_from_the_nodes_of_a_replica() -> None:
    assert (workload().kind, workload().nodes_per_replica, workload().tensor_parallel_size) == (
        "LeaderWorkerSet",
        2,
        16,
    )
    assert (glm("dev").kind, glm("dev").worker_command) == ("Deployment", ())


RENDEZVOUS = ("--nnodes", "2", "--node-rank", "{}", "--master-addr", "$(LWS_LEADER_ADDRESS)")


def test_the_nodes_of_a_replica_run_one_engine() -> None:
    """vLLM's own multi-node mode: all flags alike but the rank, and only the first node answers."""
    row = workload()
    first, others = (tuple(word.format(rank) for word in RENDEZVOUS) for rank in ("0", "$(LWS_WORKER_INDEX)"))
    wait = ("--distributed-timeout-seconds", str(row.timing.fetch_budget_seconds))
    one = glm("dev").command
    assert row.command[-8:] == (*first, *wait)
    assert row.worker_command == (*row.command[:-8], *others, *wait, "--headless")
    # Beside where they meet, an engine on two nodes is told nothing that one on one node is not.
    assert set(argv.read(row.command).flags) - set(argv.read(one).flags) == {
        *("nnodes", "node-rank", "master-addr", "distributed-timeout-seconds")
    }


def test_both_commands_read_back_as_the_same_workload() -> None:
    row = workload()
    instance = catalogue.instance_type("p5en.48xlarge")
    answering, worker = (
        vars(from_command("glm", words, row.env, row.image, instance)) for words in (row.command, row.worker_command)
    )
    assert {key for key in answering if answering[key] != worker[key]} == {"headless"}
    assert (answering["nodes_per_replica"], answering["tensor_parallel_size"]) == (2, 16)


def test_what_nodes_need_to_talk_over_efa() -> None:
    row = workload()
    fabric = {
        "VLLM_HOST_IP": "$(POD_IP)",
        "NCCL_SOCKET_IFNAME": "eth0",
        "GLOO_SOCKET_IFNAME": "eth0",
        "FI_PROVIDER": "efa",
        "FI_EFA_USE_DEVICE_RDMA": "1",
        "FI_EFA_FORK_SAFE": "1",
        "NCCL_NET": "AWS Libfabric",
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,NET",
    }
    assert {name: row.env[name] for name in row.env.keys() - glm("dev").env.keys()} == fabric
    assert (row.resources.efa_interfaces, row.resources.hugepages_mib) == (16, 5120)
    assert (glm("dev").resources.efa_interfaces, glm("dev").resources.hugepages_mib) == (0, 0)
    assert workload(pool={"instanceType": "p6-b300.48xlarge"}).resources.efa_interfaces == 16


@pytest.mark.parametrize(("nodes", "stages", "ranks"), [(2, 2, 8), (3, 3, 8), (4, 4, 8), (4, 2, 16), (1, 2, 4)])
def test_stages_begin_with_an_indexer(nodes: int, stages: int, ranks: int) -> None:
    row = workload(
        pool={"nodes": nodes}, nodesPerReplica=nodes, pipelineParallelSize=stages, precision="fp8", toolCalling=False
    )
    assert (row.tensor_parallel_size, row.pipeline_parallel_size) == (ranks, stages)
    partition = aligned_partition(GLM, stages)
    assert len(partition) == stages
    assert partition_problem(GLM, partition) is None
    assert row.env["VLLM_PP_LAYER_PARTITION"] == ",".join(map(str, partition))
    assert argv.read(row.command).flags["pipeline-parallel-size"] == str(stages)
    assert violations(row.verdicts) == []


def test_without_stages_nothing_is_said_of_them() -> None:
    assert "VLLM_PP_LAYER_PARTITION" not in workload().env
    assert "--pipeline-parallel-size" not in workload().command


def test_a_node_waits_for_another_that_still_fetches() -> None:
    for checkpoint in catalogue.checkpoints().values():
        one, two = timing(checkpoint, 1), timing(checkpoint, 1, nodes_per_replica=2)
        for name in ("engine_ready_timeout_seconds", "startup_budget_seconds", "progress_deadline_seconds"):
            assert getattr(two, name) - getattr(one, name) == one.fetch_budget_seconds, name
        assert two.startup_budget_seconds > two.engine_ready_timeout_seconds


@pytest.mark.parametrize(
    ("nodes", "replicas", "rollout"),
    [
        (2, 1, Rollout(0, 1, workload().rollout.stops_serving_seconds)),
        # Two spare nodes would take a group, but the controller adds none beside an only one.
        (4, 1, Rollout(0, 1, workload().rollout.stops_serving_seconds)),
        (4, 2, Rollout(0, 1, 0)),
        (5, 2, Rollout(0, 1, 0)),  # one spare node takes no group of two
        (6, 2, Rollout(1, 0, 0)),
    ],
)
def test_a_surge_needs_as_many_spare_nodes_as_a_replica_takes_and_another_replica(
    nodes: int, replicas: int, rollout: Rollout
) -> None:
    assert workload(pool={"nodes": nodes}, replicas=replicas).rollout == rollout


def test_sixteen_ranks_hold_what_eight_do_not() -> None:
    """Summed over the checkpoint's tensors: 90.4 to 90.6 GiB a rank with MTP; some tables come on top."""
    memory = workload().memory
    tables = {term.name: term.gib for term in memory.weights if term.name in {"rope table", "buffers"}}
    assert memory.weights_gib - sum(tables.values()) == pytest.approx(90.5, abs=0.3)
    assert memory.fits
    assert [row.rule for row in plan(nodesPerReplica=1, pool={"nodes": 1}).violations] == ["bf16-one-node"]


def test_the_report_says_what_a_replica_is() -> None:
    lines = as_markdown(plan()).splitlines()
    assert "- replicas: 1 on pool h200, 2 nodes each, tensor parallel size 16" in lines
    rollout = next(line for line in lines if line.startswith("- rollout: "))
    assert rollout.startswith("- rollout: an only group is replaced in place: serving stops for about ")
    assert rollout.endswith(", and stays stopped if the new group fails its checks")
    staged = as_markdown(plan(pipelineParallelSize=2, precision="fp8", pool={"nodes": 6}, replicas=2)).splitlines()
    assert "- replicas: 2 on pool h200, 2 nodes each, tensor parallel size 8, 2 pipeline stages" in staged
    assert "- rollout: the new group starts on spare nodes and proves its answers, then the old one ends" in staged
