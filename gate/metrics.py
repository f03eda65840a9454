"""What the engine says of itself in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gate.client import CheckFailedError, shorten

PATH = "/metrics"


@dataclass(frozen=True)
class Speculation:
    """Draft tokens and how many of them were accepted, since the engine started."""

    draft_tokens: int
    accepted_tokens: int

    def since(self, earlier: Speculation) -> Speculation:
        """Return what has come since an earlier reading."""
        return Speculation(self.draft_tokens - earlier.draft_tokens, self.accepted_tokens - earlier.accepted_tokens)

    @property
    def acceptance(self) -> float:
        """The share of draft tokens that was accepted, 0 if there were none."""
        return self.accepted_tokens / self.draft_tokens if self.draft_tokens else 0.0


@dataclass(frozen=True)
class EngineMetrics:
    """One reading. `kv_cache_tokens` is None where the engine does not say, `speculation` where it does not speculate."""

    kv_cache_tokens: int | None
    speculation: Speculation | None


def read(text: str) -> EngineMetrics:
    """Read the engine's metrics; of several engines behind one port the smallest cache counts."""
    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        tokens = [_tokens(sample) for sample in samples if sample.name == "vllm:cache_config_info"]
        drafts = list(_values(samples, "vllm:spec_decode_num_draft_tokens_total"))
        accepted = list(_values(samples, "vllm:spec_decode_num_accepted_tokens_total"))
    except ValueError as error:
        raise CheckFailedError(f"the metrics cannot be read: {error}", f"GET {PATH}", shorten(text, 300)) from None
    return EngineMetrics(
        min(tokens, default=None),
        Speculation(round(sum(drafts)), round(sum(accepted))) if drafts else None,
    )


def _tokens(sample: Sample) -> int:
    """Return the cache's size. vLLM 0.31.0 names it, and counts every rank's share; before that it is blocks times their size."""
    labels = sample.labels
    if "kv_cache_size_tokens" in labels:
        return int(labels["kv_cache_size_tokens"])
    return int(labels.get("num_gpu_blocks", "0")) * int(labels.get("block_size", "0"))


def _values(samples: list[Sample], name: str) -> Iterator[float]:
    return (sample.value for sample in samples if sample.name == name)
