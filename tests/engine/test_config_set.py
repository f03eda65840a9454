"""`pulumi config set --path` under the real CLI: it writes what docs/config.md says it writes, and the program reads it so."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from serving.config import ConfigError, parse
from serving.config_page import CLI_WRITES, CliWrite
from serving.stack_file import read
from tests.engine.conftest import Project
from tests.fixtures.stacks import at


def stack_file(project: Project) -> Path:
    return project.folder / "Pulumi.dev.yaml"


@pytest.mark.parametrize("row", CLI_WRITES, ids=lambda row: f"{row.path}-{row.arguments}")
def test_the_cli_writes_what_the_page_says(row: CliWrite, project: Project) -> None:
    project.succeed("stack", "init", "dev")
    project.succeed("config", "set", "--stack", "dev", "--path", f"glm-on-gpus:{row.path}", *shlex.split(row.arguments))
    text = yaml.safe_load(stack_file(project).read_text(encoding="utf-8"))["config"]
    written = {name.removeprefix("glm-on-gpus:"): value for name, value in text.items()}
    assert at(written, row.path) == row.written
    assert type(at(written, row.path)) is type(row.written)
    if row.said is None:
        assert at(parse(read(stack_file(project))).model_dump(by_alias=True), row.path) == row.read
    else:
        with pytest.raises(ConfigError, match=row.said):
            parse(read(stack_file(project)))


def test_a_setting_is_taken_out_by_its_path(project: Project) -> None:
    project.succeed("stack", "init", "dev")
    project.succeed("config", "rm", "--stack", "dev", "--path", "glm-on-gpus:workloads.glm.vllmVersion")
    text = yaml.safe_load(stack_file(project).read_text(encoding="utf-8"))["config"]
    assert "vllmVersion" not in text["glm-on-gpus:workloads"]["glm"]
    assert parse(read(stack_file(project))).workloads["glm"].vllm_version == "0.31.0"


def test_a_secret_is_refused_by_its_path_and_not_told(project: Project) -> None:
    project.succeed("stack", "init", "dev")
    path = "glm-on-gpus:workloads.glm.env.HF_TOKEN"
    project.succeed("config", "set", "--stack", "dev", "--path", "--secret", path, "hf_not_to_be_told")
    with pytest.raises(ConfigError, match=r"workloads\.glm\.env\.HF_TOKEN holds a secret"):
        parse(read(stack_file(project)))
    said = project.pulumi("preview", "--stack", "dev")
    assert said.returncode != 0
    assert "holds a secret" in said.stdout + said.stderr
    assert "hf_not_to_be_told" not in said.stdout + said.stderr
