"""Rules about parallelism beyond one node's tensor parallelism."""

from __future__ import annotations

from serving.facts import WorkloadFacts
from serving.parallelism import FABRIC_PLUGIN, context_problem, partition_problem
from serving.rules.rule import Outcome, Rule, passed, refused, unknown

# aws-ofi-nccl's names for itself; NCCL compares without case
_FABRIC_NAMES = frozenset({FABRIC_PLUGIN.lower(), "libfabric", "ofi"})
_SHARED_CACHE_HEADS = 32  # MIN_HEADS_FOR_BF16_PREFILL of flashmla_sparse.py, 0.31.0 and 0.33.0
_GLM_COMM_BACKEND = "a2a"  # models/config.py of 0.31.0 sets it for GlmMoeDsaForCausalLM (vllm#50382)


def _pp_split(facts: WorkloadFacts) -> Outcome:
    if facts.pipeline_parallel_size == 1:
        return passed("there is one pipeline stage")
    if facts.checkpoint is None:
        return refused(unknown(facts))
    partition = facts.layer_partition
    if len(partition) != facts.pipeline_parallel_size:
        return refused(
            f"VLLM_PP_LAYER_PARTITION has {len(partition)} parts for {facts.pipeline_parallel_size} pipeline stages"
        )
    problem = partition_problem(facts.checkpoint.architecture, partition)
    shown = ",".join(map(str, partition))
    return (
        refused(f"stages of {shown} layers: {problem}")
        if problem
        else passed(f"stages of {shown} layers begin with an indexer")
    )


def _pp_tools(facts: WorkloadFacts) -> Outcome:
    if facts.pipeline_parallel_size == 1 or facts.tool_call_parser is None:
        return passed("tool calling and pipeline stages are not on together")
    return refused(
        f"tool calls with {facts.pipeline_parallel_size} pipeline stages came out garbled where one stage was right"
    )


def _one_rank(facts: WorkloadFacts) -> Outcome | None:
    return passed("decode context parallel size is 1") if facts.decode_context_parallel_size == 1 else None


def _dcp_028(facts: WorkloadFacts) -> Outcome:
    return _one_rank(facts) or _dcp_fault(facts, "dcp-028", "crashes with it")


def _dcp_029(facts: WorkloadFacts) -> Outcome:
    return _one_rank(facts) or _dcp_fault(facts, "dcp-029", "answers with random tokens and no error")


def _dcp_fault(facts: WorkloadFacts, fault: str, what: str) -> Outcome:
    given = f"decode context parallel size is {facts.decode_context_parallel_size}"
    if facts.engine is None:
        return refused(f"{given}, and {unknown(facts)}")
    if facts.engine.has_fault(fault):
        return refused(f"{given}, and vLLM {facts.engine.version} {what}")
    return passed(f"{given} on vLLM {facts.engine.version}")


def _dcp_any(facts: WorkloadFacts) -> Outcome:
    alone = _one_rank(facts)
    if alone:
        return alone
    given = f"decode context parallel size is {facts.decode_context_parallel_size}"
    if facts.engine is None:
        return refused(f"{given}, and {unknown(facts)}")
    if facts.engine.decode_context_parallel:
        return passed(f"{given}, for which vLLM {facts.engine.version} has all the code")
    return refused(f"{given}, for which vLLM {facts.engine.version} is not known to have all the code")


def _dcp_workspace(facts: WorkloadFacts) -> Outcome:
    alone = _one_rank(facts)
    if alone or facts.hopper:
        return alone or passed(f"the GPU is {facts.gpu.name}")
    given = f"decode context parallel size is {facts.decode_context_parallel_size} on {facts.gpu.name}"
    return refused(f"{given}, where FlashInfer's MLA kernel overflows its workspace")


def _dcp_ranks(facts: WorkloadFacts) -> Outcome:
    alone = _one_rank(facts)
    if alone:
        return alone
    problem = context_problem(facts.tensor_parallel_size, facts.decode_context_parallel_size)
    if problem:
        return refused(f"decode context parallel size {problem}")
    return passed(
        f"decode context parallel size {facts.decode_context_parallel_size} divides tensor parallel size "
        f"{facts.tensor_parallel_size}"
    )


def _dcp_hopper(facts: WorkloadFacts) -> Outcome:
    alone = _one_rank(facts)
    if alone or not facts.hopper:
        return alone or passed(f"the GPU is {facts.gpu.name}")
    if facts.checkpoint is None:
        return refused(unknown(facts))
    heads = facts.checkpoint.architecture.attention_heads // facts.tensor_parallel_size
    if heads >= _SHARED_CACHE_HEADS:
        return refused(
            f"there are {heads} attention heads on each GPU, and FlashMLA's sparse backend shares a cache out with fewer than "
            f"{_SHARED_CACHE_HEADS} only"
        )
    backend = facts.dcp_comm_backend or _GLM_COMM_BACKEND
    given = f"{heads} attention heads on each GPU and dcp_comm_backend {backend}"
    if backend == "ag_rs":
        return passed(given)
    if facts.engine is None:
        return refused(f"{given}, and {unknown(facts)}")
    if facts.engine.dcp_all_to_all_hopper:
        return passed(f"{given}, which vLLM {facts.engine.version} takes")
    default = "" if facts.dcp_comm_backend else ", vLLM's default for this model"
    return refused(
        f"dcp_comm_backend is {backend}{default}, and FlashMLA's sparse backend of vLLM {facts.engine.version} is not known to "
        "take another than ag_rs"
    )


