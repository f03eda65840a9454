"""Reads a workload's facts from its command, environment and image, and from what its pod says beside them.

The plan reads its own rendered command back, so that the program, a policy pack and a reviewer judge the same thing: the flags
that really reach vLLM.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from serving import argv, catalogue
from serving.argv import Arguments, UnknownArgumentError
from serving.catalogue import Engine, InstanceType
from serving.facts import DEFAULT_MAX_NUM_SEQS, HostPath, WorkloadFacts
from serving.memory import DEFAULT_GPU_MEMORY_UTILIZATION, GIB
from serving.spelling import InputError

_LARGE_GPU_GIB = 160  # from this size on the API server batches 16,384 tokens instead of 8,192
DATA_PARALLEL = (
    "--data-parallel-size is not 1, and what a data parallel rank keeps of the weights is not in the memory model"
)
_MTP_TOKENS = 1  # num_nextn_predict_layers of GLM-5.2 and 5.3

# A snapshot in Hugging Face's cache: its folder names the repository and the revision.
_SNAPSHOT = re.compile(r"(?:.*/)?models--([^/]+?)--([^/]+)/snapshots/([^/]+)/*", re.DOTALL)
_ELSEWHERE = re.compile(r"[/.~]|[A-Za-z][A-Za-z0-9+]*://")


class FlagError(InputError):
    """A value that vLLM would not read."""

    def __init__(self, flag: str, value: str, expected: str) -> None:
        super().__init__(f"--{flag} {value}: expected {expected}")
        self.flag = flag


@dataclass(frozen=True)
class Surroundings:
    """What no command says: the machine, and what the pod gives its container.

    `unknown` says why a field cannot be known; without a machine there must be an entry `instance`.
    """

    instance: InstanceType | None
    engine: Engine | None = None
    nodes_per_replica: int | None = None
    shared_memory_gib: float | None = None
    memory_limited: bool = False
    host_paths: tuple[HostPath, ...] = ()
    gated: bool = False
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])


def from_command(
    workload: str,
    command: Sequence[str],
    env: Mapping[str, str],
    image: str,
    instance: InstanceType,
    *,
    engine: Engine | None = None,
    nodes_per_replica: int = 1,
    shared_memory_gib: float | None = None,
    memory_limited: bool = False,
    host_paths: tuple[HostPath, ...] = (),
    gated: bool = False,
) -> WorkloadFacts:
    """Read a workload whose command has no unknown words; what it leaves to files is `unknown` in the facts.

    `engine` is the release if somebody states it; otherwise the image's digest tells, and an unknown digest leaves it None. What
    no command says (volumes, limits, the gate) comes beside it.
    Raises `InputError` for a value that vLLM would not read either.
    """
    around = Surroundings(instance, engine, nodes_per_replica, shared_memory_gib, memory_limited, host_paths, gated)
    values: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    for name, read in _readers(argv.read(command), image, around).items():
        try:
            values[name] = read()
        except UnknownArgumentError as error:
            values[name], unknown[name] = None, str(error)
    return _facts(workload, values, env, image, around, unknown=unknown)


def from_arguments(
    workload: str, given: Arguments, env: Mapping[str, str], image: str, around: Surroundings
) -> WorkloadFacts:
    """Read a workload of which parts may be unknown; `unknown` of the facts says which and why. Never raises.

    Its texts name flags and variables, never their values.
    """
    values: dict[str, Any] = {}
    unknown = dict(around.unknown)
    for name, read in _readers(given, image, around).items():
        try:
            values[name] = read()
        except UnknownArgumentError as error:
            unknown.setdefault(name, str(error))
        except FlagError as error:
            unknown.setdefault(name, f"--{error.flag} has a value that vLLM would not read")
        values.setdefault(name, None)
    return _facts(workload, values, env, image, around, unknown=unknown)


def _facts(
    workload: str,
    values: Mapping[str, Any],
    env: Mapping[str, str],
    image: str,
    around: Surroundings,
    *,
    unknown: Mapping[str, str] | None = None,
) -> WorkloadFacts:
    return WorkloadFacts(
        workload=workload,
        image=image,
        instance=cast("InstanceType", around.instance),  # where there is none, reading it raises
        env=dict(env),
        shared_memory_gib=around.shared_memory_gib,
        memory_limited=around.memory_limited,
        host_paths=around.host_paths,
        gated=around.gated,
        unknown=unknown or {},
        **values,
    )


def _readers(given: Arguments, image: str, around: Surroundings) -> dict[str, Callable[[], Any]]:
    """Return how each field is read from a command. Each may raise `UnknownArgumentError` or `FlagError`."""

    def engine() -> Engine | None:
        if "image" in around.unknown and around.engine is None:
            raise UnknownArgumentError(around.unknown["image"])
        return around.engine or catalogue.engine_of_image(image)

    return {
        "engine": engine,
        "model": lambda: _served(given)[0],
        "revision": lambda: _served(given)[1],
        "checkpoint": lambda: catalogue.checkpoints().get(_served(given)[0]),
        "nodes_per_replica": lambda: _count(given, "nnodes") or around.nodes_per_replica or 1,
        "tensor_parallel_size": lambda: _tensor_parallel_size(given),
        "max_model_len": lambda: _count(given, "max-model-len", automatic=True),
        "max_num_seqs": lambda: _max_num_seqs(given),
        "max_num_batched_tokens": lambda: _max_num_batched_tokens(given, around),
        "gpu_memory_utilization": lambda: _fraction(given, "gpu-memory-utilization", DEFAULT_GPU_MEMORY_UTILIZATION),
        "kv_cache_dtype": lambda: given.get("kv-cache-dtype", "auto"),
        "speculative_tokens": lambda: _speculative_tokens(given),
        "load_format": lambda: given.get("load-format", "auto"),
        "tool_call_parser": lambda: given.get("tool-call-parser"),
        "reasoning_parser": lambda: given.get("reasoning-parser"),
        "auto_tool_choice": lambda: given.get("enable-auto-tool-choice") == "true",
        "headless": lambda: given.get("headless") == "true",
        "pipeline_parallel_size": lambda: _count(given, "pipeline-parallel-size") or 1,
        "decode_context_parallel_size": lambda: _count(given, "decode-context-parallel-size") or 1,
        "dcp_comm_backend": lambda: given.get("dcp-comm-backend"),
        "kv_connector": lambda: _connector(given),
        "offload_gib": lambda: _offload_gib(given),
    }


def _served(given: Arguments) -> tuple[str, str | None]:
    """Return the repository ("" if none is named) and the revision that are served."""
    model = given.model or ""
    snapshot = _SNAPSHOT.fullmatch(model)
    if snapshot is not None:
        return f"{snapshot[1]}/{snapshot[2]}", snapshot[3]
    if _ELSEWHERE.match(model):
        raise UnknownArgumentError(
            "the model is a path or an address, and what lies there is not in the manifest; "
            "a path of Hugging Face's cache (models--ORG--NAME/snapshots/REVISION) would say"
        )
    return model, given.get("revision")


def _count(given: Arguments, flag: str, *, automatic: bool = False) -> int | None:
    """Read a number of tokens, requests or GPUs; where vLLM may choose it itself, `auto` and -1 are None."""
    value = given.get(flag)
    if value is None or (automatic and value.strip().lower() in {"auto", "-1"}):
        return None
    try:
        number = argv.whole_number(value)
    except (ValueError, OverflowError):
        number = 0
    if number < 1:
        raise FlagError(flag, value, "a whole number such as 131072 or 128K")
    return number


def _tensor_parallel_size(given: Arguments) -> int:
    """Read among how many GPUs weights are divided, which nobody can tell under data parallelism.

    There every rank has attention and dense weights of its own, and experts are divided in ways that depend on more flags.
    """
    if (_count(given, "data-parallel-size") or 1) > 1:
        raise UnknownArgumentError(DATA_PARALLEL)
    return _count(given, "tensor-parallel-size") or 1


def _fraction(given: Arguments, flag: str, default: float) -> float:
    value = given.get(flag)
    if value is None:
        return default
    fraction = _number(value)
    if fraction is None or not 0 < fraction <= 1:
        raise FlagError(flag, value, f"a fraction such as {default:g}")
    return fraction


def _number(value: object) -> float | None:
    """Return a value as a finite number, None if it is none."""
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _max_num_seqs(given: Arguments) -> int | None:
    value = _count(given, "max-num-seqs")
    return 2 * DEFAULT_MAX_NUM_SEQS if value is None and _throughput(given) else value


def _max_num_batched_tokens(given: Arguments, around: Surroundings) -> int:
    """Return the tokens of one step: the flag, or vLLM's default for the GPU (`engine/arg_utils.py`, 0.31.0)."""
    value = _count(given, "max-num-batched-tokens")
    if value is not None:
        return value
    if around.instance is None:
        raise UnknownArgumentError(around.unknown["instance"])
    default = 16_384 if around.instance.gpu.usable_gib >= _LARGE_GPU_GIB else 8_192
    batch = 2 * default if _throughput(given) else default
    if given.get("enable-chunked-prefill", "true") == "true":
        return batch
    # Without chunks a step must take the longest prompt whole.
    return max(batch, _count(given, "max-model-len", automatic=True) or 0)


