"""The report for people: every term, every verdict, the bar; in Markdown and in a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from serving.plan import Plan, WorkloadPlan
from serving.report import as_markdown, as_rich, refusal
from serving.rules import RULES
from tests.fixtures.stacks import plan

BAR_CELLS = 60
DEV, PROD = plan("dev"), plan("prod")
BF16 = plan("dev", "workloads.glm.precision=bf16")
TIGHT = plan("dev", "workloads.glm.gpuMemoryUtilization=0.3")
WHOLE = plan("prod", "workloads.glm.gpuMemoryUtilization=1")
PLANS = [
    pytest.param(DEV, id="dev"),
    pytest.param(PROD, id="prod"),
    pytest.param(BF16, id="bf16"),
    pytest.param(TIGHT, id="no-pool"),
    pytest.param(WHOLE, id="all-memory"),
]


def in_terminal(shown: Plan, width: int = 160) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=True, color_system="truecolor").print(as_rich(shown))
    return stream.getvalue()


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def in_words(text: str) -> str:
    """Return a terminal's text without colours and without the places where its lines break."""
    return " ".join(re.sub(r"[│┃]", " ", without_colour(text)).split())


def glm(shown: Plan) -> WorkloadPlan:
    return shown.workloads["glm"]


def bar(shown: Plan) -> str:
    found = re.search(r"One GPU, [\d.]+ GiB: `([WOK.]*)`", as_markdown(shown))
    assert found
    return found[1]


# --- both forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", PLANS)
def test_every_term_of_one_gpus_memory_is_named_with_its_gib(shown: Plan) -> None:
    memory = glm(shown).memory
    markdown, terminal = as_markdown(shown), in_words(in_terminal(shown))
    named = [("weights", t.name, t.gib) for t in memory.weights] + [
        ("overhead", t.name, t.gib) for t in memory.overhead
    ]
    named += [("KV cache", "pool", memory.kv_pool_gib), ("free", "outside vLLM's share", memory.free_gib)]
    assert len(named) >= 15
    for kind, name, gib in named:
        assert f"| {kind}: {name} | {gib:.2f} | " in markdown
        assert f"{kind}: {name} {gib:.2f} " in terminal


@pytest.mark.parametrize("shown", PLANS)
def test_the_terms_of_a_report_add_up_to_the_gpu(shown: Plan) -> None:
    shares = re.findall(r"^\| (?:weights|overhead|KV cache|free): [^|]+ \| (-?[\d.]+) \|", as_markdown(shown), re.M)
    assert sum(map(float, shares)) == pytest.approx(glm(shown).memory.usable_gib, abs=0.1)


@pytest.mark.parametrize("shown", PLANS)
def test_every_rule_is_shown_with_why_it_passed_or_refused(shown: Plan) -> None:
    markdown, terminal = as_markdown(shown), in_words(in_terminal(shown, 400))
    refused = {violation.rule for violation in shown.violations}
    for verdict in glm(shown).verdicts:
        mark, word = ("✗", "**refused**") if verdict.rule.id in refused else ("✓", "passed")
        assert f"| {verdict.rule.id} | {word} | {verdict.outcome.why}" in markdown
        assert f"{mark} {verdict.rule.id} {verdict.outcome.why}" in terminal
    assert len(glm(shown).verdicts) == len(RULES)


@pytest.mark.parametrize("shown", PLANS)
def test_the_bar_has_one_width(shown: Plan) -> None:
    memory = glm(shown).memory
    assert len(bar(shown)) == BAR_CELLS
    assert re.fullmatch(r"W+O*K*\.*", bar(shown))
    blocks = without_colour(in_terminal(shown)).count("█")
    assert blocks == BAR_CELLS
    # A cell is a sixtieth of the GPU, as long as the bar has room for it.
    weights = min(round(memory.weights_gib / memory.usable_gib * BAR_CELLS), BAR_CELLS)
    assert bar(shown).count("W") == weights


def test_the_bar_of_the_dev_stack() -> None:
    # 139.8 GiB: 90.1 of weights, 8.0 of overhead, 30.4 of KV cache, 11.2 outside vLLM's share.
    assert bar(DEV) == "W" * 39 + "O" * 3 + "K" * 13 + "." * 5


def test_a_pool_that_is_not_there_takes_no_cell() -> None:
    assert "K" not in bar(BF16)
    assert "K" not in bar(TIGHT)
    assert "." not in bar(WHOLE)


