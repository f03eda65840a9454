"""What a vLLM command, its image and its machine say about a workload: the one input of every rule.

The plan reads its own rendered command back through `from_command`, so that the program, a policy pack and a reviewer judge
the same thing: the flags that really reach vLLM.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serving import catalogue
from serving.catalogue import Checkpoint, Engine, Gpu, InstanceType
from serving.memory import DEFAULT_GPU_MEMORY_UTILIZATION, MemoryBreakdown, ServingShape, breakdown

# vLLM's defaults where a flag is left out (0.23 to 0.33).
DEFAULT_MAX_NUM_SEQS = 1024
_LARGE_GPU_GIB = 160  # from this size on the API server batches 16,384 tokens instead of 8,192

IMAGE_DIGEST = re.compile(r"^[^@\s]+@sha256:[a-f0-9]{64}$")
MODEL_REVISION = re.compile(r"^[a-f0-9]{40}$")


@dataclass(frozen=True)
class WorkloadFacts:
    """One serving workload as vLLM will see it. None means that the command leaves it to vLLM, or that it is unknown."""

    workload: str
    image: str
    engine: Engine | None
    model: str
    revision: str | None
    checkpoint: Checkpoint | None
    instance: InstanceType
    nodes_per_replica: int
    tensor_parallel_size: int
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    kv_cache_dtype: str
    speculative_tokens: int
    load_format: str
    tool_call_parser: str | None
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def gpu(self) -> Gpu:
        """The GPU of the machine it runs on."""
        return self.instance.gpu

    @property
    def hopper(self) -> bool:
        """Whether it runs on Hopper (H200)."""
        return self.gpu.architecture == "hopper"

    @property
    def mtp(self) -> bool:
        """Whether multi-token prediction is on."""
        return self.speculative_tokens > 0

    @property
    def context_tokens(self) -> int | None:
        """What vLLM will use as maximum length: the flag, or the checkpoint's own limit."""
        if self.max_model_len is not None:
            return self.max_model_len
        return self.checkpoint.architecture.max_position_embeddings if self.checkpoint else None

    @property
    def sequences(self) -> int:
        """What vLLM will use as maximum number of running requests."""
        return DEFAULT_MAX_NUM_SEQS if self.max_num_seqs is None else self.max_num_seqs

    @property
    def shape(self) -> ServingShape | None:
        """The input of the memory model; None while engine or checkpoint is unknown."""
        if self.engine is None or self.checkpoint is None or self.context_tokens is None:
            return None
        return ServingShape(
            checkpoint=self.checkpoint,
            engine=self.engine,
            gpu=self.gpu,
            tensor_parallel_size=self.tensor_parallel_size,
            max_model_len=self.context_tokens,
            max_num_seqs=self.sequences,
            max_num_batched_tokens=self.max_num_batched_tokens,
            kv_cache_dtype=self.kv_cache_dtype,
            speculative_tokens=self.speculative_tokens,
            gpu_memory_utilization=self.gpu_memory_utilization,
        )

    @property
    def memory(self) -> MemoryBreakdown | None:
        """One GPU's memory, term by term; None while engine or checkpoint is unknown."""
        return breakdown(self.shape) if self.shape else None


def flags(command: Sequence[str]) -> dict[str, str]:
    """Return the flags of a vLLM command by name without dashes; a switch has the value `true`."""
    found: dict[str, str] = {}
    words = list(command)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        found[name.replace("_", "-")] = value
    return found


def from_command(
    workload: str,
    command: Sequence[str],
    env: Mapping[str, str],
    image: str,
    instance: InstanceType,
    *,
    engine: Engine | None = None,
    nodes_per_replica: int = 1,
) -> WorkloadFacts:
    """Read a workload's facts from its command, environment and image.

    `engine` is the release if somebody states it; otherwise the image's digest tells, and an unknown digest leaves it None.
    """
    given = flags(command)
    model = _model(command, given)
    default_batch = 16_384 if instance.gpu.usable_gib >= _LARGE_GPU_GIB else 8_192
    return WorkloadFacts(
        workload=workload,
        image=image,
        engine=engine or catalogue.engine_of_image(image),
        model=model,
        revision=given.get("revision"),
        checkpoint=catalogue.checkpoints().get(model),
        instance=instance,
        nodes_per_replica=nodes_per_replica,
        tensor_parallel_size=int(given.get("tensor-parallel-size", "1")),
        max_model_len=_count(given.get("max-model-len")),
        max_num_seqs=_count(given.get("max-num-seqs")),
        max_num_batched_tokens=_count(given.get("max-num-batched-tokens")) or default_batch,
        gpu_memory_utilization=float(given.get("gpu-memory-utilization", DEFAULT_GPU_MEMORY_UTILIZATION)),
        kv_cache_dtype=given.get("kv-cache-dtype", "auto"),
        speculative_tokens=_speculative_tokens(given),
        load_format=given.get("load-format", "auto"),
        tool_call_parser=given.get("tool-call-parser"),
        env=dict(env),
    )


def _model(command: Sequence[str], given: Mapping[str, str]) -> str:
    words = list(command)
    if "serve" in words[:-1] and not words[words.index("serve") + 1].startswith("--"):
        return words[words.index("serve") + 1]
    return given.get("model", "")


def _count(value: str | None) -> int | None:
    """Read a number of tokens or requests; vLLM's `auto` and -1 leave the choice to vLLM."""
    if value is None or value in {"auto", "-1"}:
        return None
    return int(value)


def _speculative_tokens(given: Mapping[str, str]) -> int:
    dotted = given.get("speculative-config.num_speculative_tokens") or given.get(
        "speculative-config.num-speculative-tokens"
    )
    if dotted is not None:
        return int(dotted)
    config = given.get("speculative-config")
    return int(json.loads(config).get("num_speculative_tokens", 0)) if config else 0