def _nccl_tcp(facts: WorkloadFacts) -> Outcome:
    if facts.nodes_per_replica == 1:
        return passed("one node serves the model")
    asked = facts.variable("NCCL_NET")
    given = f"NCCL_NET is {asked}" if asked else "NCCL_NET is not set"
    if asked and asked.lower() in _FABRIC_NAMES:
        return passed(given)
    return refused(
        f"{given}, so NCCL may take TCP between {facts.nodes_per_replica} nodes, about 28 times slower than EFA"
    )


def _lmcache_pp(facts: WorkloadFacts) -> Outcome:
    connector = facts.kv_connector
    if facts.pipeline_parallel_size == 1 or connector is None or not connector.startswith("LMCache"):
        return passed("LMCache and pipeline stages are not on together")
    return refused(
        f"{connector} with {facts.pipeline_parallel_size} pipeline stages needs what vllm#48236 describes, and no release is "
        "known to have it"
    )


def _lmcache_dcp(facts: WorkloadFacts) -> Outcome:
    connector = facts.kv_connector
    if facts.decode_context_parallel_size == 1 or connector is None or not connector.startswith("LMCache"):
        return passed("LMCache and decode context parallelism are not on together")
    return refused(
        f"{connector} with decode context parallel size {facts.decode_context_parallel_size} takes one rank's cache for the "
        "whole, and each rank has a share of it"
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "pp-split",
        "Every pipeline stage begins with a layer that computes its own index",
        "stale top-k indices and wrong output, without an error",
        "use tensor parallelism over 16 GPUs, or set VLLM_PP_LAYER_PARTITION so that stages begin at layer 2, 6, 10 and so on",
        "vllm#50853, SGLang#28532",
        _pp_split,
    ),
    Rule(
        "pp-tools",
        "Tool calls have one pipeline stage",
        "garbled tool calls",
        "use tensor parallelism only",
        "vllm#46262 (open, on ROCm)",
        _pp_tools,
        level="advisory",
    ),
    Rule(
        "dcp-028",
        "vLLM 0.28 has no decode context parallelism",
        "the engine crashes",
        "set the decode context parallel size to 1, or use vLLM 0.31.0 or later",
        "vllm#54300, vllm#46514",
        _dcp_028,
    ),
    Rule(
        "dcp-029",
        "vLLM 0.29 has no decode context parallelism",
        "random tokens behind a green health check",
        "set the decode context parallel size to 1, or use vLLM 0.31.0 or later",
        "vllm#54300, vllm#53134",
        _dcp_029,
    ),
    Rule(
        "dcp-any",
        "Decode context parallelism has a release that is known to do it right",
        "wrong output or a crash",
        "set the decode context parallel size to 1, or use vLLM 0.31.0 or later with the gate",
        "vllm#53134, vllm#50005, vllm#41623",
        _dcp_any,
    ),
    Rule(
        "dcp-workspace",
        "Decode context parallelism is not on Blackwell",
        "a kernel writes over its workspace",
        "set the decode context parallel size to 1",
        "vllm#50781 (open)",
        _dcp_workspace,
    ),
    Rule(
        "dcp-ranks",
        "Decode context parallel groups divide the tensor parallel ranks",
        "the engine does not start",
        "set the decode context parallel size to a divisor of the tensor parallel size",
        "vLLM source, config/parallel.py of 0.31.0 and 0.33.0",
        _dcp_ranks,
    ),
    Rule(
        "dcp-hopper",
        "Hopper's attention backend takes decode context parallelism as it is set",
        "the engine does not start",
        "use tensor parallel size 4 or more with --dcp-comm-backend ag_rs",
        "vLLM source, flashmla_sparse.py of 0.31.0 and 0.33.0, vllm#46514, vllm#50382",
        _dcp_hopper,
    ),
    Rule(
        "nccl-tcp",
        "NCCL takes no TCP between nodes",
        "every token is about 28 times slower between nodes, without an error",
        f"set NCCL_NET to {FABRIC_PLUGIN}, as the plan does: an image without aws-ofi-nccl then does not start",
        "NCCL 2.28.9 on two H100s, aws-ofi-nccl source, ADAI",
        _nccl_tcp,
        level="advisory",
    ),
    Rule(
        "lmcache-pp",
        "LMCache has one pipeline stage",
        "the connector does not start, or cache that is being read is evicted",
        "use one pipeline stage or another connector",
        "vllm#48236 (open), LMCache#4082",
        _lmcache_pp,
    ),
    Rule(
        "lmcache-dcp",
        "LMCache keeps no cache that ranks share out",
        "no hit, or a part of a cache that is restored as the whole without an error",
        "set the decode context parallel size to 1, or use kvOffloadGiB",
        "LMCache#4030 (open), LMCache#3561 (not merged)",
        _lmcache_dcp,
    ),
)