def _throughput(given: Arguments) -> bool:
    """Whether vLLM doubles its defaults for requests and tokens."""
    return given.get("performance-mode") == "throughput"


def _speculative_tokens(given: Arguments) -> int:
    """Read the number of draft tokens; 0 without speculation. Without a number MTP takes the checkpoint's own layers."""
    settings = _object(given, "speculative-config", '{"method":"mtp","num_speculative_tokens":3}')
    settings = {key.replace("-", "_"): value for key, value in settings.items()}
    tokens = settings.get("num_speculative_tokens", _count(given, "spec-tokens"))
    if tokens is None:
        asked = settings or given.get("spec-method") is not None or given.get("spec-model") is not None
        return _MTP_TOKENS if asked else 0
    if not isinstance(tokens, int) or tokens < 1:
        raise _not_json(given, "speculative-config", '{"method":"mtp","num_speculative_tokens":3}')
    return tokens


def _offload(given: Arguments) -> tuple[str | None, float | None]:
    """Read which connector moves KV cache elsewhere, and how many bytes of it the host's memory holds (None: not said)."""
    size = given.get("kv-offloading-size")
    if size is not None:  # the short form: GiB over all ranks
        backend = given.get("kv-offloading-backend", "native")
        gib = _number(size)
        if gib is None or gib < 0:
            raise FlagError("kv-offloading-size", size, "a number of GiB such as 512")
        return ("LMCacheConnectorV1" if backend == "lmcache" else "OffloadingConnector"), gib * GIB
    expected = '{"kv_connector":"OffloadingConnector","kv_role":"kv_both"}'
    settings = _object(given, "kv-transfer-config", expected)
    if not settings:
        return None, 0.0
    connector: object = settings.get("kv_connector")
    if not isinstance(connector, str):
        raise _not_json(given, "kv-transfer-config", expected)
    if connector == "MultiConnector":
        raise UnknownArgumentError("--kv-transfer-config names several connectors")
    extra: object = settings.get("kv_connector_extra_config")
    return connector, _number(cast("dict[str, Any]", extra).get("cpu_bytes_to_use")) if isinstance(
        extra, dict
    ) else None


def _connector(given: Arguments) -> str | None:
    return _offload(given)[0]


def _offload_gib(given: Arguments) -> float:
    connector, size = _offload(given)
    if connector is not None and size is None:
        raise UnknownArgumentError("--kv-transfer-config does not say cpu_bytes_to_use as a number")
    return (size or 0.0) / GIB


def _object(given: Arguments, flag: str, expected: str) -> dict[str, Any]:
    """Read a JSON object; an empty one where the flag is left out."""
    try:
        config: object = json.loads(given.get(flag, "{}"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise _not_json(given, flag, expected)
    return cast("dict[str, Any]", config)


def _not_json(given: Arguments, flag: str, expected: str) -> FlagError:
    return FlagError(flag, given.get(flag, ""), f"JSON such as {expected}")
