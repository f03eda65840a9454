"""Every check against an engine that is right, and against one that is wrong in the way the check is there for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gate.client import shorten
from gate.expect import Expectations
from gate.report import Report, Result
from gate.run import run_checks
from gate.table import CHECKS
from tests.fixtures.fake_engine import EXPECT, LONG_NEEDLE_TOKENS, FakeEngine, Json, running

IDS = [check.id for check in CHECKS]


def report(engine: FakeEngine, *ids: str, expect: Expectations | None = None) -> Report:
    """Run checks, all of them unless some are named, against an engine."""
    with running(engine) as url:
        checks = [check for check in CHECKS if not ids or check.id in ids]
        return asyncio.run(run_checks(url, expect or engine.expect, "none", checks))


def verdicts(engine: FakeEngine, *ids: str, expect: Expectations | None = None) -> dict[str, str]:
    return {row.id: row.verdict for row in report(engine, *ids, expect=expect).results}


def failure(engine: FakeEngine, check: str, expect: Expectations | None = None) -> Result:
    [result] = report(engine, check, expect=expect).results
    assert result.verdict == "failed"
    return result


# --- an engine that is right ---------------------------------------------------------------------------------------------


def test_a_right_engine_passes_every_check_that_the_plan_calls_for() -> None:
    found = report(FakeEngine())
    assert {row.id: row.verdict for row in found.results if row.verdict != "passed"} == {"needle-long": "notApplicable"}
    assert [row.id for row in found.results] == IDS
    assert found.passed
    assert {row.id: row.found for row in found.results if row.id in {"kv-cache", "accuracy", "needle-5k", "usage"}} == {
        "kv-cache": "600,000 tokens, predicted 600,000",
        "accuracy": "8 of 8 sums right",
        "needle-5k": "found in 5,028 tokens",
        "usage": "in 33 answers",
    }
    assert [(row.prompt, row.tokens) for row in found.latencies] == [("coding", 24), ("tool-call", 24)]


PROMISES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"tool_calling": False}, {check: "the plan promises no tool calls" for check in IDS if "tool" in check}),
    ({"reasoning": False}, {"thinking-on": "the plan promises no reasoning"}),
    ({"thinking": "always"}, {"thinking-off": "the model always thinks"}),
    ({"thinking": "none"}, {"thinking-on": "the model does not think"}),
    ({"speculative_tokens": 0}, {"speculation": "the plan has no speculation"}),
    (
        {"max_model_len": 8_192},
        {"needle-8k-tools": "it needs up to 8,377 tokens of context, the plan has 8,192"},
    ),
    (
        {"max_model_len": 4_096},
        {
            "needle-5k": "it needs up to 5,211 tokens of context, the plan has 4,096",
            "needle-8k-tools": "it needs up to 8,377 tokens of context, the plan has 4,096",
        },
    ),
]


@pytest.mark.parametrize(("promise", "reasons"), PROMISES, ids=lambda row: str(row)[:40])
def test_what_the_plan_does_not_promise_is_not_asked_for_and_says_so(
    promise: dict[str, Any], reasons: dict[str, str]
) -> None:
    expect = replace(EXPECT, **promise)
    skipped = {check.id: reason for check in CHECKS if (reason := check.needs(expect)) is not None}
    assert skipped == {**reasons, "needle-long": "the plan asks for no longer needle"}


def test_what_is_not_asked_for_does_not_hold_up_a_pod() -> None:
    found = report(FakeEngine(replace(EXPECT, tool_calling=False, reasoning=False, speculative_tokens=0)))
    assert found.passed
    skipped = {row.id: row.found for row in found.results if row.verdict == "notApplicable"}
    assert skipped["tools-auto"] == "the plan promises no tool calls"
    assert len(skipped) == 13


def test_a_longer_needle_is_looked_for_where_the_plan_asks_for_it() -> None:
    expect = replace(EXPECT, long_needle_tokens=LONG_NEEDLE_TOKENS)
    [result] = report(FakeEngine(expect), "needle-long").results
    assert (result.verdict, result.found) == ("passed", "found in 12,041 tokens")
    [result] = report(FakeEngine(expect), "needle-long", expect=replace(expect, max_model_len=12_288)).results
    assert (result.verdict, result.found) == (
        "notApplicable",
        "it needs up to 12,499 tokens of context, the plan has 12,288",
    )


def test_requests_say_what_the_prompt_says_and_no_more() -> None:
    engine = FakeEngine()
    report(engine, "thinking-on", "tools-named-stream")
    asked = [json.dumps({key: body[key] for key in body if key not in {"messages", "tools"}}) for body in engine.bodies]
    common: Json = {"model": "glm-5.2-fp8", "temperature": 0}
    streamed: Json = {"stream": True, "stream_options": {"include_usage": True}}
    named: Json = {"type": "function", "function": {"name": "get_weather"}}
    on: Json = {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": True}}
    off: Json = {"chat_template_kwargs": {"enable_thinking": False}}
    wanted = [
        {**common, "max_completion_tokens": 544, **on},
        {**common, "max_completion_tokens": 544, **on, **streamed},
        {**common, "max_completion_tokens": 96, "tool_choice": named, **off, **streamed},
        {**common, "max_completion_tokens": 608, "tool_choice": named, **on, **streamed},
    ]
    first_four = [json.loads(text) for text in asked][:4]
    assert sorted(map(_sorted, first_four)) == sorted(map(_sorted, wanted))


def _sorted(body: Json) -> str:
    return json.dumps(body, sort_keys=True)


def test_a_model_that_always_thinks_is_not_told_to() -> None:
    engine = FakeEngine(replace(EXPECT, thinking="always", reasoning_effort="low"))
    assert report(engine).passed
    assert all("chat_template_kwargs" not in body for body in engine.bodies)
    assert {body.get("reasoning_effort") for body in engine.bodies} == {"low"}


# --- what the engine says of itself ------------------------------------------------------------------------------------


def page(path: str, status: int, text: str) -> FakeEngine:
    return FakeEngine(pages={path: lambda: (status, text)})


@pytest.mark.parametrize(
    ("check", "engine", "problem"),
    [
        ("health", page("/health", 503, "EngineDeadError"), "HTTP 503"),
        (
            "engine-version",
            page("/version", 200, '{"version": "0.30.0"}'),
            "the engine is vLLM 0.30.0, the plan was judged for 0.31.0",
        ),
        ("engine-version", page("/version", 200, "vLLM"), "the answer is no JSON object"),
        ("engine-version", page("/version", 404, ""), "HTTP 404"),
        (
            "served-model",
            page("/v1/models", 200, '{"data": [{"id": "zai-org/GLM-5.2-FP8", "max_model_len": 131072}]}'),
            "served are zai-org/GLM-5.2-FP8, expected glm-5.2-fp8",
        ),
        ("served-model", page("/v1/models", 200, '{"data": "none"}'), "served are no models, expected glm-5.2-fp8"),
        ("served-model", page("/v1/models", 200, "[]"), "the answer is no JSON object"),
        (
            "served-model",
            page("/v1/models", 200, '{"data": [{"id": "glm-5.2-fp8", "max_model_len": 8192}]}'),
            "the engine takes 8192 tokens of context, the plan promises 131,072",
        ),
        (
            "kv-cache",
            page("/metrics", 200, 'vllm:cache_config_info{num_gpu_blocks="8000",block_size="64"} 1\n'),
            "the KV cache has 512,000 tokens, expected at least 540,000 (predicted 600,000)",
        ),
        (
            "kv-cache",
            page("/metrics", 200, 'vllm:cache_config_info{kv_cache_size_tokens="0"} 1\n'),
            "the KV cache has 0 tokens, expected at least 540,000 (predicted 600,000)",
        ),
        ("kv-cache", page("/metrics", 200, "up 1\n"), "vllm:cache_config_info is missing"),
        (
            "kv-cache",
            page("/metrics", 200, 'vllm:cache_config_info{num_gpu_blocks="None",block_size="64"} 1\n'),
            "the metrics cannot be read: invalid literal for int() with base 10: 'None'",
        ),
    ],
)
def test_an_engine_that_is_another_than_planned(check: str, engine: FakeEngine, problem: str) -> None:
    assert failure(engine, check).found == problem


def test_an_engine_may_say_how_it_was_built() -> None:
    engine = page("/version", 200, '{"version": "0.31.0+cpu"}')
    assert verdicts(engine, "engine-version") == {"engine-version": "passed"}


def test_the_smallest_cache_of_several_engines_counts_and_newer_ones_name_it() -> None:
    rows = [
        f'vllm:cache_config_info{{engine="{number}",kv_cache_size_tokens="{size}"}} 1'
        for number, size in ((0, 600_000), (1, 9))
    ]
    assert failure(page("/metrics", 200, "\n".join(rows) + "\n"), "kv-cache").found.startswith(
        "the KV cache has 9 tokens"
    )


def test_a_dead_mtp_layer_shows_in_the_counters_only() -> None:
    found = report(FakeEngine(acceptance=0.01))
    assert [row.id for row in found.failures] == ["speculation"]
    [result] = found.failures
    assert result.found == "1.0% of draft tokens were accepted, expected at least 16.0%"
    assert result.received == "8 of 792 draft tokens accepted"


def test_only_what_this_run_drafted_counts() -> None:
    """A re-check, or a gate that was restarted, finds counters that others have moved."""
    engine = FakeEngine(drafts=1_000_000, acceptance=0.5)
    found = report(engine)
    assert found.passed
    assert found.speculation is not None
    assert found.speculation.draft_tokens == 792


@pytest.mark.parametrize(
    ("engine", "problem"),
    [
        (FakeEngine(replace(EXPECT, speculative_tokens=0)), "the counters vllm:spec_decode_num_* are missing"),
        (FakeEngine(), "only 0 draft tokens in this run, expected 50"),
    ],
)
def test_no_drafts(engine: FakeEngine, problem: str) -> None:
    """An engine without --speculative-config has no counters; without other checks nothing is drafted."""
    with running(engine) as url:
        checks = [check for check in CHECKS if check.id in {"kv-cache", "speculation"}]
        found = asyncio.run(run_checks(url, EXPECT, "none", checks))
    assert {row.id: row.found for row in found.failures} == {"speculation": problem}


# --- what the model says -----------------------------------------------------------------------------------------------

Spoil = Callable[[Json, Json], None]


def thinks(body: Json) -> bool:
    return body.get("chat_template_kwargs", {}).get("enable_thinking", False)


def thoughts_in_content(_: Json, choice: Json) -> None:
    """No --reasoning-parser: thoughts and a bare end tag stay in content."""
    message = choice["message"]
    if message["reasoning"]:
        message["content"] = f"{message['reasoning']}</think>{message['content'] or ''}"
        message["reasoning"] = None


def answer_in_reasoning(body: Json, choice: Json) -> None:
    """--reasoning-parser deepseek_r1: with thinking off all of the answer is taken for thoughts."""
    if not thinks(body):
        message = choice["message"]
        message["reasoning"], message["content"] = message["content"] or "a call", None
        message.pop("tool_calls", None)
        choice["finish_reason"] = "stop"


def no_thoughts(_: Json, choice: Json) -> None:
    choice["message"]["reasoning"] = None


def older_field(_: Json, choice: Json) -> None:
    choice["message"]["reasoning_content"] = choice["message"].pop("reasoning")


def call_in_content(only: Callable[[Json], bool]) -> Spoil:
    """No or another --tool-call-parser, vllm#48095: the call is not taken out of content."""

    def spoil(body: Json, choice: Json) -> None:
        if choice["message"].pop("tool_calls", None) and only(body):
            choice["message"]["content"] = (
                "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value></tool_call>"
            )
            choice["finish_reason"] = "stop"

    def kept(body: Json, choice: Json) -> None:
        if only(body):
            spoil(body, choice)

    return kept


