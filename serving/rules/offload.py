"""Rules about KV offload to the host's memory."""

from __future__ import annotations

from serving.facts import WorkloadFacts
from serving.host import ENGINE_SHARED_MEMORY_GIB
from serving.rules.rule import Outcome, Rule, passed, refused

_CONNECTOR = "OffloadingConnector"  # keeps its region in /dev/shm (vllm#50094)
_DOCKERS_SHARED_MEMORY_GIB = 0.0625  # 64 MiB, a container's /dev/shm unless a volume is mounted there


def _offload_shm(facts: WorkloadFacts) -> Outcome:
    if facts.kv_connector != _CONNECTOR:
        return passed(f"{_CONNECTOR} is off")
    there = _DOCKERS_SHARED_MEMORY_GIB if facts.shared_memory_gib is None else facts.shared_memory_gib
    needed = facts.offload_gib + ENGINE_SHARED_MEMORY_GIB
    offloaded = f"{facts.offload_gib:,.0f} GiB of offloaded cache"
    why = f"/dev/shm has {there:g} GiB; {offloaded} and {ENGINE_SHARED_MEMORY_GIB} GiB of vLLM's own go there"
    return passed(why) if needed <= there else refused(why)


def _offload_ghost(facts: WorkloadFacts) -> Outcome:
    if facts.kv_connector != _CONNECTOR:
        return passed(f"{_CONNECTOR} is off")
    if facts.engine is not None and facts.engine.kv_offload_file_unlinked:
        return passed(f"vLLM {facts.engine.version} takes its file out of /dev/shm as soon as all workers have it")
    return refused(
        f"{_CONNECTOR} leaves its file in /dev/shm when the container restarts, and the volume outlives the container: "
        "after some restarts it is full"
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "offload-shm",
        "The offloaded cache fits /dev/shm",
        "the engine does not start, or dies without a word",
        "make the shared memory volume as large as the offloaded cache and 16 GiB, and the pod's memory with it",
        "vllm#50094, vllm#50358, vllm#52496, vllm#52656",
        _offload_shm,
    ),
    Rule(
        "offload-ghost",
        "Files of an earlier engine are removed before the next one starts",
        "a crash loop after some restarts",
        "remove /dev/shm/vllm_offload_*.mmap before the engine starts",
        "syv-ai/qwen38-27b-rtx3090#33",
        _offload_ghost,
        level="advisory",
    ),
)
