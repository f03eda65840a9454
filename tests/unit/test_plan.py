"""What a plan derives from a stack file: memory, requests, strategy, pods, nodes, cost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import catalogue
from serving.__main__ import ACCEPTED, REFUSED, main
from serving.config import parse
from serving.memory import decode_scratch_gib, largest_captured_batch
from serving.plan import Plan, Rollout, build, derived_max_num_seqs
from serving.report import as_json, as_markdown
from tests.fixtures.stacks import ROOT, glm, plan


def run_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stack: str, *overrides: str
) -> tuple[int, dict[str, Any], str]:
    """Return exit code, plan and stderr of `python -m serving plan --format json`."""
    monkeypatch.chdir(ROOT)
    sets = [word for override in overrides for word in ("--set", override)]
    code = main(["plan", "--stack", stack, "--format", "json", *sets])
    output = capsys.readouterr()
    return code, json.loads(output.out), output.err


# --- the two stacks ------------------------------------------------------------------------------------------------


def test_prod(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, found, said = run_json(capsys, monkeypatch, "prod")
    assert (code, said, found["violations"]) == (ACCEPTED, "", [])
    assert found["stack"] == "prod"
    # Karpenter's price list, us-east-1, 2026-07-20: 113.9328 USD an hour for each p6-b200.48xlarge.
    assert found["hourlyUsd"] == pytest.approx(2 * 113.9328)
    assert found["nodePools"] == {
        "b200": {
            "instanceType": "p6-b200.48xlarge",
            "nodes": 2,
            "desiredNodes": 2,
            "capacityBlock": {
                "reservationId": "cr-0123456789abcdef0",
                "phase": "active",
                "startsAt": None,
                "endsAt": None,
            },
            "gpusPerNode": 8,
            "hourlyUsd": pytest.approx(2 * 113.9328),
            "price": "on-demand list price of us-east-1, 2026-07-20 (Karpenter's AWS provider price list); "
            "a Capacity Block is paid up front at its own market price",
        }
    }
    row = found["workloads"]["glm"]
    assert (row["replicas"], row["nodesPerReplica"], row["tensorParallelSize"]) == (2, 1, 8)
    assert row["memory"]["kvBytesPerToken"] == 48_408  # fp8_e4m3 with MTP on 0.24 and later
    assert row["memory"]["maxModelLen"] == 1_048_576
    assert row["memory"]["kvPoolTokens"] >= 1_048_576
    assert 1 <= row["memory"]["fullLengthRequests"] < 2  # vllm#46654


def test_dev(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, found, said = run_json(capsys, monkeypatch, "dev")
    assert (code, said, found["violations"]) == (ACCEPTED, "", [])
    assert found["hourlyUsd"] == 63.296  # Karpenter's price list, us-east-1, 2026-07-20
    row = found["workloads"]["glm"]
    assert (row["replicas"], row["nodesPerReplica"], row["tensorParallelSize"]) == (1, 1, 8)
    assert row["memory"]["kvBytesPerToken"] == 54_728  # fp8 (fp8_ds_mla) with MTP on 0.24 and later
    assert row["memory"]["maxModelLen"] == 131_072
    assert row["memory"]["usableGiB"] == 139.8


# The interface for other programs: exactly these keys.
def test_json_keys(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for stack in ("dev", "prod"):
        _, found, _ = run_json(capsys, monkeypatch, stack)
        assert set(found) == {"stack", "hourlyUsd", "nodePools", "workloads", "violations", "advice"}
        for pool in found["nodePools"].values():
            assert set(pool) == {
                *("instanceType", "nodes", "desiredNodes", "gpusPerNode", "capacityBlock", "hourlyUsd", "price"),
            }
        for row in found["workloads"].values():
            assert set(row) == {
                *("checkpoint", "revision", "image", "engineVersion", "nodePool", "replicas", "nodesPerReplica"),
                *("kvOffloadGiB", "decodeContextParallelSize"),
                *("kind", "tensorParallelSize", "pipelineParallelSize", "command", "workerCommand", "env"),
                *("memory", "rollout", "timing", "expectations"),
            }
            assert set(row["rollout"]) == {"maxSurge", "maxUnavailable", "stopsServingSeconds"}
            assert set(row["memory"]) == {
                *("usableGiB", "weightsGiB", "overheadGiB", "kvPoolGiB", "kvBytesPerToken", "kvPoolTokens"),
                *("maxModelLen", "maxNumSeqs", "fullLengthRequests", "freeGiB"),
            }


def test_json_of_a_violation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, found, _ = run_json(capsys, monkeypatch, "dev", "workloads.glm.revision=main")
    assert found["violations"] == [
        {
            "rule": "model-revision",
            "workload": "glm",
            "message": "revision 'main' is not a commit for zai-org/GLM-5.2-FP8; expected 40 hexadecimal digits",
            "remedy": "set revision to a commit of the model's repository, or leave it out for the catalogue's",
            "source": "cookbook",
        }
    ]


# --- what is refused and what is not -------------------------------------------------------------------------------


def rules_of(found: dict[str, Any]) -> list[str]:
    return [violation["rule"] for violation in found["violations"]]


def test_a_million_tokens_on_h200_are_refused_with_the_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found, said = run_json(capsys, monkeypatch, "dev", "workloads.glm.maxModelLen=1048576")
    assert code == REFUSED
    assert rules_of(found) == ["fit", "h200-len"]
    fit = found["violations"][0]["message"]
    # 53.45 GiB is what vLLM 0.26.0 itself names for this length on an H200.
    assert fit.startswith(
        "one request of 1,048,576 tokens needs 53.45 GiB of KV cache on each GPU (54,728 B a token); "
    )
    memory = found["workloads"]["glm"]["memory"]
    assert f"= {memory['kvPoolGiB']:.1f} GiB, of which 1 GiB stays as margin" in fit
    assert memory["fullLengthRequests"] < 1
    assert said.startswith(
        "stack dev is refused:\n  workloads.glm: fit: one request of 1,048,576 tokens needs 53.45 GiB"
    )


EFA_PLUGIN = f"plugins.example/efa@sha256:{'e' * 64}"

# B300 pools in the zone of the real stacks, which offers them.
B200_POOL = "nodePools.h200.instanceType=p6-b200.48xlarge"
BF16 = "workloads.glm.precision=bf16"


@pytest.mark.parametrize(
    ("stack", "overrides", "shape"),
    [
        pytest.param("dev", (BF16,), "8xH200", id="dev"),
        pytest.param("prod", (BF16,), "8xB200", id="prod"),
        pytest.param("dev", (BF16, B200_POOL), "8xB200", id="dev-on-b200"),
        pytest.param("prod", (BF16, "workloads.glm.maxModelLen=1024"), "8xB200", id="prod-with-a-short-context"),
    ],
)
def test_bf16_on_one_node_is_refused(
    stack: str,
    overrides: tuple[str, ...],
    shape: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, found, _ = run_json(capsys, monkeypatch, stack, *overrides)
    assert (code, rules_of(found)) == (REFUSED, ["bf16-one-node"])
    message = found["violations"][0]["message"]
    weights = found["workloads"]["glm"]["memory"]["weightsGiB"]
    assert message.startswith(f"BF16 needs {weights:.1f} GiB of weights on each GPU of one {shape} node; ")
    assert "GiB short before" in message


@pytest.mark.parametrize(
    ("stack", "override"),
    [
        ("prod", "nodePools.b200.instanceType=p6-b300.48xlarge"),
        ("dev", "nodePools.h200.instanceType=p6-b300.48xlarge"),
    ],
)
def test_bf16_on_8xb300_is_accepted(
    stack: str, override: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found, said = run_json(capsys, monkeypatch, stack, BF16, override)
    assert (code, rules_of(found), said) == (ACCEPTED, [], "")
    assert found["workloads"]["glm"]["checkpoint"] == "zai-org/GLM-5.2"
    assert found["workloads"]["glm"]["memory"]["fullLengthRequests"] >= 1


def test_nvfp4_is_for_blackwell() -> None:
    assert [row.rule for row in plan("dev", "workloads.glm.precision=nvfp4").violations] == ["nvfp4-hopper"]
    assert plan("prod", "workloads.glm.precision=nvfp4").violations == []


def test_an_own_image_of_a_release_without_a_public_digest() -> None:
    own = f"registry.example.com/vllm@sha256:{'5' * 64}"
    found = plan("prod", 'workloads.glm.vllmVersion="0.33.0"', f"workloads.glm.image={own}")
    assert found.violations == []
    assert (found.workloads["glm"].image, found.workloads["glm"].engine_version) == (own, "0.33.0")
    # The smaller prefill workspace of 0.33 leaves more for the cache.
    assert found.workloads["glm"].memory.kv_pool_gib > glm("prod").memory.kv_pool_gib + 3


def test_a_workload_that_every_figure_of_is_refused_is_still_planned_whole() -> None:
    found = plan("dev", BF16, "workloads.glm.image=vllm/vllm-openai", "workloads.glm.revision=main")
    assert [row.rule for row in found.violations] == ["bf16-one-node", "image-digest", "model-revision"]
    assert found.workloads["glm"].memory.kv_pool_gib < 0
    assert found.workloads["glm"].memory.kv_pool_tokens == 0
    assert found.workloads["glm"].command


@given(
    machine=st.sampled_from(["p5en.48xlarge", "p6-b200.48xlarge", "p6-b300.48xlarge"]),
    precision=st.sampled_from(["fp8", "bf16", "nvfp4"]),
    max_model_len=st.integers(1024, 1_048_576),
    utilization=st.integers(1, 1000).map(lambda thousandths: thousandths / 1000),
    speculative_tokens=st.integers(0, 8),
    cache=st.sampled_from(["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_ds_mla", "nvfp4_ds_mla"]),
)
def test_whatever_the_settings_allow_is_planned_and_reported(
    *, machine: str, precision: str, max_model_len: int, utilization: float, speculative_tokens: int, cache: str
) -> None:
    found = plan(
        "prod",
        f"nodePools.b200.instanceType={machine}",
        f"workloads.glm.precision={precision}",
        f"workloads.glm.maxModelLen={max_model_len}",
        f"workloads.glm.gpuMemoryUtilization={utilization}",
        f"workloads.glm.speculativeTokens={speculative_tokens}",
        f"workloads.glm.kvCacheDtype={cache}",
    )
    shown = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert shown["workloads"]["glm"]["memory"]["maxModelLen"] == max_model_len
    # What the fit rule says is what the memory says, unless BF16 weights leave no pool at all.
    refused = {violation.rule for violation in found.violations}
    assert ("fit" in refused) is (not found.workloads["glm"].memory.fits and "bf16-one-node" not in refused)
    assert as_markdown(found).startswith(f"# Plan of stack prod: {'refused' if refused else 'accepted'}\n")


# --- requests at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stack", "requests"), [("dev", 128), ("prod", 128)])
def test_requests_are_derived_from_graph_and_scratch(stack: str, requests: int) -> None:
    # MTP 3: 512 captured tokens are 128 requests of four tokens, and 128 x 4 x 1,048,576 x 4 B are exactly 2 GiB.
    assert glm(stack).max_num_seqs == requests


@given(st.integers(0, 8), st.integers(1024, 1_048_576))
def test_derived_requests_are_the_most_that_are_safe(speculative_tokens: int, max_model_len: int) -> None:
    requests = derived_max_num_seqs(speculative_tokens, max_model_len)
    step = 1 + speculative_tokens
    assert decode_scratch_gib(requests, speculative_tokens, max_model_len) <= 2.0
    assert requests * step <= largest_captured_batch(speculative_tokens)
    one_more = decode_scratch_gib(requests + 1, speculative_tokens, max_model_len)
    assert one_more > 2.0 or (requests + 1) * step > largest_captured_batch(speculative_tokens)


@pytest.mark.parametrize("requests", [1, 48, 682])
def test_requests_of_the_stack_file_are_kept(requests: int) -> None:
    workload = glm("dev", f"workloads.glm.maxNumSeqs={requests}")
    assert workload.max_num_seqs == requests
    assert workload.command[workload.command.index("--max-num-seqs") + 1] == str(requests)
    assert workload.env["VLLM_MAX_N_SEQUENCES"] == str(requests)


# --- rollout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stack", "overrides", "surge", "unavailable", "stops"),
    [
        pytest.param("dev", (), 0, 1, True, id="one-replica-one-node"),
        pytest.param("prod", (), 0, 1, False, id="two-replicas-two-nodes"),
        pytest.param("dev", ("nodePools.h200.nodes=2",), 1, 0, False, id="one-replica-a-spare-node"),
        pytest.param("prod", ("nodePools.b200.nodes=3",), 1, 0, False, id="two-replicas-a-spare-node"),
        pytest.param("prod", ("workloads.glm.replicas=1",), 1, 0, False, id="half-the-pool"),
    ],
)
def test_the_rollout_follows_from_spare_nodes(
    stack: str, overrides: tuple[str, ...], surge: int, unavailable: int, stops: bool
) -> None:
    workload = glm(stack, *overrides)
    times = workload.timing
    seconds = times.termination_grace_period_seconds + times.expected_restart_seconds if stops else 0
    assert workload.rollout == Rollout(surge, unavailable, seconds)


def test_a_neighbour_takes_the_spare_node_away() -> None:
    chat = "workloads.chat={nodePool: b200, precision: fp8, replicas: 1, maxModelLen: 131072}"
    found = plan("prod", "workloads.glm.replicas=1", chat)
    assert {(row.rollout.max_surge, row.rollout.stops_serving_seconds > 0) for row in found.workloads.values()} == {
        (0, True)
    }


# --- nodes and pods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stack", "capacity", "kind", "reservation"),
    [
        ("dev", None, "onDemand", None),
        ("prod", None, "capacityBlock", "cr-0123456789abcdef0"),
        ("dev", "{kind: reservation, reservationId: cr-aaaaaaaaaaaaaaaaa}", "reservation", "cr-aaaaaaaaaaaaaaaaa"),
        ("prod", "{kind: onDemand}", "onDemand", None),
    ],
)
def test_capacity(stack: str, capacity: str | None, kind: str, reservation: str | None) -> None:
    pool_name = {"dev": "h200", "prod": "b200"}[stack]
    overrides = [f"nodePools.{pool_name}.capacity={capacity}"] if capacity else []
    pool = plan(stack, *overrides).node_pools[pool_name]
    assert (pool.capacity, pool.reservation_id) == (kind, reservation)


def test_a_pool_of_the_dev_stack() -> None:
    pool = plan("dev").node_pools["h200"]
    assert (pool.instance.name, pool.nodes, pool.zone_id) == ("p5en.48xlarge", 1, "use1-az6")
    assert pool.labels == {
        "nvidia.com/gpu.present": "true",
        "accelerator.nvidia.com/class": "h200-8gpu",
        "glm-on-gpus/node-pool": "h200",
    }
    assert pool.taint == ("nvidia.com/gpu", "present")
    assert pool.ami_release_version == catalogue.kubernetes_version("1.36").ami_release_version
    assert pool.efa_slots == ()  # one node's eight GPUs talk over NVLink


def test_efa_takes_every_slot_of_the_machine() -> None:
    pool = plan("dev", "nodePools.h200.efa=true", f"cluster.efaPluginImage={EFA_PLUGIN}").node_pools["h200"]
    assert len(pool.efa_slots) == 16


@pytest.mark.parametrize(("stack", "machine_class"), [("dev", "h200-8gpu"), ("prod", "b200-8gpu")])
def test_a_replica_selects_its_pool_and_takes_the_whole_machine(stack: str, machine_class: str) -> None:
    workload = glm(stack)
    assert workload.node_selector == {
        "accelerator.nvidia.com/class": machine_class,
        "glm-on-gpus/node-pool": workload.node_pool,
    }
    machine = plan(stack).node_pools[workload.node_pool].instance
    assert workload.resources.gpus == machine.gpus == workload.tensor_parallel_size
    # The kubelet's daemons need their share: what a replica asks for is less than what a node offers, yet more than half,
    # so that no second replica fits.
    assert machine.allocatable_memory_mib / 2 < workload.resources.memory_mib < machine.allocatable_memory_mib
    assert machine.allocatable_cpu_millis / 2 < workload.resources.cpu_millis < machine.allocatable_cpu_millis


def existing_cluster() -> Plan:
    return build(
        parse(
            {
                "glm-on-gpus:cluster": {"kind": "existing", "context": "lab"},
                "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5e.48xlarge", "nodes": 1}},
                "glm-on-gpus:workloads": {
                    "glm": {"nodePool": "h200", "precision": "fp8", "replicas": 1, "maxModelLen": 131_072}
                },
            }
        ),
        "lab",
    )


def test_on_an_existing_cluster_a_replica_selects_the_class_that_its_owner_labels() -> None:
    found = existing_cluster()
    assert found.workloads["glm"].node_selector == {"accelerator.nvidia.com/class": "h200-8gpu"}
    pool = found.node_pools["h200"]
    assert (pool.capacity, pool.zone_id, pool.ami_release_version) == (None, None, None)


# --- cost ----------------------------------------------------------------------------------------------------------


def test_cost_of_a_pool_says_what_its_figure_is() -> None:
    price = "on-demand list price of us-east-1, 2026-07-20 (Karpenter's AWS provider price list)"
    assert plan("dev").node_pools["h200"].cost.note == price
    assert plan("prod").node_pools["b200"].cost.note == (
        f"{price}; a Capacity Block is paid up front at its own market price"
    )


def test_cost_of_a_month_is_730_hours() -> None:
    cost = plan("dev").cost
    assert cost.monthly_usd == pytest.approx(63.296 * 730)
    assert cost.note == "GPU nodes only: control plane, system nodes, NAT and traffic come on top"


def test_cost_in_a_region_without_a_known_price() -> None:
    overrides = [
        "aws:region=us-east-2",
        "cluster.availabilityZoneIds=[use2-az1, use2-az2]",
        "nodePools.b200.availabilityZoneId=use2-az1",
    ]
    cost = plan("prod", *overrides).node_pools["b200"].cost
    assert cost.note == (
        "on-demand list price of us-east-1, 2026-07-20 (Karpenter's AWS provider price list); none is known for us-east-2; "
        "a Capacity Block is paid up front at its own market price"
    )


def test_cost_of_a_type_without_any_known_price_is_unknown_and_not_nothing() -> None:
    found = existing_cluster()  # p5e
    assert found.cost.hourly_usd is None
    assert found.cost.monthly_usd is None
    assert found.node_pools["h200"].cost.note == "no list price of p5e.48xlarge is known"


def test_cost_of_several_pools_adds_up() -> None:
    second = (
        "nodePools.h200={instanceType: p5en.48xlarge, nodes: 1, availabilityZoneId: use1-az6, "
        "capacity: {kind: onDemand}}"
    )
    assert plan("prod", second).cost.hourly_usd == pytest.approx(2 * 113.9328 + 63.296)