def is_auto(body: Json) -> bool:
    return body.get("tool_choice") == "auto"


def nothing_in_streams(body: Json, choice: Json) -> None:
    """--tool-call-parser hermes, streamed: neither content nor calls."""
    if body.get("stream") and choice["message"].pop("tool_calls", None):
        choice["message"]["content"], choice["finish_reason"] = "", "stop"


def repeats(body: Json, choice: Json) -> None:
    """vllm#50399: a required call is repeated until max tokens."""
    if body.get("tool_choice") == "required":
        choice["message"]["tool_calls"] *= 20
        choice["finish_reason"] = "length"


def empty_arguments(_: Json, choice: Json) -> None:
    """Wrecked weights: forced calls are well-formed, and empty."""
    for call in choice["message"].get("tool_calls", []):
        call["function"]["arguments"] = "{}"
    if choice["message"]["content"] is not None and choice["message"]["content"] != "":
        choice["message"]["content"] = "lamp the of of"


def no_arguments_lost(_: Json, choice: Json) -> None:
    """vllm#34449, #48103: a call without arguments is not taken for one."""
    if [call["function"]["arguments"] for call in choice["message"].get("tool_calls", [])] == ["{}"]:
        del choice["message"]["tool_calls"]
        choice["message"]["content"], choice["finish_reason"] = "<tool_call>list_tickets</tool_call>", "stop"


