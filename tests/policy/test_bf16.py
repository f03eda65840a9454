"""The workload that the pack exists for, as somebody would write it by hand, with the arithmetic that refuses it."""

from __future__ import annotations

import re

import pytest

from tests.fixtures.manifests import Object, in_kind
from tests.fixtures.one_node import DISGUISES, UNDECIDABLE, container, deployment
from tests.fixtures.rule_cases import P5EN, P6_B200, P6_B300
from tests.policy.analyzer import Analyzer


def written_by_hand(machine: str, command: str, *, nodes: int = 1) -> Object:
    row = container(*command.split())
    if nodes == 1:
        return deployment(row, machine=machine)
    spec = {"nodeSelector": {"node.kubernetes.io/instance-type": machine}, "containers": [row]}
    return in_kind("LeaderWorkerSet", spec, size=nodes)


def bf16(pack: Analyzer, body: Object) -> str | None:
    found = {row.policy: row.message for row in pack.analyze(body)}
    return found.get("bf16-one-node")


SERVE = "vllm serve zai-org/GLM-5.2"
REMEDY = "To do: use precision fp8 or nvfp4, 16 GPUs on two nodes, or an 8xB300 pool"


def test_eight_h200_are_too_small(pack: Analyzer) -> None:
    assert bf16(pack, written_by_hand(P5EN, f"{SERVE} --tensor-parallel-size 8")) == (
        "BF16 weights fit their GPUs\ncontainer vllm: BF16 needs 176.2 GiB of weights on each GPU of one 8xH200 node; at "
        "gpu_memory_utilization 0.92 vLLM has 128.6 of 139.8 GiB: 47.6 GiB short before 9.7 GiB of overhead and any KV cache. "
        + REMEDY
    )


def test_eight_b200_are_too_small(pack: Analyzer) -> None:
    assert bf16(pack, written_by_hand(P6_B200, f"{SERVE} --tensor-parallel-size 8")) == (
        "BF16 weights fit their GPUs\ncontainer vllm: BF16 needs 176.3 GiB of weights on each GPU of one 8xB200 node; at "
        "gpu_memory_utilization 0.92 vLLM has 164.7 of 179.1 GiB: 11.5 GiB short before 13.2 GiB of overhead and any KV cache. "
        + REMEDY
    )


@pytest.mark.parametrize(
    ("machine", "command", "nodes"),
    [
        (P5EN, f"{SERVE} --tensor-parallel-size 16", 2),
        (P6_B200, f"{SERVE} --tensor-parallel-size 16", 2),
        (P6_B200, f"{SERVE} --tensor-parallel-size 8 --pipeline-parallel-size 2", 2),
        (P5EN, f"{SERVE} --tensor-parallel-size 16 --nnodes 2 --node-rank 0 --master-addr head", 1),
        (P6_B300, f"{SERVE} --tensor-parallel-size 8", 1),
    ],
)
def test_what_has_the_memory_passes(pack: Analyzer, machine: str, command: str, nodes: int) -> None:
    assert bf16(pack, written_by_hand(machine, command, nodes=nodes)) is None


@pytest.mark.parametrize(
    ("machine", "command", "nodes", "why"),
    [
        (P5EN, f"{SERVE} -tp 8", 2, "BF16 needs 176.2 GiB of weights on each of 8 GPUs of 2 8xH200 nodes"),
        (P5EN, f"{SERVE} -tp 16", 1, "16 ranks are more than the 8 GPUs of one 8xH200 node"),
        (P6_B300, f"{SERVE} -tp 4", 1, "BF16 needs 349.3 GiB of weights on each of 4 GPUs of one 8xB300 node"),
        (P6_B200, SERVE, 1, "BF16 needs "),
    ],
)
def test_ranks_and_gpus_are_counted(pack: Analyzer, machine: str, command: str, nodes: int, why: str) -> None:
    assert why in (bf16(pack, written_by_hand(machine, command, nodes=nodes)) or "")


@pytest.mark.parametrize("key", ["containers", "initContainers", "ephemeralContainers"])
@pytest.mark.parametrize(("machine", "shape"), [(P5EN, "8xH200"), (P6_B200, "8xB200")])
@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguise_is_seen_through(pack: Analyzer, name: str, machine: str, shape: str, key: str) -> None:
    why = bf16(pack, deployment(machine=machine, **{key: [DISGUISES[name]]})) or ""
    assert re.search(rf"vllm: BF16 needs 176\.[23] GiB of weights on each GPU of one {shape} node; ", why)


@pytest.mark.parametrize("name", UNDECIDABLE)
def test_what_cannot_be_decided_is_refused(pack: Analyzer, name: str) -> None:
    found = {row.policy: row for row in pack.analyze(deployment(UNDECIDABLE[name]))}
    refusal = found.get("readable") or found["bf16-one-node"]
    assert refusal.level == "mandatory"
    assert "cannot be judged: " in refusal.message or "the catalogue does not know the checkpoint" in refusal.message
