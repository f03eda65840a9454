"""KV cache in the host's memory: one setting, and what follows in command, pod and report; where it is refused."""

from __future__ import annotations

import json

import pytest

from serving import argv, catalogue
from serving.config import ConfigError
from serving.host import pod_memory_mib
from serving.report import as_markdown
from tests.fixtures.stacks import glm, plan

OFFLOAD = "workloads.glm.kvOffloadGiB={}"


def test_the_connector_of_the_release_gets_the_bytes() -> None:
    flags = argv.read(glm("dev", OFFLOAD.format(512)).command).flags
    # recipes, taxonomy.yaml, offloading_cpu: the same, with 549755813888 bytes over all workers.
    assert json.loads(flags["kv-transfer-config"]) == {
        "kv_connector": "OffloadingConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"cpu_bytes_to_use": 549_755_813_888, "blocks_per_chunk": 4},
    }
    assert "kv-transfer-config" not in argv.read(glm("dev").command).flags


def test_the_volume_grows_by_as_much_and_the_pods_memory_has_room_for_it() -> None:
    """What is written to /dev/shm counts against the memory of the pod, which is the node's share as before."""
    off, on = glm("dev"), glm("dev", OFFLOAD.format(1024))
    assert on.resources.shared_memory_gib - off.resources.shared_memory_gib == 1024
    assert on.resources.memory_mib == off.resources.memory_mib
    assert on.facts.offload_gib == 1024
    by_rule = {verdict.rule.id: verdict.outcome for verdict in on.verdicts}
    assert by_rule["offload-shm"].why == (
        "/dev/shm has 1040 GiB; 1,024 GiB of offloaded cache and 16 GiB of vLLM's own go there"
    )
    assert by_rule["offload-shm"].passed
    assert by_rule["offload-ghost"].passed
    assert on.memory == off.memory


@pytest.mark.parametrize(
    ("gib", "refused"),
    [
        (1174, None),
        (
            1175,
            "Pulumi.dev.yaml: workloads.glm.kvOffloadGiB: 1175 GiB beside 512 GiB for the engine and 16 GiB of its shared memory "
            "are more than the 1702 GiB that a pod has on p5en.48xlarge; at most 1174 fit",
        ),
    ],
)
def test_the_host_has_to_hold_it(gib: int, refused: str | None) -> None:
    if refused is None:
        assert plan("dev", OFFLOAD.format(gib)).violations == []
        return
    with pytest.raises(ConfigError) as error:
        plan("dev", OFFLOAD.format(gib))
    assert error.value.problems == [refused]


@pytest.mark.parametrize(
    ("stack", "overrides", "said"),
    [
        (
            "dev",
            ("workloads.glm.vllmVersion='0.30.0'",),
            "Pulumi.dev.yaml: workloads.glm.kvOffloadGiB: nobody has looked how vLLM 0.30.0 offloads KV cache; leave it out, or "
            "use vllmVersion 0.31.0",
        ),
        (
            "h200-bf16-two-nodes",
            (),
            "Pulumi.h200-bf16-two-nodes.yaml: workloads.glm.kvOffloadGiB: not known to work for an engine on several nodes; "
            "leave it out",
        ),
        (
            "dev",
            ("workloads.glm.kvOffloadGiB=0",),
            "Pulumi.dev.yaml: workloads.glm.kvOffloadGiB: 0 is not allowed; expected a whole number of GiB of host memory from 1 "
            "to 4096 that hold KV cache which the GPUs have no room for; none if left out",
        ),
    ],
)
def test_where_it_is_refused(stack: str, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan(stack, OFFLOAD.format(64), *overrides)
    assert error.value.problems == [said]


def test_the_report_says_what_it_is_for() -> None:
    lines = as_markdown(plan("dev", OFFLOAD.format(512))).splitlines()
    # 54,728 bytes a token on each of eight ranks; a copy for each was stored in every published run.
    tokens = 549_755_813_888 // (54_728 * 8)
    assert f"- KV offload: 512 GiB of host memory for what was computed before, {tokens:,} tokens or more" in lines
    assert not any("KV offload" in line for line in as_markdown(plan("dev")).splitlines())


def test_every_machine_has_room_for_some() -> None:
    for instance in catalogue.instance_types().values():
        assert pod_memory_mib(instance) // 1024 - 512 - 16 >= 1024, instance.name