def tags_in_turn_three(body: Json, choice: Json) -> None:
    """vllm#27703: from the third turn on thoughts end up in content."""
    if sum(message["role"] == "user" for message in body["messages"]) == 3:
        thoughts_in_content(body, choice)


def wrong_beyond(tokens: int, only: Callable[[Json], bool] = lambda _: True) -> Spoil:
    """Sparse attention that selects the wrong keys."""

    def spoil(body: Json, choice: Json) -> None:
        text = body["messages"][0]["content"]
        if len(text.split()) > tokens and only(body):
            message = choice["message"]
            if "tool_calls" in message:
                message["tool_calls"][0]["function"]["arguments"] = '{"number": 10000, "priority": "urgent"}'
            else:
                message["content"] = "10000"

    return spoil


TOOLS = {check for check in IDS if check.startswith("tools-") and check != "tools-no-arguments"}
CONVERSATION = {"tool-conversation"}
NO_ARGUMENTS = {"tools-no-arguments"}
CASES: list[tuple[str, Spoil, set[str]]] = [
    ("no reasoning parser", thoughts_in_content, {"thinking-on", *TOOLS, *CONVERSATION}),
    (
        "another reasoning parser",
        answer_in_reasoning,
        {"thinking-off", *TOOLS, *NO_ARGUMENTS, "tool-result", "accuracy"},
    ),
    ("calls without arguments stay in content", no_arguments_lost, NO_ARGUMENTS),
    ("no thoughts", no_thoughts, {"thinking-on"}),
    ("the field's earlier name", older_field, set()),
    ("no tool parser", call_in_content(is_auto), {"tools-auto", "tools-auto-stream", *NO_ARGUMENTS, *CONVERSATION}),
    (
        "forced calls stay in content",
        call_in_content(lambda body: not is_auto(body)),
        {check for check in TOOLS if "auto" not in check},
    ),
    (
        "streams lose calls",
        nothing_in_streams,
        {check for check in TOOLS if "stream" in check} | CONVERSATION | NO_ARGUMENTS,
    ),
    ("required calls repeat", repeats, {"tools-required", "tools-required-stream"}),
    (
        "wrecked weights",
        empty_arguments,
        {*TOOLS, *CONVERSATION, "tool-result", "accuracy"},
    ),
    ("thoughts in turn three", tags_in_turn_three, CONVERSATION),
]
SHORT = [check for check in IDS if not check.startswith("needle")]


