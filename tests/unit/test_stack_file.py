"""Reading stack files and applying overrides. What is wrong inside a file is the table in test_config."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.config import PROJECT, ConfigError
from serving.stack_file import read, stack_file
from tests.fixtures.stacks import ROOT, stack_text

CLUSTER, POOLS, WORKLOADS = (f"{PROJECT}:{name}" for name in ("cluster", "nodePools", "workloads"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stack in ("dev", "prod"):
        (tmp_path / f"Pulumi.{stack}.yaml").write_text(stack_text(stack), encoding="utf-8")
    (tmp_path / "Pulumi.yaml").write_text(f"name: {PROJECT}\n", encoding="utf-8")
    return tmp_path


def one_problem(refusal: pytest.ExceptionInfo[ConfigError]) -> str:
    assert len(refusal.value.problems) == 1
    return str(refusal.value)


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_a_stack_is_found_by_its_name(stack: str) -> None:
    assert stack_file(stack, ROOT) == ROOT / f"Pulumi.{stack}.yaml"


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        ("prdo", "--stack prdo: there is no Pulumi.prdo.yaml in {folder}; allowed are dev or prod; did you mean prod?"),
        ("Dev", "--stack Dev: there is no Pulumi.Dev.yaml in {folder}; allowed are dev or prod; did you mean dev?"),
        ("staging", "--stack staging: there is no Pulumi.staging.yaml in {folder}; allowed are dev or prod"),
        (
            "a/prod",
            "--stack a/prod: there is no Pulumi.a/prod.yaml in {folder}; allowed are dev or prod; did you mean prod?",
        ),
    ],
)
def test_an_unknown_stack(stack: str, said: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        stack_file(stack, folder)
    assert one_problem(refusal) == said.format(folder=folder)


def test_a_folder_without_stack_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        stack_file("prod", tmp_path)
    assert one_problem(refusal) == (
        f"--stack prod: there is no Pulumi.prod.yaml in {tmp_path}; it has no stack file at all"
    )


def test_a_folder_named_like_a_stack_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.prod.yaml").mkdir()
    with pytest.raises(ConfigError):
        stack_file("prod", tmp_path)


def test_settings_keep_their_namespaces(folder: Path) -> None:
    settings = read(folder / "Pulumi.dev.yaml")
    assert set(settings) == {"aws:region", CLUSTER, POOLS, WORKLOADS}
    assert settings["aws:region"] == "us-east-1"
    assert settings[WORKLOADS]["glm"]["maxModelLen"] == 131_072


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        pytest.param("workloads.glm.maxModelLen=262144", (WORKLOADS, "glm", "maxModelLen"), 262_144, id="number"),
        pytest.param("workloads.glm.precision=bf16", (WORKLOADS, "glm", "precision"), "bf16", id="word"),
        pytest.param("workloads.glm.reasoning=false", (WORKLOADS, "glm", "reasoning"), False, id="bool"),
        pytest.param('workloads.glm.vllmVersion="0.28.0"', (WORKLOADS, "glm", "vllmVersion"), "0.28.0", id="quotes"),
        pytest.param("workloads.glm.env={A: '1'}", (WORKLOADS, "glm", "env"), {"A": "1"}, id="map"),
        pytest.param("workloads.glm.env.A='a=b'", (WORKLOADS, "glm", "env", "A"), "a=b", id="equals-sign-in-value"),
        pytest.param("cluster.availabilityZoneIds=[a, b]", (CLUSTER, "availabilityZoneIds"), ["a", "b"], id="list"),
        pytest.param("aws:region=us-west-2", ("aws:region",), "us-west-2", id="another-namespace"),
        pytest.param(f"{PROJECT}:workloads.glm.replicas=2", (WORKLOADS, "glm", "replicas"), 2, id="whole-key"),
        pytest.param("workloads.chat.replicas=2", (WORKLOADS, "chat", "replicas"), 2, id="new-map"),
        pytest.param("workloads.glm.image=", (WORKLOADS, "glm", "image"), None, id="nothing"),
    ],
)
def test_an_override_sets_one_value(override: str, path: tuple[str, ...], value: object, folder: Path) -> None:
    before, after = read(folder / "Pulumi.dev.yaml"), read(folder / "Pulumi.dev.yaml", [override])
    found: object = after
    for key in path:
        assert isinstance(found, dict)
        found = found[key]
    assert found == value
    # Everything else is as it was.
    for key in before:
        assert key == path[0] or after[key] == before[key]
    if path[0] == WORKLOADS and path[1] == "glm":
        rest = {name: setting for name, setting in after[WORKLOADS]["glm"].items() if name != path[2]}
        assert rest == {name: setting for name, setting in before[WORKLOADS]["glm"].items() if name != path[2]}


def test_the_last_override_counts(folder: Path) -> None:
    overrides = ["workloads.glm.replicas=2", "workloads.glm.maxNumSeqs=8", "workloads.glm.replicas=3"]
    glm = read(folder / "Pulumi.dev.yaml", overrides)[WORKLOADS]["glm"]
    assert (glm["replicas"], glm["maxNumSeqs"]) == (3, 8)


def test_an_override_of_an_anchor_changes_one_place_only(tmp_path: Path) -> None:
    text = "config:\n  glm-on-gpus:a: &same { x: 1 }\n  glm-on-gpus:b: *same\n"
    (tmp_path / "Pulumi.x.yaml").write_text(text, encoding="utf-8")
    settings = read(tmp_path / "Pulumi.x.yaml", ["a.x=2"])
    assert (settings[f"{PROJECT}:a"], settings[f"{PROJECT}:b"]) == ({"x": 2}, {"x": 1})


EXPECTED = "expected PATH=VALUE such as workloads.glm.maxModelLen=262144"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("workloads.glm.maxModelLen", EXPECTED),
        ("=5", EXPECTED),
        ("", EXPECTED),
        (".=5", EXPECTED),
        ("workloads..replicas=5", EXPECTED),
        ("workloads.glm.=5", EXPECTED),
        (
            "workloads.glm.replicas.x=1",
            "workloads.glm.replicas is 1, not a map; nothing can be set below it",
        ),
        (
            "cluster.availabilityZoneIds.0=use1-az1",
            "cluster.availabilityZoneIds is ['use1-az6', 'use1-az2'], not a map; nothing can be set below it",
        ),
        (
            "workloads.glm.env=[A",
            "line 1: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
        ),
        (
            "workloads.glm.env.A={{ a }}",
            "line 1: not valid YAML: a map or a list stands where a key is expected; put text with {{ }} in quotes",
        ),
        (
            "workloads.glm.env={A: '1', A: '2'}",
            "line 1: not valid YAML: the key 'A' is given twice; keep one of them",
        ),
    ],
)
def test_an_override_that_cannot_be_applied(override: str, said: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(folder / "Pulumi.dev.yaml", [override])
    assert one_problem(refusal) == f"--set {override}: {said}"
