"""What the pack is as a pack: its policies, their levels, what cannot be switched off, and what is no business of its."""

from __future__ import annotations

import json
import re

import grpc
import pytest

from rehearsal.run import ROOT
from serving.rules import RULES
from tests.fixtures.manifests import Object, in_kind, manifest
from tests.fixtures.parameter_cases import PARAMETER_CASES
from tests.fixtures.rule_cases import P5EN, RuleCase, image, on_h200
from tests.policy.agreement import BY_ID, diagnostic
from tests.policy.analyzer import Analyzer, Diagnostic

LOCKED = {"readable", "bf16-one-node", "image-digest", "model-revision"}
DEPLOYMENT = "kubernetes:apps/v1:Deployment"

# Refused by every locked policy but `readable`, by a mandatory rule and by an advisory one.
BROKEN = manifest(
    RuleCase("", "", False, "", on_h200("zai-org/GLM-5.2", revision="main"), image="vllm/vllm-openai:v1", gated=False),
    "Deployment",
)
UNREADABLE = in_kind(
    "Deployment",
    {
        "nodeSelector": {"node.kubernetes.io/instance-type": P5EN},
        "containers": [
            {
                "name": "vllm",
                "image": image("0.31.0"),
                "command": ["/start.sh"],
                "resources": {"limits": {"nvidia.com/gpu": "8"}},
            }
        ],
    },
)


def levels(found: list[Diagnostic]) -> dict[str, str]:
    return {row.policy: row.level for row in found}


def test_the_pack_has_a_policy_for_each_rule_and_one_for_what_cannot_be_read(pack: Analyzer) -> None:
    info = pack.info()
    assert (info["name"], info["supportsConfig"]) == ("glm-on-gpus", True)
    described = [
        (row["name"], row["description"], row["enforcementLevel"], row["severity"], row["remediationSteps"])
        for row in info["policies"]
    ]
    severity = {"mandatory": "POLICY_SEVERITY_HIGH", "advisory": "POLICY_SEVERITY_LOW"}
    assert described[1:] == [
        (
            rule.id,
            rule.title,
            rule.level.upper(),
            "POLICY_SEVERITY_CRITICAL" if rule.locked else severity[rule.level],
            rule.remedy,
        )
        for rule in RULES
    ]
    assert described[0][:4] == (
        "readable",
        "What a container with GPUs runs can be read from its manifest",
        "MANDATORY",
        "POLICY_SEVERITY_CRITICAL",
    )


def test_every_policy_judges_before_a_resource_is_made(pack: Analyzer) -> None:
    assert {row["policyType"] for row in pack.info()["policies"]} == {"POLICY_TYPE_RESOURCE"}
    assert pack.analyze_stack(BROKEN, DEPLOYMENT) == []


def test_without_configuration_each_policy_has_the_level_of_its_rule(pack: Analyzer) -> None:
    found = levels(pack.analyze(BROKEN))
    assert found.keys() > LOCKED - {"readable"}
    assert found == {rule.id: rule.level for rule in RULES if rule.id in found}
    assert set(found.values()) == {"mandatory", "advisory"}


@pytest.mark.parametrize("level", ["disabled", "advisory", "remediate"])
def test_what_is_locked_stays_mandatory_whatever_is_configured(pack: Analyzer, level: str) -> None:
    for config in ({"all": level}, dict.fromkeys(pack.levels, level), {"all": level, **dict.fromkeys(LOCKED, level)}):
        pack.configure(config)
        found = levels(pack.analyze(BROKEN)) | levels(pack.analyze(UNREADABLE))
        assert {name: found.pop(name) for name in LOCKED} == dict.fromkeys(LOCKED, "mandatory")
        others = {"disabled": set[str](), "advisory": {"advisory"}, "remediate": {"mandatory"}}
        assert set(found.values()) == others[level]


def test_the_page_names_what_is_locked_and_policies_that_there_are(pack: Analyzer) -> None:
    page = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    sentence = next(line for line in page.splitlines() if "stay mandatory" in line)
    assert set(re.findall(r"`([a-z0-9-]+)`", sentence)) == LOCKED
    examples = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.S)]
    assert len(examples) == 2
    for config in examples:
        assert set(config) - {"all"} <= set(pack.levels)
        given = {name: dict(row) for name, row in config.items() if isinstance(row, dict)}
        for row in given.values():
            row.pop("enforcementLevel", None)  # the engine takes it out
        pack.configure({}, given)


