"""The series of `/metrics` that a gate, a dashboard or an alert reads, under the names and labels of vLLM 0.32.0."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rehearsal.vllm.faults import Fault
from rehearsal.vllm.request import ChatRequest
from rehearsal.vllm.settings import EngineSettings
from serving.expectations import ACCEPTANCE_LENGTHS

_LABELS = ("model_name", "engine")

_DEAD_ACCEPTANCE = 0.01
_FINISHED = ("stop", "length", "abort", "error", "repetition")


class Metrics:
    """Counters of one engine. Safe to use from several threads."""

    def __init__(self, settings: EngineSettings, fault: Fault | None) -> None:
        self._registry = CollectorRegistry()
        self._labels = (settings.served_names[0], "0")
        self._drafts = settings.speculative_tokens
        self._accepted = _accepted(self._drafts, fault) if self._drafts else 0.0
        self.running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self._counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self._prompt = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self._counter("prompt_tokens_cached", "Number of cached prompt tokens.")
        self._generated = self._counter("generation_tokens", "Number of generation tokens processed.")
        success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            (*_LABELS, "finished_reason"),
            registry=self._registry,
        )
        self._success = {reason: success.labels(*self._labels, reason) for reason in _FINISHED}
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Histogram of time to first token in seconds."
        )
        self._whole = self._histogram("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.")
        self._cache(settings)
        if self._drafts:
            self._speculation()

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"vllm:{name}", meaning, _LABELS, registry=self._registry).labels(*self._labels)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"vllm:{name}", meaning, _LABELS, registry=self._registry).labels(*self._labels)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(f"vllm:{name}", meaning, _LABELS, registry=self._registry).labels(*self._labels)

    def _cache(self, settings: EngineSettings) -> None:
        cache = settings.kv_cache
        labels = {
            "block_size": str(cache.block_size),
            "cache_dtype": cache.dtype,
            "enable_prefix_caching": "True",
            "engine": "0",
            "kv_cache_max_concurrency": str(settings.full_length_requests()),
            "kv_cache_memory_bytes": str(cache.memory_bytes),
            "kv_cache_size_tokens": str(cache.tokens),
            "num_gpu_blocks": str(cache.blocks),
        }
        info = Gauge(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", tuple(labels), registry=self._registry
        )
        info.labels(**labels).set(1)

    def _speculation(self) -> None:
        self._num_drafts = self._counter("spec_decode_num_drafts", "Number of spec decoding drafts.")
        self._num_draft_tokens = self._counter("spec_decode_num_draft_tokens", "Number of draft tokens.")
        self._num_accepted = self._counter("spec_decode_num_accepted_tokens", "Number of accepted tokens.")

    def finished(self, request: ChatRequest, tokens: int, reason: str, first_token: float, whole: float) -> None:
        """Count a request that has ended: tokens of its answer, why it ended, seconds to its first token and in all."""
        self._prompt.inc(request.prompt_tokens)
        self._generated.inc(tokens)
        self._success[reason].inc()
        self._first_token.observe(first_token)
        self._whole.observe(whole)
        if self._drafts:
            drafts = tokens / (1 + self._accepted)
            self._num_drafts.inc(drafts)
            self._num_draft_tokens.inc(drafts * self._drafts)
            self._num_accepted.inc(drafts * self._accepted)

    def text(self) -> bytes:
        """Return the series in Prometheus' text format."""
        return generate_latest(self._registry)


def _accepted(draft_tokens: int, fault: Fault | None) -> float:
    """Return how many draft tokens of a step are accepted in the mean."""
    if fault is Fault.DEAD_MTP:
        return draft_tokens * _DEAD_ACCEPTANCE
    return ACCEPTANCE_LENGTHS[min(draft_tokens, len(ACCEPTANCE_LENGTHS)) - 1] - 1
