"""The JSON Schema against the program: what the program takes, an editor takes, and most of what it refuses is red there too."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from serving.config import ConfigError, json_schema, parse
from serving.stack_file import _load, _NotYamlError
from tests.fixtures.stacks import config_of, stack_text
from tests.unit.test_config import MISTAKES, VALUES, Mistake, places, put

# What a schema cannot say: how two settings go together, and what an address or a name may not be.
ONLY_THE_PROGRAM_SAYS = {
    *("workload-in-a-namespace-of-others", "unknown-pool", "no-revision-known", "release-without-digest"),
    *("more-replicas-than-nodes", "two-workloads-on-too-few-nodes", "capacity-left-out"),
    *("zone-left-out", "zone-that-does-not-offer-the-type", "zone-that-is-not-the-clusters", "zone-of-another-region"),
    *("one-zone-twice", "no-region", "region-without-the-type", "machine-image-of-another-version"),
    *("api-open-to-everybody", "invalid-cidr", "address-for-network", "ipv6-network", "vpc-too-large"),
    *("scheduled-without-a-start", "a-day-that-there-is-not", "a-block-that-ends-at-another-time"),
    *("a-block-that-ends-before-it-starts", "a-block-of-more-than-half-a-year"),
    "two-pools-that-disagree-about-their-block",
    "thoughts-that-nobody-takes-out",
}


@cache
def schema() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def problems(document: object) -> list[str]:
    """Return what an editor shows; in JSON every key is a text."""
    as_json = json.loads(json.dumps(document, default=str))
    return [f"{'/'.join(map(str, row.absolute_path))}: {row.message}" for row in schema().iter_errors(as_json)]


def loaded(mistake: Mistake) -> object:
    """Return what the YAML of a mistake says, or None if it is none, or given as arguments."""
    try:
        return None if mistake.arguments else _load(mistake.content.decode())
    except (_NotYamlError, UnicodeDecodeError):
        return None


def test_an_editor_sees_what_the_program_refuses() -> None:
    documents = {mistake.name: loaded(mistake) for mistake in MISTAKES}
    unseen = {name for name, document in documents.items() if document is not None and not problems(document)}
    assert unseen == ONLY_THE_PROGRAM_SAYS


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_stack_files_fit(stack: str) -> None:
    assert problems(yaml.safe_load(stack_text(stack))) == []


@settings(max_examples=200)
@given(
    st.data(), st.sampled_from(["dev", "prod"]), VALUES | st.sampled_from(["0.9", ".5", "1.0", 1, 0.5, 1.0, 1024, 2.0])
)
def test_what_the_program_takes_fits(data: st.DataObject, stack: str, value: Any) -> None:
    tree = config_of(stack)
    tree["glm-on-gpus:workloads"]["glm"]["gpuMemoryUtilization"] = 0.92
    changed = put(tree, data.draw(st.sampled_from([place for place in places(tree) if place])), value)
    try:
        parse(changed)
    except ConfigError:
        return
    assert problems({"config": changed}) == []


@pytest.mark.parametrize("given_", ["0.9", ".9", "1.0", "0.925"])
def test_a_fraction_as_the_cli_writes_it_fits(given_: str) -> None:
    tree = yaml.safe_load(stack_text("dev"))
    tree["config"]["glm-on-gpus:workloads"]["glm"]["gpuMemoryUtilization"] = given_
    assert parse(tree["config"]).workloads["glm"].gpu_memory_utilization == float(given_)
    assert problems(tree) == []
