"""The JSON of `python -m serving plan`, read back: what two versions of this program can compare.

A base is planned by its own code, which may be older. So what was added to the JSON later is optional here, and what is not
compared is left unread.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Row(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_alias=True, validate_by_name=False
    )


class Pool(_Row):
    """A node pool; `hourly_usd` is None where no list price is known."""

    instance_type: str
    nodes: int
    desired_nodes: int | None = None
    gpus_per_node: int
    hourly_usd: float | None
    price: str | None = None


class Memory(_Row):
    """One GPU's memory in GiB, and what it holds in tokens and requests."""

    weights_gib: float = Field(alias="weightsGiB")
    overhead_gib: float = Field(alias="overheadGiB")
    kv_pool_gib: float = Field(alias="kvPoolGiB")
    free_gib: float | None = Field(default=None, alias="freeGiB")
    kv_pool_tokens: int
    max_model_len: int
    max_num_seqs: int
    full_length_requests: float


class Rollout(_Row):
    """How pods are replaced."""

    max_surge: int
    stops_serving_seconds: int


class Timing(_Row):
    """Expected times in seconds."""

    expected_fetch_seconds: int
    expected_load_seconds: int
    expected_engine_start_seconds: int

    @property
    def restart_seconds(self) -> int:
        """From a stopped pod to the first answer when the weights are on the node."""
        return self.expected_load_seconds + self.expected_engine_start_seconds

    @property
    def start_seconds(self) -> int:
        """From an empty node to the first answer."""
        return self.expected_fetch_seconds + self.restart_seconds


class Workload(_Row):
    """A model served by vLLM."""

    checkpoint: str
    revision: str
    image: str
    engine_version: str
    node_pool: str | None = None
    replicas: int
    nodes_per_replica: int
    tensor_parallel_size: int
    command: tuple[str, ...]
    env: Mapping[str, str]
    memory: Memory
    rollout: Rollout | None = None
    timing: Timing


class Finding(_Row):
    """A rule that a workload did not pass."""

    rule: str
    workload: str
    message: str
    remedy: str
    source: str


class Planned(_Row):
    """A planned stack."""

    stack: str
    hourly_usd: float | None
    node_pools: Mapping[str, Pool]
    workloads: Mapping[str, Workload]
    violations: tuple[Finding, ...]
    advice: tuple[Finding, ...] = ()
