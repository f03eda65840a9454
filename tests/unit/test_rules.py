"""Every rule against the shared table of workloads, and the published runs through the whole rule table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

import pytest

from serving import catalogue
from serving.facts import UnknownFactError, WorkloadFacts
from serving.rules import RULES, Outcome, Parameter, Rule, advice, apply, image_problem, judge, violations
from tests.fixtures.parameter_cases import PARAMETER_CASES
from tests.fixtures.rule_cases import (
    CASES,
    P5EN,
    P6_B200,
    P6_B300,
    UNKNOWN_IMAGE,
    RuleCase,
    image,
    on_b200,
    on_h200,
)

BY_ID = {rule.id: rule for rule in RULES}


def refused(case: RuleCase) -> list[str]:
    return [violation.rule for violation in violations(judge(case.facts))]


def workload(command: Iterable[str], instance_type: str, release: str = "0.31.0") -> RuleCase:
    return RuleCase("", "", True, "", tuple(command), instance_type, image(release))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_rule(case: RuleCase) -> None:
    outcome = apply(BY_ID[case.rule], case.facts).outcome
    assert (outcome.passed, outcome.why) == (case.passes, case.message)


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in RULES])
def test_every_rule_has_a_workload_that_passes_and_one_that_is_refused(rule: Rule) -> None:
    assert {case.passes for case in CASES if case.rule == rule.id} == {True, False}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in PARAMETER_CASES])
def test_a_stricter_parameter(case: RuleCase) -> None:
    outcome = apply(BY_ID[case.rule], case.facts, case.parameters).outcome
    assert (outcome.passed, outcome.why) == (case.passes, case.message)


def test_every_parameter_refuses_a_workload_that_the_table_passes_and_passes_one() -> None:
    there_are = {(rule.id, row.name) for rule in RULES for row in rule.parameters}
    for verdict in (True, False):
        assert there_are == {
            (case.rule, name)
            for case in PARAMETER_CASES
            for name in case.parameters
            if case.passes is verdict and apply(BY_ID[case.rule], case.facts).outcome.passed
        }


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in (*CASES, *PARAMETER_CASES)])
def test_the_figures_of_the_schemas_are_those_of_the_table_and_no_parameter_passes_what_it_refuses(
    case: RuleCase,
) -> None:
    rule = BY_ID[case.rule]
    by_table = apply(rule, case.facts).outcome
    defaults = {row.name: row.schema["default"] for row in rule.parameters if "default" in row.schema}
    assert apply(rule, case.facts, defaults).outcome == by_table
    for row in PARAMETER_CASES:
        if row.rule == case.rule and not by_table.passed:
            assert not apply(rule, case.facts, row.parameters).outcome.passed


@pytest.mark.parametrize(
    "parameter", [pytest.param(row, id=f"{rule.id}-{row.name}") for rule in RULES for row in rule.parameters]
)
def test_a_schema_bounds_a_figure_by_the_tables_own(parameter: Parameter) -> None:
    bounds = [parameter.schema[key] for key in ("minimum", "maximum") if key in parameter.schema]
    assert parameter.schema.get("default") == (bounds[-1] if bounds else None)
    assert parameter.schema["type"] in {"integer", "number", "string", "array"}


def test_the_table_of_workloads_names_only_rules_and_no_case_twice() -> None:
    assert {case.rule for case in CASES} == set(BY_ID)
    assert len({case.id for case in CASES}) == len(CASES)


# The ids are an interface: stack files, policies and admission rules name them.
MANDATORY = """
    fit bf16-one-node h200-len mnbt-h200 gmu-high-h200 decode-scratch sparse-decode-scratch seqs-default ctx-600k-h200
    nvfp4-hopper kv-e4m3-hopper kv-auto-hopper kv-nvfp4 long-context-quality
    image-digest model-revision dev-mode stale-cache host-path
    parser-old parser-missing tools-forced-024 tools-required-026
    engine-too-old b200-garbage-023 indexer-expand-023 deepgemm-b200-023 fi-moe-hang-023 host-mem-028 nixl-mtp
    runai-load runai-mtp-028 reorder-load ready-600
    pp-split dcp-028 dcp-029 dcp-any dcp-workspace dcp-ranks dcp-hopper lmcache-pp lmcache-dcp
    offload-shm