# --- Markdown ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (DEV, "# Plan of stack dev: accepted"),
        (BF16, "# Plan of stack dev: refused"),
        (DEV, "- model: zai-org/GLM-5.2-FP8 at 31cba24fb749908a485082bdeed6eb1ac6cffc2f"),
        (DEV, "- replicas: 1 on pool h200, tensor parallel size 8"),
        (DEV, "- KV cache: 30.4 GiB, 597,184 tokens at 54,728 B each"),
        (DEV, "- requests: 4.56 of 131,072 tokens at once for each replica, at most 128 running"),
        (
            DEV,
            "- first start: about 31 min, of it 13 min to fetch, 10 min to load, 6 min to start the engine, "
            "1 min to prove its answers",
        ),
        (
            DEV,
            "- rollout: no spare node: serving stops for about 23 min, and stays stopped if the new pod fails its checks",
        ),
        (
            PROD,
            "- rollout: one of 2 replicas at a time; a new pod that fails its checks ends the rollout, the others serve on",
        ),
        (
            plan("dev", "nodePools.h200.nodes=2"),
            "- rollout: the new pod starts on a spare node and proves its answers, then the old one ends",
        ),
        (
            DEV,
            "| h200 | 1 x p5en.48xlarge (8xH200) | onDemand | 63.30 | 46,206 | on-demand list price of us-east-1, "
            "2026-07-20 (Karpenter's AWS provider price list) |",
        ),
        (
            PROD,
            "| **all** | | | **227.87** | **166,342** | GPU nodes only: control plane, system nodes, NAT and traffic "
            "come on top |",
        ),
    ],
)
def test_a_line_of_the_report(shown: Plan, line: str) -> None:
    assert line in as_markdown(shown).splitlines()


def test_a_refused_rule_says_what_to_do_and_where_that_comes_from() -> None:
    rule = next(rule for rule in RULES if rule.id == "bf16-one-node")
    line = next(line for line in as_markdown(BF16).splitlines() if line.startswith("| bf16-one-node |"))
    assert line.endswith(f". To do: {rule.remedy}. Source: {rule.source} |")


@pytest.mark.parametrize(
    "shown",
    [
        *PLANS,
        pytest.param(plan("dev", "workloads.glm.image='a|b|c'"), id="bars-in-an-image"),
        pytest.param(plan("dev", "workloads.glm.env.VLLM_CACHE_ROOT='/a|b/c'"), id="bars-in-a-path"),
        pytest.param(plan("dev", 'workloads.glm.env.VLLM_SERVER_DEV_MODE="a\\nb"'), id="line-break-in-a-variable"),
    ],
)
def test_tables_keep_their_columns(shown: Plan) -> None:
    columns = 0
    rows = 0
    for line in as_markdown(shown).splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        columns = columns or cells
        assert cells == columns, line
        rows += 1
    assert rows > 30


def test_unknown_prices_are_unknown() -> None:
    overrides = (
        "aws:region=us-east-2",
        "cluster.availabilityZoneIds=[use2-az1, use2-az2]",
        "nodePools.h200={instanceType: p5e.48xlarge, nodes: 1, availabilityZoneId: use2-az1, capacity: {kind: onDemand}}",
    )
    shown = plan("dev", *overrides)
    assert "| **all** | | | **unknown** | **unknown** | " in as_markdown(shown)
    assert "unknown" in in_words(in_terminal(shown))


# --- refusals ------------------------------------------------------------------------------------------------------


def test_a_refusal_for_an_error_message() -> None:
    shown = plan("dev", "workloads.glm.image=vllm/vllm-openai", "workloads.glm.revision=main")
    assert refusal(shown) == (
        "stack dev is refused:\n"
        "  workloads.glm: image-digest: image 'vllm/vllm-openai' is not pinned by digest (repository@sha256: and 64 "
        "hexadecimal digits). To do: name the image as repository@sha256:….\n"
        "  workloads.glm: model-revision: revision 'main' is not a commit for zai-org/GLM-5.2-FP8; expected 40 hexadecimal "
        "digits. To do: set revision to a commit of the model's repository, or leave it out for the catalogue's."
    )


# --- terminal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", PLANS)
def test_a_terminal_shows_the_headline_figures(shown: Plan) -> None:
    words = in_words(in_terminal(shown))
    memory = glm(shown).memory
    assert f"Stack {shown.stack}: {'refused' if shown.violations else 'accepted'}" in words
    assert f"{memory.kv_pool_tokens:,} tokens at {memory.kv_bytes_per_token:,} B each" in words
    assert f"{memory.full_length_requests:.2f} of {glm(shown).max_model_len:,} tokens at once" in words
    assert f"one GPU, {memory.usable_gib:.1f} GiB" in words


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("shown", PLANS)
def test_a_terminal_of_any_width_is_not_overrun(shown: Plan, width: int) -> None:
    lines = without_colour(in_terminal(shown, width)).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.count("█") for line in lines) == BAR_CELLS
