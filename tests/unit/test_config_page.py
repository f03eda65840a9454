"""docs/config.md: current, complete, its examples valid, and what it says of `pulumi config set --path` true of what we read.

That the CLI writes what the page says it writes is for the tier `engine`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from serving.__main__ import ACCEPTED, main
from serving.config import ConfigError, StackConfig, parse
from serving.config_page import CLI_WRITES, SECTIONS, CliWrite, Words
from serving.stack_file import read
from tests.fixtures.stacks import ROOT, at, stack_text

PAGE = ROOT / "docs" / "config.md"


def test_the_page_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    # If this fails: python -m serving schema --format markdown > docs/config.md
    assert main(["schema", "--format", "markdown"]) == ACCEPTED
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("path", "model", "words"), [(path, model, words) for path, _, model, words in SECTIONS])
def test_every_key_has_its_words(path: str, model: type[BaseModel], words: dict[str, Words]) -> None:
    assert list(words) == [field.alias for field in model.model_fields.values()], path
    for name, field in model.model_fields.items():
        key = str(field.alias)
        # What is derived is said, and only that: other defaults are values.
        assert (words[key].derived is not None) is (not field.is_required() and field.default is None), (path, name)


def test_no_model_is_forgotten() -> None:
    assert {model.__name__ for _, _, model, _ in SECTIONS} == set(StackConfig.model_json_schema()["$defs"])


# --- examples --------------------------------------------------------------------------------------------------------

EXISTING: dict[str, Any] = {"kind": "existing", "context": "my-cluster"}
POOL_ON_EXISTING = {"instanceType": "p5en.48xlarge", "nodes": 1}
EXAMPLES = [
    pytest.param(path, model, key, words.example, id=f"{model.__name__}-{key}")
    for path, _, model, section in SECTIONS
    for key, words in section.items()
]


def setting(path: str, model: type[BaseModel], key: str, example: str) -> dict[str, Any]:
    """Return the dev stack with one example in the place of what it says."""
    config = yaml.safe_load(stack_text("dev"))["config"]
    cluster, pools, workloads = (config[f"glm-on-gpus:{name}"] for name in ("cluster", "nodePools", "workloads"))
    if model.__name__ == "ExistingClusterConfig":
        config["glm-on-gpus:cluster"] = cluster = dict(EXISTING)
        pools["h200"] = dict(POOL_ON_EXISTING)
    sections = {"cluster": cluster, "nodePools.NAME": pools["h200"], "workloads.NAME": workloads["glm"]}
    if path == "nodePools.NAME.capacity":
        kind = model.model_fields["kind"].annotation.__args__[0]  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        pools["h200"]["capacity"] = sections[path] = {"kind": kind}
        if kind != "onDemand":
            sections[path]["reservationId"] = "cr-aaaaaaaaaaaaaaaaa"
    if path == "workloads.NAME.gate":
        workloads["glm"]["gate"] = sections[path] = {}
    # What has to go with it.
    if key in ("efa", "nodesPerReplica"):
        cluster["efaPluginImage"] = "mine/efa@sha256:" + "0" * 64
    if key == "nodesPerReplica":
        pools["h200"] |= {"efa": True, "nodes": int(example)}
    sections[path][key] = yaml.safe_load(example)
    return config


@pytest.mark.parametrize(("path", "model", "key", "example"), EXAMPLES)
def test_every_example_is_a_valid_setting(path: str, model: type[BaseModel], key: str, example: str) -> None:
    assert isinstance(parse(setting(path, model, key, example)), StackConfig)
    assert f"| `{key}` | " in PAGE.read_text(encoding="utf-8")
    assert f" `{example}` |\n" in PAGE.read_text(encoding="utf-8")


# --- what `pulumi config set --path` writes --------------------------------------------------------------------------


def with_written(row: CliWrite, folder: Path) -> Path:
    """Write the dev stack's file as the CLI leaves it: YAML made anew, one value set by its path."""
    document = yaml.safe_load(stack_text("dev"))
    above, last = re.fullmatch(r"(.+?)\.?([^.\[]+|\[\d+\])", row.path).groups()  # pyright: ignore[reportOptionalMemberAccess]
    config = {key.removeprefix("glm-on-gpus:"): value for key, value in document["config"].items()}
    config["workloads"]["glm"].setdefault("env", {})
    place = at(config, above)
    if last[0] == "[":
        place[int(last[1:-1]) :] = [row.written]
    else:
        place[last] = row.written
    path = folder / "Pulumi.dev.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("row", CLI_WRITES, ids=lambda row: f"{row.path}-{row.arguments}")
def test_what_the_cli_writes_is_read_as_the_page_says(row: CliWrite, tmp_path: Path) -> None:
    path = with_written(row, tmp_path)
    assert (row.read is None) is (row.said is not None)
    if row.said is None:
        assert at(parse(read(path)).model_dump(by_alias=True), row.path) == row.read
        return
    with pytest.raises(ConfigError) as refused:
        parse(read(path))
    (problem,) = refused.value.problems
    assert problem.startswith(f"config: {row.path}: ")
    assert row.said in problem


def test_a_setting_taken_out_is_derived_again(tmp_path: Path) -> None:
    document = yaml.safe_load(stack_text("dev"))
    del document["config"]["glm-on-gpus:workloads"]["glm"]["vllmVersion"]  # what `pulumi config rm --path` leaves
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert parse(read(tmp_path / "Pulumi.dev.yaml")).workloads["glm"].vllm_version == "0.31.0"


def test_a_secret_setting_is_refused(tmp_path: Path) -> None:
    row = CliWrite("workloads.glm.env.HF_TOKEN", "--secret hf_x", {"secure": "AAABAJ8="})
    with pytest.raises(ConfigError) as refused:
        parse(read(with_written(row, tmp_path)))
    assert str(refused.value).startswith("config: workloads.glm.env.HF_TOKEN holds a secret; ")