"""
ADVISORY = """
    mtp-accuracy mtp-quality allreduce-mnnvl sparse-path-corruption turn3-reasoning tools-residual
    rss-leak mrv2 no-deepgemm omp-load warmup-b200 pp-tools nccl-tcp offload-ghost
"""


def test_rule_ids_and_levels() -> None:
    assert [rule.id for rule in RULES if rule.level == "mandatory"] == MANDATORY.split()
    assert [rule.id for rule in RULES if rule.level == "advisory"] == ADVISORY.split()
    assert {rule.id for rule in RULES if rule.locked} == {"bf16-one-node", "image-digest", "model-revision"}


def test_every_fault_of_a_release_is_a_rule() -> None:
    assert {fault for engine in catalogue.engines().values() for fault in engine.faults} <= set(BY_ID)


def test_what_cannot_be_known_is_refused_where_the_verdict_depends_on_it() -> None:
    facts = replace(workload(on_h200(), P5EN).facts, unknown={"max_model_len": "it comes from a ConfigMap"})
    verdicts = {verdict.rule.id: verdict.outcome for verdict in judge(facts)}
    for depends in ("fit", "h200-len", "decode-scratch"):
        assert (verdicts[depends].passed, verdicts[depends].why) == (
            False,
            "cannot be judged: it comes from a ConfigMap",
        )
    for does_not in ("image-digest", "kv-e4m3-hopper", "bf16-one-node", "host-path"):
        assert verdicts[does_not].passed
    with pytest.raises(UnknownFactError, match="it comes from a ConfigMap"):
        _ = facts.max_model_len


FACTS = [row.name for row in fields(WorkloadFacts) if row.name not in {"workload", "unknown"}]


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in RULES])
def test_an_unknown_fact_changes_a_verdict_only_to_cannot_be_judged(rule: Rule) -> None:
    rests_on: set[str] = set()
    for facts in (case.facts for case in CASES if case.rule == rule.id and not case.facts.unknown):
        usual = apply(rule, facts).outcome
        for name in FACTS:
            outcome = apply(rule, replace(facts, unknown={name: "nobody knows"})).outcome
            if outcome != usual:
                assert outcome == Outcome(passed=False, why="cannot be judged: nobody knows")
                rests_on.add(name)
    assert rests_on  # a rule that rests on no fact judges nothing


def test_an_unknown_machine_still_shows_its_pins() -> None:
    facts = replace(workload(on_h200(revision="main"), P5EN).facts, unknown={"instance": "no label names its machine"})
    outcomes = {verdict.rule.id: verdict.outcome for verdict in judge(facts)}
    assert outcomes["fit"].why == "cannot be judged: no label names its machine"
    assert outcomes["image-digest"].passed
    assert (
        outcomes["model-revision"].why
        == "revision 'main' is not a commit for zai-org/GLM-5.2-FP8; expected 40 hexadecimal digits"
    )


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in RULES])
def test_a_rule_says_what_happens_what_to_do_and_why_it_is_believed(rule: Rule) -> None:
    for text in (rule.title, rule.effect, rule.remedy, rule.source):
        assert text
        assert text == text.strip()
        assert not text.endswith(".")  # the report ends the sentence


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_a_refusal_carries_the_rule_and_its_remedy(case: RuleCase) -> None:
    told = violations if BY_ID[case.rule].level == "mandatory" else advice
    found = {violation.rule: violation for violation in told(judge(case.facts))}
    assert (case.rule in found) is not case.passes
    if case.rule in found:
        rule, violation = BY_ID[case.rule], found[case.rule]
        assert (violation.workload, violation.message) == ("glm", case.message)
        assert (violation.remedy, violation.source) == (rule.remedy, rule.source)


def test_every_rule_judges_every_workload_in_the_order_of_the_table() -> None:
    assert [verdict.rule for verdict in judge(workload(on_h200(), P5EN).facts)] == list(RULES)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(workload(on_h200(), P5EN), id="h200"),
        pytest.param(workload(on_b200(), P6_B200), id="b200"),
        pytest.param(workload(on_b200(), P6_B300), id="b300"),
        pytest.param(workload(on_b200("zai-org/GLM-5.2", revision="4" * 40), P6_B300), id="bf16-on-b300"),
        pytest.param(workload(on_b200("nvidia/GLM-5.2-NVFP4", revision="a" * 40), P6_B200), id="nvfp4-on-b200"),
        # vllm#48095 ran this (0.24.0, 0.90, 200,000 tokens, 32 requests, MTP 5); with tools it left calls in the content.
        pytest.param(
            workload(
                on_h200(
                    max_model_len="200000",
                    gpu_memory_utilization="0.9",
                    max_num_seqs="32",
                    tool_call_parser=None,
                    enable_auto_tool_choice=None,
                ),
                P5EN,
                "0.24.0",
            ),
            id="vllm#48095",
        ),
        # vllm#46654: 8xB200 FP8 at 1M serves one to two full-length requests.
        pytest.param(workload(on_b200(max_num_batched_tokens=None), P6_B200, "0.28.0"), id="vllm#46654"),
    ],
)
def test_nothing_refuses_what_is_known_to_work(case: RuleCase) -> None:
    assert refused(case) == []


def test_the_published_run_that_did_not_start_is_refused() -> None:
    # kaitakuai glm-5.2-fp8-8xh200: vLLM 0.23, 131,072 batched tokens at 0.90, no MTP: -3.95 GiB for the KV cache.
    command = on_h200(max_num_batched_tokens="131072", gpu_memory_utilization="0.9", speculative_config=None)
    assert "mnbt-h200" in refused(workload(command, P5EN, "0.23.0"))


def test_the_published_run_with_garbage_is_refused_for_its_output_not_for_its_memory() -> None:
    # kaitakuai glm-5.2-fp8-8xb200 started 0.23 at 1M without MTP; vllm#46367 is what it answers.
    command = on_b200(gpu_memory_utilization="0.9", speculative_config=None, max_num_batched_tokens=None)
    assert refused(workload(command, P6_B200, "0.23.0")) == ["b200-garbage-023", "indexer-expand-023"]


def test_the_recipes_h200_command_is_refused_for_its_length() -> None:
    # The vLLM recipe's command for 8xH200 leaves out --max-model-len and --max-num-seqs.
    command = on_h200(max_model_len=None, max_num_seqs=None)
    assert refused(workload(command, P5EN)) == ["fit", "h200-len", "decode-scratch", "seqs-default"]


@pytest.mark.parametrize("instance_type", [P5EN, P6_B200])
def test_bf16_on_one_node_is_refused_by_its_own_rule_alone(instance_type: str) -> None:
    command = (on_h200 if instance_type == P5EN else on_b200)("zai-org/GLM-5.2")
    assert refused(workload(command, instance_type)) == ["bf16-one-node"]


def test_an_unknown_digest_fails_closed() -> None:
    # Whatever depends on the release is refused; a release below 0.24 could be behind the digest.
    for command, instance_type in ((on_h200(), P5EN), (on_b200(), P6_B200)):
        case = replace(workload(command, instance_type), image=UNKNOWN_IMAGE)
        assert {"fit", "parser-old", "indexer-expand-023"} <= set(refused(case))
    assert "h200-len" in refused(replace(workload(on_h200(), P5EN), image=UNKNOWN_IMAGE))
    assert "b200-garbage-023" in refused(replace(workload(on_b200(), P6_B200), image=UNKNOWN_IMAGE))


def test_an_unknown_model_fails_closed() -> None:
    for command, instance_type in ((on_h200("acme/GLM"), P5EN), (on_b200("acme/GLM"), P6_B200)):
        assert {"fit", "bf16-one-node", "nvfp4-hopper"} <= set(refused(workload(command, instance_type)))


def test_a_stated_release_stands_for_an_unknown_digest() -> None:
    case = replace(workload(on_h200(), P5EN), image=UNKNOWN_IMAGE, engine="0.31.0")
    assert refused(case) == []


@pytest.mark.parametrize("release", [row.version for row in catalogue.engines().values() if row.digest])
def test_the_public_images_of_the_catalogue_are_pinned(release: str) -> None:
    assert image_problem(image(release)) is None
