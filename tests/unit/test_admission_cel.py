from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import catalogue
from serving.admission import AdmissionPolicy, policies
from serving.admission.bf16 import _smallest
from serving.admission.cel import pattern, quoted
from serving.reading import from_command
from serving.rules import RULES, apply
from tests.fixtures.rule_cases import P5EN, P6_B200, P6_B300, image, on_b200

POLICIES = {row.rule: row for row in policies()}
BF16 = next(rule for rule in RULES if rule.id == "bf16-one-node")


def table(name: str) -> Any:
    """A table that the policy bf16-one-node carries: CEL's maps and lists are JSON's."""
    return json.loads(next(row.expression for row in POLICIES["bf16-one-node"].variables if row.name == name))


def test_the_rules_that_the_api_server_judges() -> None:
    assert list(POLICIES) == ["image-digest", "model-revision", "bf16-one-node", "dev-mode", "host-path"]


@pytest.mark.parametrize("row", POLICIES.values(), ids=lambda row: row.rule)
def test_a_policy_speaks_in_the_words_of_its_rule(row: AdmissionPolicy) -> None:
    rule = next(rule for rule in RULES if rule.id == row.rule)
    assert row.message == f"{rule.id}: this does not hold: {rule.title}. To do: {rule.remedy}."
    assert row.message_expression.startswith(f'"{rule.id}: " + variables.refusals')
    assert row.message_expression.endswith(f'". To do: {rule.remedy}."')
    assert row.variables[-1].name == "refusals"


def test_every_checkpoint_every_known_image_and_every_release_is_in_the_policy() -> None:
    assert table("precisions") == {name: row.precision for name, row in catalogue.checkpoints().items()}
    assert table("digests") == sorted(row.digest for row in catalogue.engines().values() if row.digest)
    assert table("releases") == list(catalogue.engines())


def test_machines_go_by_their_class_and_by_their_type() -> None:
    machines: Mapping[str, str] = table("machines")
    assert machines["h200-8gpu"] == machines[P5EN] == "8xH200"
    assert machines["b200-8gpu"] == machines[P6_B200] == "8xB200"
    assert machines["b300-8gpu"] == machines[P6_B300] == "8xB300"
    assert set(machines.values()) == table("gpus").keys()


@pytest.mark.parametrize("release", catalogue.engines())
def test_weights_are_the_same_of_every_release_on_every_gpu(release: str) -> None:
    engine, checkpoint = catalogue.engine(release), catalogue.checkpoint_for("glm-5.2", "bf16")
    gpus = {row.gpu.name: row.gpu for row in catalogue.instance_types().values()}
    for mtp, extra in ((False, ""), (True, " with MTP")):
        found = {round(_smallest(checkpoint, engine, gpu, 8, 2, mtp=mtp).weights_gib, 2) for gpu in gpus.values()}
        assert found == {table("weights")["zai-org/GLM-5.2"][f"8x2{extra}"]}


def admits(machine: str, split: str, share: float, extra: str = "") -> bool:
    """What the policy's arithmetic says, on its own tables."""
    gpu = table("gpus")[machine]
    return share * gpu["usable"] > table("weights")["zai-org/GLM-5.2"][split + extra] + gpu["overhead" + extra]


@pytest.mark.parametrize(
    ("machine", "split", "admitted"),
    [
        ("8xH200", "8x1", False),
        ("8xB200", "8x1", False),
        ("8xB300", "8x1", True),
        ("8xB300", "4x1", False),
        ("8xH200", "16x1", True),
        ("8xB200", "16x1", True),
        ("8xH200", "8x2", True),
    ],
)
def test_where_bf16_fits(machine: str, split: str, admitted: bool) -> None:
    assert admits(machine, split, 0.92) is admits(machine, split, 0.92, " with MTP") is admitted


def test_b200_does_not_hold_bf16_with_all_its_memory() -> None:
    # Memory less weights is positive there; what an engine takes beside them decides.
    assert table("gpus")["8xB200"]["usable"] > table("weights")["zai-org/GLM-5.2"]["8x1"]
    assert not admits("8xB200", "8x1", 1.0)


@given(
    share=st.floats(0.05, 1.0).map(lambda value: round(value, 3)),
    instance=st.sampled_from([P5EN, P6_B200, P6_B300]),
    speculates=st.booleans(),
)
def test_the_api_server_admits_no_bf16_that_the_rule_refuses(share: float, instance: str, speculates: bool) -> None:
    speculation = '{"method":"mtp","num_speculative_tokens":1}' if speculates else None
    command = on_b200(
        "zai-org/GLM-5.2",
        gpu_memory_utilization=str(share),
        speculative_config=speculation,
        max_num_seqs="1",
        max_num_batched_tokens="8192",
    )
    machine = catalogue.instance_type(instance)
    facts = from_command("glm", command, {}, image("0.31.0"), machine)
    admitted = admits(machine.shape, "8x1", share, " with MTP" if speculates else "")
    assert apply(BF16, facts).outcome.passed or not admitted
    # It refuses what the rule admits only where the two are within a tenth of a GiB.
    assert (
        admitted
        or not apply(BF16, replace(facts, gpu_memory_utilization=share - 0.1 / machine.gpu.usable_gib)).outcome.passed
    )


def test_literals_of_cel() -> None:
    assert quoted('a "b" \\ …') == '"a \\"b\\" \\\\ …"'
    assert pattern(r"^\d+$") == r'r"^\d+$"'
    for unfit in ('"', "a\nb"):
        with pytest.raises(ValueError, match="write a quote as"):
            pattern(unfit)