def test_what_is_not_locked_has_the_level_that_is_configured(pack: Analyzer) -> None:
    before = levels(pack.analyze(BROKEN))
    assert (before["fit"], before["sparse-path-corruption"]) == ("mandatory", "advisory")
    pack.configure({"fit": "disabled", "sparse-path-corruption": "mandatory"})
    after = levels(pack.analyze(BROKEN))
    del before["fit"]
    assert after == {**before, "sparse-path-corruption": "mandatory"}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in PARAMETER_CASES])
def test_a_parameter_that_is_configured_is_judged_by(pack: Analyzer, case: RuleCase) -> None:
    pack.configure({}, {case.rule: case.parameters})
    said = [row for row in pack.analyze(manifest(case, "Deployment")) if row.policy == case.rule]
    assert said == ([] if case.passes else [diagnostic(BY_ID[case.rule], "container vllm", case.message)])


def test_the_engine_knows_each_parameter_with_its_bounds(pack: Analyzer) -> None:
    policies = pack.info()["policies"]
    assert {row["name"]: row["configSchema"]["properties"] for row in policies if "configSchema" in row} == {
        rule.id: {row.name: {"description": row.meaning, **row.schema} for row in rule.parameters}
        for rule in RULES
        if rule.parameters
    }


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        pytest.param(
            {"fit": {"minFullLengthRequest": 2}},
            "fit: no parameter 'minFullLengthRequest'; allowed are enforcementLevel or minFullLengthRequests; "
            "did you mean minFullLengthRequests?",
            id="misspelt-parameter",
        ),
        pytest.param(
            {"kv-nvfp4": {"limit": 2}},
            "kv-nvfp4: no parameter 'limit'; allowed is enforcementLevel",
            id="policy-without-parameters",
        ),
        pytest.param(
            {"all": {"minSpareSeconds": 2}},
            "all: no parameter 'minSpareSeconds'; allowed is enforcementLevel",
            id="parameter-of-all",
        ),
        pytest.param(
            {"mnbt-h20": {}},
            "the policy pack has no policy 'mnbt-h20'; did you mean mnbt-h200? (docs/rules.md lists them)",
            id="misspelt-policy",
        ),
    ],
)
def test_a_configuration_of_what_does_not_exist_is_refused(
    pack: Analyzer, parameters: dict[str, dict[str, object]], sentence: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        pack.configure({}, parameters)
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, sentence)


def test_what_is_unreadable_is_told_once(pack: Analyzer) -> None:
    found = {row.policy: row for row in pack.analyze(UNREADABLE)}
    assert found.pop("readable") == Diagnostic(
        "readable",
        "mandatory",
        "What a container with GPUs runs can be read from its manifest\ncontainer vllm: cannot be judged: "
        "it runs a program that may start vLLM with flags of its own. To do: write the command out: `vllm serve MODEL` "
        "with its flags, variables as literal values",
    )
    # What else is said is known without the command.
    assert "bf16-one-node" not in found
    assert not [row for row in found.values() if "cannot be judged" in row.message]


def test_what_is_no_pod_is_not_judged(pack: Analyzer) -> None:
    assert pack.analyze(BROKEN, "aws:ec2/instance:Instance") == []
    assert pack.analyze({"kind": "ConfigMap", "data": {"spec": "x"}}, "kubernetes:core/v1:ConfigMap") == []
    assert pack.analyze({}, DEPLOYMENT) == []


@pytest.mark.parametrize("key", ["initContainers", "ephemeralContainers"])
def test_containers_beside_the_main_ones_are_judged(pack: Analyzer, key: str) -> None:
    engine = BROKEN["spec"]["template"]["spec"]["containers"][0]
    spec: Object = {
        **BROKEN["spec"]["template"]["spec"],
        "containers": [{"name": "web", "image": "web:1", "command": ["haproxy"]}],
        key: [engine],
    }
    found = pack.analyze(in_kind("Deployment", spec))
    assert LOCKED - {"readable"} < {row.policy for row in found}
    where = {"initContainers": "init container vllm", "ephemeralContainers": "ephemeral container vllm"}[key]
    assert all(f"\n{where}: " in row.message for row in found)