@pytest.mark.parametrize(("spoil", "failing"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_right_checks_fail_and_no_others(spoil: Spoil, failing: set[str]) -> None:
    found = verdicts(FakeEngine(spoil=spoil), *SHORT)
    assert {check for check, verdict in found.items() if verdict != "passed"} == failing


@pytest.mark.parametrize(
    ("spoil", "first"),
    [
        (empty_arguments, "accuracy"),
        (answer_in_reasoning, "thinking-off"),
        (thoughts_in_content, "thinking-on"),
        (call_in_content(is_auto), "tools-auto"),
    ],
)
def test_the_first_failure_names_the_cause(spoil: Spoil, first: str) -> None:
    found = report(FakeEngine(spoil=spoil), "thinking-off", "thinking-on", "accuracy", "tools-auto")
    assert found.failures[0].id == first


@pytest.mark.parametrize(
    ("spoil", "failing"),
    [
        (wrong_beyond(2_000), {"needle-3k", "needle-5k", "needle-8k-tools"}),
        (wrong_beyond(4_000), {"needle-5k", "needle-8k-tools"}),
        (wrong_beyond(5_400, is_auto), {"needle-8k-tools"}),
    ],
)
def test_sparse_attention_that_is_wrong_from_some_length_on(spoil: Spoil, failing: set[str]) -> None:
    needles = [check for check in IDS if check.startswith("needle-") and check != "needle-long"]
    found = verdicts(FakeEngine(spoil=spoil), "accuracy", *needles)
    assert {check for check, verdict in found.items() if verdict == "failed"} == failing


def test_thoughts_that_run_into_the_bound_are_no_fault_as_long_as_they_stay_where_they_belong() -> None:
    def long_thoughts(body: Json, choice: Json) -> None:
        if thinks(body):
            choice["message"].update(content=None, reasoning="Let me see. " * 99)
            choice["finish_reason"] = "length"

    assert verdicts(FakeEngine(spoil=long_thoughts), "thinking-on") == {"thinking-on": "passed"}

    def thoughts_without_end(body: Json, choice: Json) -> None:
        if thinks(body):
            choice["message"]["content"] = None

    assert failure(FakeEngine(spoil=thoughts_without_end), "thinking-on").found == "content is empty"


def test_a_prompt_that_is_not_long_enough_proves_nothing() -> None:
    def few_tokens(_: Json, completion: Json) -> None:
        completion["usage"]["prompt_tokens"] = 2_000

    assert failure(FakeEngine(bend=few_tokens), "needle-3k").found == (
        "the prompt has 2,000 tokens by the engine's count and must have more than 2,048"
    )


@pytest.mark.parametrize(("wrong", "verdict"), [(2, "passed"), (3, "failed")])
def test_the_accuracy_set_has_a_threshold(wrong: int, verdict: str) -> None:
    """Three quarters of eight sums are six."""
    sums = [prompt for prompt in IDS if prompt == "accuracy"]
    seen: list[str] = []

    def sometimes(body: Json, choice: Json) -> None:
        seen.append(body["messages"][0]["content"])
        if len(seen) <= wrong:
            choice["message"]["content"] = "0"

    [result] = report(FakeEngine(spoil=sometimes), *sums).results
    assert result.verdict == verdict
    assert result.found.startswith(f"{8 - wrong} of 8 sums right")


@pytest.mark.parametrize(
    ("usage", "problem"),
    [
        (None, "usage is missing"),
        ({"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2}, "usage is 0 + 2 = 2 tokens"),
        ({"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}, "usage is 9 + 0 = 9 tokens"),
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 12}, "usage is 9 + 2 = 12 tokens"),
        (
            {"prompt_tokens": 9, "completion_tokens": 70, "total_tokens": 79},
            "usage is 70 tokens of an answer of at most 64",
        ),
    ],
)
def test_usage_that_cannot_be(usage: Json | None, problem: str) -> None:
    def bend(_: Json, completion: Json) -> None:
        completion["usage"] = usage

    found = report(FakeEngine(bend=bend), "accuracy", "usage")
    assert {row.id: row.found for row in found.failures} == {"usage": problem}


# --- what a failure says -------------------------------------------------------------------------------------------------


def test_a_failure_says_what_was_sent_what_came_back_and_what_causes_it() -> None:
    result = failure(FakeEngine(spoil=call_in_content(is_auto)), "tools-auto")
    assert result.found == "content holds <tool_call>"
    sent = json.loads(result.sent.removeprefix("POST /v1/chat/completions "))
    assert sent["tools"] == ["get_weather", "search_docs", "open_ticket"]
    assert sent["messages"][0]["content"].startswith("What is the temperature in Oslo?")
    assert json.loads(result.received) == {
        "content": "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value></tool_call>",
        "finish_reason": "stop",
    }
    assert "--tool-call-parser" in result.cause


def test_a_long_prompt_is_shown_without_its_middle() -> None:
    result = failure(FakeEngine(spoil=wrong_beyond(2_000)), "needle-3k")
    assert len(result.sent) < 500
    assert result.sent.count("...") == 1
    assert "What is the number of the green lighthouse?" in result.sent


def test_shortening() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcdefghijk", 9) == "abc...ijk"
    assert len(shorten("x" * 1000, 300)) <= 300
