"""The one timing model: everything that waits for a load, a gate or a drain is derived here, in seconds.

fetch + load + engine start -> VLLM_ENGINE_READY_TIMEOUT_S <= startup probe budget
An engine on several nodes is ready when the last of them is: one may still fetch when another begins to start.
startup probe budget + two runs of the gate <= progressDeadlineSeconds -> Pulumi's customTimeouts
preStop + --shutdown-timeout + margin = terminationGracePeriodSeconds <= a node's drain (15 minutes)
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.catalogue import Checkpoint

# 755 GB in 141 shards with the default loader took 10 m 20 s on 8xB200 under Kubernetes (vllm#46367).
_LOAD_BYTES_PER_SECOND = 755e9 / 620

# A first download from Hugging Face took 30 to 60 minutes for ~680 GB on p5en (awslabs awsome-distributed-ai); a tuned one
# 13 minutes. The slow end is the budget, the fast end what the timeline shows.
_FETCH_BYTES_PER_SECOND_SLOW = 680e9 / 3600
_FETCH_BYTES_PER_SECOND_FAST = 755e9 / (13 * 60)

# SHA-256 of every file, sixteen at a time, at 1 GB/s in all: a budget. A single core with SHA extensions does more.
_VERIFY_BYTES_PER_SECOND = 1e9

_ENGINE_START_SECONDS = 375  # cold caches (sc13912/eks-vllm-glm52-dlc-fsx); 60 with warm ones

# Three times the expected start: 49 minutes for the FP8 checkpoint. Published budgets for it are 45 (llm-d's manifest)
# and 50 minutes (smg-project/smg#2552).
_START_FACTOR = 3

_PROBE_PERIOD_SECONDS = 10
_AFTER_ENGINE_TIMEOUT_SECONDS = 60  # vLLM's own words about a start that timed out come before the kubelet's kill
_SCHEDULING_SECONDS = 300  # image pull and scheduling before the first container runs

# The gate's own bound on engine time (docs/gate.md). Five times that is its deadline: first requests may compile kernels.
_GATE_ENGINE_SECONDS = 60
_GATE_DEADLINE_FACTOR = 5
_GATE_REQUEST_SECONDS = 120

# Prefill of one long text: 100k tokens in 12.4 s on an H200. It slows down with length, so an eighth is the budget.
_PREFILL_TOKENS_PER_SECOND = 8_000
_PREFILL_FACTOR = 8

# A run that fails for its time alone, since the engine compiled, passes when the kubelet starts the gate again.
GATE_RUNS = 2
_GATE_BACK_OFF_SECONDS = 30  # the kubelet's first waits are 10 and 20 seconds

_PRE_STOP_SECONDS = 15  # until endpoints have forgotten the pod (llm-d's drain component)
_SHUTDOWN_TIMEOUT_SECONDS = 300  # vLLM finishes running requests (vLLM blog; llm-d uses 45)
_DRAIN_MARGIN_SECONDS = 30
NODE_DRAIN_SECONDS = 15 * 60  # EKS evicts for 15 minutes, then the update fails


@dataclass(frozen=True)
class Timing:
    """Seconds, for one workload. Expected times feed the timeline, budgets feed Kubernetes and Pulumi."""

    expected_fetch_seconds: int
    expected_load_seconds: int
    expected_engine_start_seconds: int
    expected_gate_seconds: int
    fetch_budget_seconds: int
    engine_ready_timeout_seconds: int
    startup_probe_period_seconds: int
    startup_probe_failures: int
    gate_request_seconds: int
    gate_deadline_seconds: int
    gate_budget_seconds: int
    progress_deadline_seconds: int
    await_seconds: int
    pre_stop_seconds: int
    shutdown_timeout_seconds: int
    termination_grace_period_seconds: int
    delete_seconds: int

    @property
    def startup_budget_seconds(self) -> int:
        """How long the startup probe lets the engine take."""
        return self.startup_probe_period_seconds * self.startup_probe_failures

    @property
    def expected_start_seconds(self) -> int:
        """From an empty node to the first traffic, as expected."""
        return self.expected_fetch_seconds + self.expected_restart_seconds

    @property
    def expected_restart_seconds(self) -> int:
        """From a stopped pod to the first traffic when the weights are on the node."""
        return self.expected_load_seconds + self.expected_engine_start_seconds + self.expected_gate_seconds


def expected_start_seconds(checkpoint: Checkpoint) -> int:
    """Return how long an engine takes to load and start when the weights are on the node, in seconds."""
    return _load_seconds(checkpoint) + _ENGINE_START_SECONDS


def _load_seconds(checkpoint: Checkpoint) -> int:
    return round(checkpoint.bytes / _LOAD_BYTES_PER_SECOND)


def timing(checkpoint: Checkpoint, replicas: int, long_needle_tokens: int = 0, nodes_per_replica: int = 1) -> Timing:
    """Return the times of a workload. Replicas are replaced one after the other, so the await counts each.

    `long_needle_tokens` is the length of the gate's optional longer needle.
    """
    load = _load_seconds(checkpoint)
    fetch = _up_to_minute(checkpoint.bytes / _FETCH_BYTES_PER_SECOND_SLOW + checkpoint.bytes / _VERIFY_BYTES_PER_SECOND)
    others = fetch if nodes_per_replica > 1 else 0
    engine_ready = _up_to_minute(_START_FACTOR * (load + _ENGINE_START_SECONDS)) + others
    startup = engine_ready + _AFTER_ENGINE_TIMEOUT_SECONDS
    long_needle = long_needle_tokens / _PREFILL_TOKENS_PER_SECOND
    gate = _up_to_minute(_GATE_DEADLINE_FACTOR * _GATE_ENGINE_SECONDS + _PREFILL_FACTOR * long_needle)
    gate_budget = GATE_RUNS * (gate + _GATE_BACK_OFF_SECONDS)
    progress = _SCHEDULING_SECONDS + fetch + startup + gate_budget
    grace = _PRE_STOP_SECONDS + _SHUTDOWN_TIMEOUT_SECONDS + _DRAIN_MARGIN_SECONDS
    return Timing(
        expected_fetch_seconds=round(checkpoint.bytes / _FETCH_BYTES_PER_SECOND_FAST),
        expected_load_seconds=load,
        expected_engine_start_seconds=_ENGINE_START_SECONDS,
        expected_gate_seconds=round(_GATE_ENGINE_SECONDS + long_needle),
        fetch_budget_seconds=fetch,
        engine_ready_timeout_seconds=engine_ready,
        startup_probe_period_seconds=_PROBE_PERIOD_SECONDS,
        startup_probe_failures=startup // _PROBE_PERIOD_SECONDS,
        gate_request_seconds=_GATE_REQUEST_SECONDS,
        gate_deadline_seconds=gate,
        gate_budget_seconds=gate_budget,
        progress_deadline_seconds=progress,
        await_seconds=replicas * (progress + grace),
        pre_stop_seconds=_PRE_STOP_SECONDS,
        shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT_SECONDS,
        termination_grace_period_seconds=grace,
        delete_seconds=grace + _SCHEDULING_SECONDS,
    )


def _up_to_minute(seconds: float) -> int:
    return int(-(-seconds // 60)) * 60
