"""Checks of what the engine says of itself: alive, the right release, the planned model, cache and speculation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from gate import metrics
from gate.check import Check, Run
from gate.client import Answer, CheckFailedError, objects, shorten
from gate.expect import Expectations

# Fewer draft tokens than this say nothing about how many are accepted. A run makes several hundred.
_LEAST_DRAFT_TOKENS = 50


async def _health(run: Run, _: Sequence[Answer]) -> str:
    await run.engine.get("/health")
    return "200"


async def _version(run: Run, _: Sequence[Answer]) -> str:
    text = await run.engine.get("/version")
    version = str(_json(text, "/version").get("version"))
    run.engine_version = version
    if version.partition("+")[0] != run.expect.engine_version:  # behind the plus stands how it was built
        problem = f"the engine is vLLM {version}, the plan was judged for {run.expect.engine_version}"
        raise CheckFailedError(problem, "GET /version", shorten(text, 300))
    return version


async def _served_model(run: Run, _: Sequence[Answer]) -> str:
    text = await run.engine.get("/v1/models")
    rows = objects(_json(text, "/v1/models").get("data"))
    lengths = {str(row.get("id")): row.get("max_model_len") for row in rows}
    expect = run.expect
    if expect.served_model_name not in lengths:
        problem = f"served are {', '.join(lengths) or 'no models'}, expected {expect.served_model_name}"
        raise CheckFailedError(problem, "GET /v1/models", shorten(text, 300))
    length = lengths[expect.served_model_name]
    if length != expect.max_model_len:
        problem = f"the engine takes {length} tokens of context, the plan promises {expect.max_model_len:,}"
        raise CheckFailedError(problem, "GET /v1/models", shorten(text, 300))
    return f"{expect.served_model_name}, {length:,} tokens of context"


def _json(text: str, path: str) -> dict[str, Any]:
    try:
        given: object = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise CheckFailedError("the answer is no JSON object", f"GET {path}", shorten(text, 300))
    return cast("dict[str, Any]", given)


async def _kv_cache(run: Run, _: Sequence[Answer]) -> str:
    text = await run.engine.get(metrics.PATH)
    reading = metrics.read(text)
    run.kv_cache_tokens = reading.kv_cache_tokens
    run.speculation_before = reading.speculation
    expect, tokens = run.expect, reading.kv_cache_tokens
    if tokens is None:
        raise CheckFailedError("vllm:cache_config_info is missing", f"GET {metrics.PATH}", shorten(text, 300))
    if tokens < max(expect.kv_cache_tokens_least, 1):
        raise CheckFailedError(
            f"the KV cache has {tokens:,} tokens, expected at least {expect.kv_cache_tokens_least:,} "
            f"(predicted {expect.kv_cache_tokens_predicted:,})",
            f"GET {metrics.PATH}",
            f"vllm:cache_config_info: {tokens} tokens",
        )
    return f"{tokens:,} tokens, predicted {expect.kv_cache_tokens_predicted:,}"


async def _speculation(run: Run, _: Sequence[Answer]) -> str:
    now = metrics.read(await run.engine.get(metrics.PATH)).speculation
    sent = f"GET {metrics.PATH} before and after the other checks"
    if now is None or run.speculation_before is None:
        raise CheckFailedError("the counters vllm:spec_decode_num_* are missing", sent)
    run.speculation = seen = now.since(run.speculation_before)
    counts = f"{seen.accepted_tokens} of {seen.draft_tokens} draft tokens accepted"
    if seen.draft_tokens < _LEAST_DRAFT_TOKENS:
        raise CheckFailedError(
            f"only {seen.draft_tokens} draft tokens in this run, expected {_LEAST_DRAFT_TOKENS}", sent, counts
        )
    if seen.acceptance < run.expect.acceptance_floor:
        problem = (
            f"{seen.acceptance:.1%} of draft tokens were accepted, expected at least {run.expect.acceptance_floor:.1%}"
        )
        raise CheckFailedError(problem, sent, counts)
    return f"{seen.acceptance:.0%} ({counts})"


async def _usage(run: Run, _: Sequence[Answer]) -> str:
    for answer in run.answers:
        usage = answer.usage
        if usage is None:
            raise answer.failed("usage is missing")
        if usage.prompt < 1 or usage.completion < 1 or usage.total != usage.prompt + usage.completion:
            raise answer.failed(f"usage is {usage.prompt} + {usage.completion} = {usage.total} tokens")
        if usage.completion > answer.prompt.max_tokens:
            raise answer.failed(
                f"usage is {usage.completion} tokens of an answer of at most {answer.prompt.max_tokens}"
            )
    if not run.answers:
        raise CheckFailedError("no check has got an answer")
    return f"in {len(run.answers)} answers"


def _if_speculating(expect: Expectations) -> str | None:
    return None if expect.speculative_tokens else "the plan has no speculation"


ENGINE = (
    Check(
        "health",
        "engine",
        "the engine is alive",
        "the engine died or has not started: read the log of the engine's container",
        _health,
    ),
    Check(
        "engine-version",
        "engine",
        "the engine is the release that the rules have judged",
        "the image is another vLLM release than the stack file's vllmVersion: state the right one, and the rules judge it",
        _version,
    ),
    Check(
        "served-model",
        "engine",
        "the model has its name and its context",
        "--served-model-name or --max-model-len differ from the plan, or this is another workload's engine",
        _served_model,
    ),
    Check(
        "kv-cache",
        "engine",
        "the KV cache is as large as planned",
        "another process holds GPU memory, the cache has another dtype than planned, or the release needs more memory "
        "than the memory model knows",
        _kv_cache,
    ),
)

COUNTERS = (
    Check(
        "usage",
        "counters",
        "every answer says how many tokens it took",
        "a regression of the server's accounting: quotas, bills and clients' context management rest on it",
        _usage,
    ),
    Check(
        "speculation",
        "counters",
        "draft tokens are accepted",
        "the MTP layer is broken, not loaded or not fit for this release (vllm#46367, #46834): answers are right, but slow",
        _speculation,
        needs=_if_speculating,
    ),
)
