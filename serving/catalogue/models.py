"""The shapes of the catalogue's rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["fp8", "bf16", "nvfp4"]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]


class Gpu(_Row):
    """One GPU. `usable_gib` is the memory a process sees, in GiB (2^30 bytes)."""

    name: str
    architecture: Literal["hopper", "blackwell"]
    usable_gib: float


class Price(_Row):
    """An on-demand Linux price of a region, in USD per hour, on the day it was read."""

    region: str
    hourly_usd: float
    date: str


class EfaSlot(BaseModel):
    """Where one EFA interface sits: network card and device index on it."""

    model_config = ConfigDict(frozen=True)

    network_card_index: int
    device_index: int


class InstanceType(_Row):
    """An EC2 instance type with its GPUs, host memory (MiB), local NVMe (GB a disk) and network layout."""

    name: str
    gpu: Gpu
    gpus: int
    vcpus: int
    memory_mib: int
    allocatable_cpu_millis: int
    allocatable_memory_mib: int
    max_pods: int
    nvme_disks: int
    nvme_gb_per_disk: int
    network_cards: int
    enis_per_card: int
    efa_on_card_zero: bool
    efa_interfaces_max: int
    availability_zone_ids: tuple[str, ...]
    prices: tuple[Price, ...]

    @property
    def efa_interfaces(self) -> tuple[EfaSlot, ...]:
        """All EFA slots: device 1 of card 0 if that card has EFA, device 0 of every other card."""
        first = (EfaSlot(network_card_index=0, device_index=1),) if self.efa_on_card_zero else ()
        others = tuple(EfaSlot(network_card_index=card, device_index=0) for card in range(1, self.network_cards))
        return (first + others)[: self.efa_interfaces_max]

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that offer this type, from its availability zones."""
        from serving.catalogue import region_of_zone  # noqa: PLC0415 (the regions are another table)

        found = {region_of_zone(zone) for zone in self.availability_zone_ids}
        return tuple(sorted(region for region in found if region))

    @property
    def node_memory_gib(self) -> float:
        """GPU memory of the whole node, in GiB."""
        return self.gpus * self.gpu.usable_gib

    @property
    def shape(self) -> str:
        """`8xH200`, the field's short name."""
        return f"{self.gpus}x{self.gpu.name}"


class SystemInstanceType(_Row):
    """An EC2 instance type without GPUs; memory in MiB."""

    name: str
    vcpus: int
    memory_mib: int


class Architecture(_Row):
    """The layer facts of a model, named as in its config.json where that has a name."""

    name: str
    hidden_layers: int
    hidden_size: int
    dense_intermediate_size: int
    moe_intermediate_size: int
    routed_experts: int
    shared_experts: int
    dense_layers: int
    experts_per_token: int
    attention_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    index_heads: int
    index_head_dim: int
    index_topk: int
    index_topk_freq: int
    index_skip_topk_offset: int
    mtp_layers: int
    vocab_size: int
    max_position_embeddings: int
    fp8_block: int
    tool_call_parser: str
    reasoning_parser: str

    def has_indexer(self, layer: int) -> bool:
        """Whether a layer computes its own top-k index (vLLM 0.33 `models/deepseek_v32/attention.py`)."""
        return max(layer - self.index_skip_topk_offset + 1, 0) % self.index_topk_freq == 0

    @property
    def indexer_layers(self) -> int:
        """How many layers have an indexer of their own: 21 of 78 for GLM-5.2."""
        return sum(self.has_indexer(layer) for layer in range(self.hidden_layers))


class Checkpoint(_Row):
    """A published checkpoint: its size in bytes and the revision that is served unless the stack names another.

    Architecture, `thinking`, its least effort and the first vLLM release that serves it are its model's.
    """

    repository: str
    architecture: Architecture
    model: str
    thinking: Literal["switchable", "always"]
    least_effort: str
    minimum_engine: str
    precision: Precision
    bytes: int
    revision: str | None = None

    @property
    def served_name(self) -> str:
        """The name clients use, in the recipe's form: glm-5.2-fp8."""
        return f"{self.model}-{self.precision}"


class Engine(_Row):
    """A vLLM release: its image digest, if a public one is known, and what matters to GLM-5.2 in it.

    `faults` are the ids of the rules about what has been reported of this very release. `kv_offload_connector` moves KV cache to
    the host's memory; `kv_offload_file_unlinked` says whether its file in /dev/shm goes with the engine, however that ends.
    `dcp_all_to_all_hopper`: FlashMLA's sparse backend takes decode context parallelism with an all-to-all exchange, too.
    """

    version: str
    released: str
    digest: str | None = None
    indexer_cache: Literal["all-layers", "indexer-layers"]
    streaming_tool_parser: bool = False
    runai_streamer_safe: bool = False
    runai_streamer_safe_with_mtp: bool = False
    sparse_decode_scratch_fixed: bool = False
    decode_context_parallel: bool = False
    dcp_all_to_all_hopper: bool = False
    nvfp4_cache: bool = False
    kv_offload_connector: str | None = None
    kv_offload_file_unlinked: bool = False
    faults: frozenset[str] = frozenset()
    prefill_workspace_factor_long: int
    # Twice Hopper's 512 in vLLM 0.31.0 (`config/vllm.py`); where nobody has looked, the larger one: it takes memory.
    capture_limit_blackwell: int = 1024

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers, for comparison: (0, 31, 0)."""
        return _number(self.version)

    def at_least(self, version: str) -> bool:
        """Whether this is a release or a later one."""
        return self.number >= _number(version)

    def has_fault(self, rule: str) -> bool:
        """Whether what a rule is about has been reported of this release."""
        return rule in self.faults


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


class ServeFlags(_Row):
    """The flags of `vllm serve` in one release, each with its aliases, by how many values they take."""

    release: str
    switch: tuple[str, ...]
    negatable: tuple[str, ...]
    value: tuple[str, ...]
    values: tuple[str, ...]
    optional_value: tuple[str, ...]


class Pin(_Row):
    """What a tag of an image is: its digest, and the day (ISO 8601) on which the source was read."""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class OtherImage(_Row):
    """An image other than the engine's. `version` is the tag that a stack deploys; `excluded` tags are not to be pinned."""

    name: str
    repository: str
    version: str | None = None
    digest: str | None = None
    excluded: tuple[str, ...] = ()
    excluded_because: str = ""

    @property
    def reference(self) -> str:
        """`repository@sha256:…`; the version is for people and stays out of the reference."""
        if self.digest is None:
            raise ValueError(f"the catalogue has no digest of image {self.name!r}")
        return f"{self.repository}@{self.digest}"


class KubernetesVersion(_Row):
    """An EKS version, when its standard support ends, and the AMI release for node groups."""

    version: str
    standard_support_ends: str
    ami_release_version: str | None = None


class Pool(_Row):
    """The KV cache pool of a real engine, measured or published: its settings, and the figures it is known by."""

    name: str
    on: Literal["rank", "node"]
    checkpoint: Checkpoint
    engine: Engine
    gpu: Gpu
    tensor_parallel_size: int
    pipeline_parallel_size: int = 1
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_dtype: str
    speculative_tokens: int
    gpu_memory_utilization: float
    kv_gib: float | None = None
    pool_tokens: int | None = None
    full_length_requests: float | None = None
    starts: bool | None = None
    excepted: str | None = None
