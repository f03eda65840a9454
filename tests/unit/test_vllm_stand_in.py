"""The stand-in answers over HTTP as the real vLLM does, flag by flag."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gate.prompts import TOOLS, Call, Prompt, accuracy, conversations, long_needle, simple, tool_call
from rehearsal.vllm.faults import FAULTS, Fault, fault_named
from rehearsal.vllm.settings import StartError, settings_of
from rehearsal.vllm.table import answer_to
from serving import catalogue
from serving.spelling import InputError
from tests.fixtures.stacks import glm
from tests.fixtures.stand_in import (
    HEALTHY,
    LENGTH,
    MTP,
    PARSERS,
    Engine,
    Reply,
    body_of,
    running,
    settings,
    settings_of_stack,
)
from tests.fixtures.vllm_behaviour import BEHAVIOURS, FLAGS, Behaviour, ask, stream

Json = dict[str, Any]
OSLO = {"city": "Oslo", "days": 1, "metric": True}
RAW_CALL = (
    "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value><arg_key>days</arg_key><arg_value>1</arg_value>"
    "<arg_key>metric</arg_key><arg_value>true</arg_value></tool_call>"
)


@pytest.fixture(scope="module")
def healthy() -> Iterator[Engine]:
    with running(settings(*HEALTHY)) as engine:
        yield engine


def calls_of(reply: Reply) -> list[tuple[str, Any]]:
    functions = [call["function"] for call in reply.message["tool_calls"]]
    return [(row["name"], json.loads(row["arguments"])) for row in functions]


# --- what the healthy server does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", conversations(), ids=lambda prompt: prompt.id)
def test_every_prompt_of_the_gate_is_answered_right(healthy: Engine, prompt: Prompt) -> None:
    whole, streamed = healthy.ask(body_of(prompt)), healthy.stream(body_of(prompt))
    for reply in (whole, streamed):
        assert bool(reply.message["reasoning"]) is (prompt.thinking == "on")
        if isinstance(prompt.right, Call):
            assert calls_of(reply) == [(prompt.right.name, dict(prompt.right.arguments))]
            # A forced call stands beside an empty content, a free one beside none; streamed, neither has a delta.
            assert reply.message["content"] == ("" if prompt.tool_choice != "auto" and reply is whole else None)
            assert reply.finish_reason == ("stop" if isinstance(prompt.tool_choice, dict) else "tool_calls")
        else:
            assert reply.message["content"] == prompt.right
            assert (calls_of(reply), reply.finish_reason) == ([], "stop")


def test_usage_is_there_whole_and_streamed_if_asked_for(healthy: Engine) -> None:
    body = body_of(simple("on"))
    usage = healthy.ask(body).body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] > 0
    assert usage["prompt_tokens_details"] is None
    assert healthy.stream({**body, "stream_options": {"include_usage": True}}).body["usage"] == usage
    assert healthy.stream(body).body["usage"] is None


def test_a_limit_inside_the_thoughts(healthy: Engine) -> None:
    reply = healthy.ask({**body_of(simple("on")), "max_completion_tokens": 2})
    assert (reply.message["reasoning"], reply.message["content"]) == ("The answer", None)
    assert reply.finish_reason == "length"
    assert reply.body["usage"]["completion_tokens"] == 2


def test_choice_none_takes_the_call_out(healthy: Engine) -> None:
    reply = healthy.ask({**body_of(tool_call("auto", "off")), "tool_choice": "none"})
    assert (reply.message["content"], reply.message["tool_calls"], reply.finish_reason) == (None, [], "stop")


def test_a_call_is_forced_where_none_is_needed(healthy: Engine) -> None:
    body = {**body_of(simple("off")), "tools": list(TOOLS)}
    required = healthy.ask({**body, "tool_choice": "required"})
    assert calls_of(required) == [("get_weather", {"city": "text", "days": 1, "metric": True})]
    named = healthy.ask({**body, "tool_choice": {"type": "function", "function": {"name": "open_ticket"}}})
    assert calls_of(named) == [("open_ticket", {"number": 1, "priority": "low"})]


def test_what_the_model_does_not_know_it_says(healthy: Engine) -> None:
    reply = healthy.ask({"messages": [{"role": "user", "content": "Who are you?"}]})
    assert reply.message["content"] == "I am a stand-in and know the gate's questions only."
    assert reply.message["reasoning"] == "This question is not in the table."


def test_a_needle_of_any_length_is_found(healthy: Engine) -> None:
    prompt, order = (long_needle(20_000, "off", tools=tools) for tools in (False, True))
    replies = [healthy.ask(body_of(asked)) for asked in (prompt, order)]
    assert replies[0].message["content"] == prompt.right
    assert calls_of(replies[1]) == [("open_ticket", {"number": 29_364, "priority": "urgent"})]
    assert all(reply.body["usage"]["prompt_tokens"] > prompt.more_than for reply in replies)


def test_content_in_parts_is_the_same_question(healthy: Engine) -> None:
    body = body_of(simple("off"))
    text = body["messages"][0]["content"]
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    assert healthy.ask(body).message["content"] == "42"


@dataclass(frozen=True)
class Refusal:
    name: str
    body: Json
    message: str
    status: int = 400
    param: str | None = None
    version: str = "0.31.0"


ASKING: Json = {"messages": [{"role": "user", "content": "Hello"}]}
TOO_LONG: Json = {"messages": [{"role": "user", "content": "word " * 131_072}]}
REFUSALS = [
    Refusal(
        "another model, from 0.32 on",
        {**ASKING, "model": "nope"},
        "The model `nope` does not exist. Valid aliases: glm-5.2-fp8.",
        404,
        "model",
        "0.33.0",
    ),
    Refusal("no messages", {}, "messages: Field required"),
    Refusal(
        "a prompt that is too long",
        TOO_LONG,
        "This model's maximum context length is 131072 tokens. However, your prompt contains at least 131073 input tokens, which "
        "exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
        "(parameter=input_tokens, value=131073)",
        param="input_tokens",
    ),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_what_is_refused(case: Refusal) -> None:
    kind = {404: "NotFoundError"}.get(case.status, "BadRequestError")
    with running(settings(*HEALTHY, version=case.version)) as engine:
        reply = engine.ask(case.body)
        assert engine.stream(case.body) == reply
    assert reply.status == case.status
    error = {"message": case.message, "type": kind, "param": case.param, "code": case.status}
    assert reply.body == {"error": error}


# --- what missing and wrong parsers do ------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda row: f"{row.flags}: {row.name}")
def test_it_behaves_as_the_real_server(behaviour: Behaviour) -> None:
    row = glm("dev")
    command = FLAGS[behaviour.flags](row.command)
    engine = settings_of(command, row.env, row.facts.instance, catalogue.engine("0.31.0"))
    answer = answer_to(behaviour.prompt.messages, behaviour.prompt.tools)
    assert answer is not None
    with running(engine) as server:
        url = f"http://127.0.0.1:{server.port}"
        seen = ask(url, behaviour.body()), stream(url, behaviour.body())
    assert seen == tuple(behaviour.expected(answer.reasoning, streamed=streamed) for streamed in (False, True))


def test_from_032_on_tools_and_thoughts_without_a_reasoning_parser_give_gibberish() -> None:
    flags = (*LENGTH, "--enable-auto-tool-choice", "--tool-call-parser", "glm47")
    with running(settings(*flags, version="0.33.0")) as engine:
        reply = engine.ask(body_of(tool_call("auto", "on")))
    assert reply.message["tool_calls"] == []
    assert "<" not in reply.message["content"]


def test_hermes_forces_arguments_that_are_no_object() -> None:
    flags = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "glm45")
    with running(settings(*LENGTH, *flags)) as engine:
        reply = engine.ask(body_of(tool_call("required", "off")))
    assert (reply.message["content"], calls_of(reply)) == ("", [("get_weather", True)])


# --- what is not an answer -------------------------------------------------------------------------------------------------


def test_the_other_endpoints(healthy: Engine) -> None:
    assert healthy.get("/health") == Reply(200, "")
    assert healthy.get("/version") == Reply(200, {"version": "0.31.0"})
    (model,) = healthy.get("/v1/models").body["data"]
    assert (model["id"], model["root"], model["max_model_len"]) == ("glm-5.2-fp8", "zai-org/GLM-5.2-FP8", 131_072)
    assert healthy.get("/sleep") == Reply(404, {"detail": "Not Found"})


def test_a_key_guards_v1_and_nothing_else() -> None:
    with running(settings(*HEALTHY, "--api-key", "secret")) as engine:
        unauthorized = Reply(401, {"error": "Unauthorized"})
        assert engine.get("/v1/models") == unauthorized
        assert engine.ask(body_of(simple("off"))) == unauthorized
        assert engine.ask(body_of(simple("off")), Authorization="Bearer secret").message["content"] == "42"
        assert {engine.get(path).status for path in ("/health", "/metrics", "/version")} == {200}


def samples(engine: Engine) -> dict[str, tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(engine.get("/metrics").body)
    return {sample.name: (sample.labels, sample.value) for family in families for sample in family.samples}


def test_metrics_count_what_was_asked() -> None:
    with running(settings(*HEALTHY)) as engine:
        usages = [engine.ask(body_of(prompt)).body["usage"] for prompt in accuracy("off")]
        found = samples(engine)
    labels = {"engine": "0", "model_name": "glm-5.2-fp8"}
    for name, key in (("prompt_tokens", "prompt_tokens"), ("generation_tokens", "completion_tokens")):
        assert found[f"vllm:{name}_total"] == (labels, float(sum(usage[key] for usage in usages)))
    drafted, accepted = (found[f"vllm:spec_decode_num_{name}_total"][1] for name in ("draft_tokens", "accepted_tokens"))
    assert accepted / drafted == pytest.approx(1.99 / 3)  # three draft tokens, 2.99 tokens a step (InferenceX)


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_cache_is_what_the_plan_predicts(stack: str) -> None:
    engine = settings_of_stack(stack)
    with running(engine) as server:
        labels, value = samples(server)["vllm:cache_config_info"]
    assert value == 1.0
    assert int(labels["kv_cache_size_tokens"]) == engine.kv_cache.tokens
    assert int(labels["num_gpu_blocks"]) * int(labels["block_size"]) == engine.kv_cache.tokens
    assert float(labels["kv_cache_max_concurrency"]) == pytest.approx(engine.kv_cache.tokens / engine.max_model_len)


def test_without_speculation_there_are_no_counters_of_it() -> None:
    with running(settings(*LENGTH, *PARSERS)) as engine:
        assert not [name for name in samples(engine) if "spec_decode" in name]


# --- starting -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    flags: tuple[str, ...]
    text: str
    after_load: bool = False


STARTS = [
    Start(
        (*LENGTH, "--enable-auto-tool-choice"),
        "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
    ),
    Start(
        (*LENGTH, "--enable-auto-tool-choice", "--tool-call-parser", "glm99"),
        "KeyError: 'invalid tool call parser: glm99 (chose from { dots,deepseek_v3,",
    ),
    Start(
        (*LENGTH, "--reasoning-parser", "glm99"),
        "KeyError: 'invalid reasoning parser: glm99 (chose from { deepseek_r1,deepseek_v3,",
    ),
    Start(
        ("--max-model-len", "2000000"),
        "Value error, User-specified max_model_len (2000000) is greater than the derived max_model_len "
        "(max_position_embeddings=1048576.0 ",
    ),
    Start(
        ("--max-num-seqs", "64"),  # the native length, as the recipe's H200 command has it
        "ValueError: To serve at least one request with the model's max seq len (1048576), (52.68 GiB KV cache is needed, which "
        "is larger than the available KV cache memory (",
        after_load=True,
    ),
]


@pytest.mark.parametrize("case", STARTS, ids=lambda case: case.text[:60])
def test_what_does_not_start(case: Start) -> None:
    with pytest.raises(StartError) as refused:
        settings(*case.flags)
    assert str(refused.value).startswith(case.text)
    assert refused.value.after_load is case.after_load
    assert str(refused.value).endswith("See root cause above.") is case.after_load


def test_vllm_chooses_a_length_that_fits() -> None:
    engine = settings("--max-model-len", "auto", "--max-num-seqs", "64")
    assert 400_000 < engine.max_model_len <= engine.kv_cache.tokens


# --- ending -------------------------------------------------------------------------------------------------------------------


def test_a_draining_server_answers_what_it_has_begun_and_aborts_the_rest() -> None:
    with running(settings(*HEALTHY)) as engine:
        server = engine.server
        with server.answering():  # a request that is being answered
            drain = threading.Thread(target=server.drain, args=(30.0,))
            drain.start()
            server.completions.draining.wait()
            late = engine.ask(body_of(simple("off")))
            assert (late.message["content"], late.finish_reason) == (None, "abort")
            assert engine.stream(body_of(simple("off"))).finish_reason == "abort"
            assert not server.completions.aborting.is_set()
        drain.join()
        assert server.completions.aborting.is_set()


# --- faults -------------------------------------------------------------------------------------------------------------------


def test_every_fault_says_what_it_does_and_where_it_was_seen() -> None:
    assert set(FAULTS) == set(Fault)
    assert all(row.effect and row.seen for row in FAULTS.values())
    assert [fault_named(fault.value) for fault in Fault] == list(Fault)
    with pytest.raises(
        InputError, match=r"unknown fault 'giberish'; allowed are gibberish, .*; did you mean gibberish\?"
    ):
        fault_named("giberish")


@pytest.mark.parametrize(
    ("fault", "limit", "tools"),
    [
        (Fault.WRONG_BEYOND_2048, 2048, False),
        (Fault.WRONG_BEYOND_4096, 4096, False),
        (Fault.WRONG_AT_5400_WITH_TOOLS, 5400, True),
    ],
)
def test_the_sparse_path_is_wrong_from_its_limit_on(fault: Fault, limit: int, tools: bool) -> None:
    with running(settings(*HEALTHY), fault) as engine:
        right = {tokens: answered_right(engine, tokens, tools=tools) for tokens in (limit - 500, limit + 100)}
        assert right == {limit - 500: True, limit + 100: False}
        assert answered_right(engine, 6000, tools=False) is tools


def answered_right(engine: Engine, tokens: int, *, tools: bool) -> bool:
    prompt = long_needle(tokens - 400 * tools, "off", tools=False)
    reply = engine.ask(body_of(prompt) | ({"tools": list(TOOLS)} if tools else {}))
    return reply.message["content"] == prompt.right


def test_a_call_is_lost_near_the_end_of_the_context() -> None:
    short = settings("--max-model-len", "475", "--max-num-seqs", "64", *PARSERS)
    body = {**body_of(tool_call("auto", "off")), "max_completion_tokens": 40}
    with running(short, Fault.CALL_LOST_NEAR_MAX_CONTEXT) as engine:
        assert engine.ask(body).message["content"] == RAW_CALL
    with running(settings(*HEALTHY), Fault.CALL_LOST_NEAR_MAX_CONTEXT) as engine:
        assert calls_of(engine.ask(body)) == [("get_weather", OSLO)]


def test_a_call_without_arguments_is_lost() -> None:
    tool: Json = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    body: Json = {
        **ASKING,
        "tools": [tool],
        "tool_choice": "required",
        "chat_template_kwargs": {"enable_thinking": False},
    }
    with running(settings(*HEALTHY)) as engine:
        assert calls_of(engine.ask(body)) == [("now", {})]
    with running(settings(*HEALTHY), Fault.ZERO_ARGUMENT_CALL_LOST) as engine:
        reply = engine.ask(body)
    assert (reply.message["content"], calls_of(reply)) == ("<tool_call>now</tool_call>", [])


def test_a_dead_mtp_layer_shows_in_the_counters_only() -> None:
    with running(settings(*LENGTH, *MTP, *PARSERS), Fault.DEAD_MTP) as engine:
        assert engine.ask(body_of(simple("off"))).message["content"] == "42"
        found = samples(engine)
    drafted, accepted = (found[f"vllm:spec_decode_num_{name}_total"][1] for name in ("draft_tokens", "accepted_tokens"))
    assert accepted / drafted == pytest.approx(0.01)
