"""What a vLLM command, its image, its pod and its machine say about a workload: the one input of every rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.catalogue import Checkpoint, Engine, Gpu, InstanceType
from serving.memory import MemoryBreakdown, ServingShape, breakdown
from serving.parallelism import covers, default_partition

# vLLM's defaults where a flag is left out (0.23 to 0.33).
DEFAULT_MAX_NUM_SEQS = 1024
DEFAULT_ENGINE_READY_SECONDS = 600

IMAGE_DIGEST = re.compile(r"^[^@\s]+@sha256:[a-f0-9]{64}$")
MODEL_REVISION = re.compile(r"^[a-f0-9]{40}$")


def short_digest(image: str) -> str | None:
    """Return the first twelve digits of an image's digest, or None if the image is not pinned by one."""
    return image.rpartition(":")[2][:12] if IMAGE_DIGEST.fullmatch(image) else None


class UnknownFactError(Exception):
    """A fact was asked for that nobody can know; the text is one clause that says why."""


@dataclass(frozen=True)
class HostPath:
    """A volume on the host: its path, and its type ("" if none is given)."""

    path: str
    type: str


@dataclass(frozen=True, eq=False)
class WorkloadFacts:  # noqa: PLW1641 (it holds mappings and has no hash)
    """One serving workload as vLLM will see it. None means that the command leaves it to vLLM.

    `unknown` says, by the name of a field, why nobody can know it: "--max-model-len is not known: LEN comes from a ConfigMap".
    Such a field raises `UnknownFactError` when it is read, whatever it holds, so that a check fails closed exactly where its
    verdict depends on it. One variable is named `env.NAME`; `env` stands for all that `env` does not list.
    """

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
    reasoning_parser: str | None = None
    auto_tool_choice: bool = False
    headless: bool = False
    pipeline_parallel_size: int = 1
    decode_context_parallel_size: int = 1
    dcp_comm_backend: str | None = None
    kv_connector: str | None = None
    offload_gib: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    shared_memory_gib: float | None = None
    memory_limited: bool = False
    host_paths: tuple[HostPath, ...] = ()
    gated: bool = False
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])

    if not TYPE_CHECKING:  # a checker would take it as a type for misspelt names, too

        def __getattribute__(self, name: str) -> object:
            unknown = object.__getattribute__(self, "__dict__").get("unknown", {})
            if name in unknown:
                raise UnknownFactError(unknown[name])
            return object.__getattribute__(self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkloadFacts) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"WorkloadFacts({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def variable(self, name: str) -> str | None:
        """Return the value of an environment variable, None if it is not set; raise `UnknownFactError` if nobody can know."""
        if f"env.{name}" in self.unknown:
            raise UnknownFactError(self.unknown[f"env.{name}"])
        set_here: Mapping[str, str] = vars(self)["env"]
        return set_here[name] if name in set_here else self.env.get(name)

    @property
    def gpu(self) -> Gpu:
        """The GPU of the machine it runs on."""
        return self.instance.gpu

    @property
    def hopper(self) -> bool:
        """Whether it runs on Hopper (H200)."""
        return self.gpu.architecture == "hopper"

    @property
    def ranks(self) -> int:
        """How many GPUs vLLM divides the model among: each tensor parallel rank of each pipeline stage has one."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def gpus(self) -> int:
        """How many GPUs the machines of one replica have."""
        return self.nodes_per_replica * self.instance.gpus

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
    def layer_partition(self) -> tuple[int, ...]:
        """How many layers each pipeline stage has: the variable, or vLLM's own division. Needs a checkpoint."""
        given = self.variable("VLLM_PP_LAYER_PARTITION") if self.pipeline_parallel_size > 1 else None
        if given is not None:
            return tuple(int(part) if part.strip().isdecimal() else 0 for part in given.split(","))
        layers = self.checkpoint.architecture.hidden_layers if self.checkpoint else 0
        return default_partition(layers, self.pipeline_parallel_size)

    @property
    def engine_ready_seconds(self) -> int:
        """How long vLLM waits for its engine to start; 0 for what is no number."""
        given = self.variable("VLLM_ENGINE_READY_TIMEOUT_S")
        if given is None:
            return DEFAULT_ENGINE_READY_SECONDS
        return int(given) if given.isdecimal() else 0

    @property
    def shape(self) -> ServingShape | None:
        """The input of the memory model; None while engine or checkpoint is unknown."""
        if self.engine is None or self.checkpoint is None or self.context_tokens is None:
            return None
        partition = self.layer_partition
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
            pipeline_parallel_size=self.pipeline_parallel_size,
            # What vLLM would not take is rule pp-split's to refuse.
            layer_partition=partition if covers(self.checkpoint.architecture, partition) else None,
            decode_context_parallel_size=self.decode_context_parallel_size,
        )

    @property
    def memory(self) -> MemoryBreakdown | None:
        """One GPU's memory, term by term; None while engine or checkpoint is unknown."""
        return breakdown(self.shape) if self.shape else None
