"""The command line `python -m serving`: exit codes, formats, plain text in a pipe, the schema, and what is not imported."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from serving.__main__ import ACCEPTED, BAD_INPUT, REFUSED, main
from serving.report import as_json, as_markdown
from serving.rules import RULES
from tests.fixtures.stacks import ROOT, plan, stack_text

SCHEMA_FILE = ROOT / "docs" / "stack.schema.json"
SEE_PLAN = "see python -m serving plan --help"


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a process of its own, with its output in pipes."""
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


# --- exit codes and streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "stdout", "stderr"),
    [
        pytest.param(("plan", "--stack", "dev"), ACCEPTED, "# Plan of stack dev: accepted\n", "", id="accepted"),
        pytest.param(
            ("plan", "--stack", "dev", "--set", "workloads.glm.revision=main"),
            REFUSED,
            "# Plan of stack dev: refused\n",
            "stack dev is refused:\n  workloads.glm: model-revision: ",
            id="refused",
        ),
        pytest.param(
            ("plan", "--stack", "dev", "--set", "workloads.glm.replicas=0"),
            BAD_INPUT,
            "",
            "Pulumi.dev.yaml: workloads.glm.replicas: 0 is not allowed; ",
            id="bad-input",
        ),
    ],
)
def test_exit_codes(
    words: Sequence[str], code: int, stdout: str, stderr: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    output = capsys.readouterr()
    assert (output.out == "") is (stdout == "")
    assert (output.err == "") is (stderr == "")
    assert output.out.startswith(stdout)
    assert output.err.startswith(stderr)


def test_the_exit_codes_are_the_documented_ones() -> None:
    assert (ACCEPTED, REFUSED, BAD_INPUT) == (0, 1, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ("plan", "--stak", "prod"),
            "python -m serving plan: unknown option --stak; allowed are --help, --stack, --set or --format; did you mean "
            "--stack? See python -m serving plan --help",
            id="misspelt-option",
        ),
        pytest.param(
            ("plan", "--stac=prod"),
            "python -m serving plan: unknown option --stac; allowed are --help, --stack, --set or --format; did you mean "
            "--stack? See python -m serving plan --help",
            id="option-cut-short",
        ),
        pytest.param(
            ("plan", "--stack", "prod", "--format", "yaml"),
            f"python -m serving plan: argument --format: 'yaml' is unknown; allowed are text, markdown or json; {SEE_PLAN}",
            id="unknown-format",
        ),
        pytest.param(
            ("plan", "--stack", "prod", "--format", "jsn"),
            "python -m serving plan: argument --format: 'jsn' is unknown; allowed are text, markdown or json; did you mean "
            "json? See python -m serving plan --help",
            id="misspelt-format",
        ),
        pytest.param(
            ("plan", "--stack"),
            f"python -m serving plan: argument --stack: expected one argument; {SEE_PLAN}",
            id="option-without-value",
        ),
        pytest.param(
            ("plan",),
            f"python -m serving plan: the following arguments are required: --stack; {SEE_PLAN}",
            id="no-stack",
        ),
        pytest.param(
            ("paln", "--stack", "prod"),
            "python -m serving: argument command: 'paln' is unknown; allowed are plan, diff, rules, mirror, accuracy, schema "
            "or pin; did you mean plan? See python -m serving --help",
            id="misspelt-command",
        ),
        pytest.param(
            (),
            "python -m serving: the following arguments are required: command; see python -m serving --help",
            id="no-command",
        ),
        pytest.param(
            ("plan", "--stack", "prod", "now"),
            "python -m serving: unrecognized arguments: now; see python -m serving --help",
            id="one-word-too-many",
        ),
        pytest.param(
            ("plan", "--stack", "prdo"),
            f"--stack prdo: there is no Pulumi.prdo.yaml in {ROOT}; allowed are dev or prod; did you mean prod?",
            id="misspelt-stack",
        ),
        pytest.param(
            ("plan", "--stack", "prod", "--set", "workloads.glm.maxModelLen"),
            "--set workloads.glm.maxModelLen: expected PATH=VALUE such as workloads.glm.maxModelLen=262144",
            id="set-without-equals-sign",
        ),
        pytest.param(
            ("plan", "--stack", "prod", "--set", "workloads.glm.replicas.minimum=1"),
            "--set workloads.glm.replicas.minimum=1: workloads.glm.replicas is 2, not a map; nothing can be set below it",
            id="set-below-a-scalar",
        ),
    ],
)
def test_bad_arguments_get_one_sentence(words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == BAD_INPUT
    assert capsys.readouterr() == ("", f"{said}\n")


@pytest.mark.parametrize("words", [("--help",), ("plan", "--help")])
def test_help(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "usage: python -m serving" in capsys.readouterr().out


def test_no_file_of_the_folder_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Pulumi.dev.yaml").write_text(stack_text("dev"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--stack", "dev", "--set", "workloads.glm.replicas=1"]) == ACCEPTED
    assert [path.name for path in tmp_path.iterdir()] == ["Pulumi.dev.yaml"]
    assert (tmp_path / "Pulumi.dev.yaml").read_text(encoding="utf-8") == stack_text("dev")


# --- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_a_pipe_gets_plain_text(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--stack", "prod", "--format", form]) == ACCEPTED
    assert capsys.readouterr().out == as_markdown(plan("prod"))


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--stack", "prod", "--format", "json"]) == ACCEPTED
    assert json.loads(capsys.readouterr().out) == as_json(plan("prod"))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", _Terminal())
    assert main(["plan", "--stack", "prod"]) == ACCEPTED
    shown = sys.stdout.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "\x1b[" in shown
    assert "Stack" in shown


def test_a_real_pipe_and_a_real_exit_code() -> None:
    refused = python("-m", "serving", "plan", "--stack", "dev", "--set", "workloads.glm.precision=bf16")
    assert refused.returncode == REFUSED
    assert refused.stdout == as_markdown(plan("dev", "workloads.glm.precision=bf16"))
    assert refused.stderr.startswith("stack dev is refused:\n  workloads.glm: bf16-one-node: BF16 needs ")
    assert "\x1b" not in refused.stdout + refused.stderr


def test_knowledge_imports_no_engine_and_no_cloud() -> None:
    heavy = (
        "pulumi",
        "pulumi_aws",
        "pulumi_kubernetes",
        "kubernetes",
        "botocore",
        "rich",
        "registry",
        "httpx2",
        "tomlkit",
    )
    program = f"import sys, serving.__main__; print([name for name in {heavy} if name in sys.modules])"
    assert python("-c", program).stdout == "[]\n"


# --- rules ---------------------------------------------------------------------------------------------------------


def test_rules_are_listed_with_remedy_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == ACCEPTED
    assert capsys.readouterr().out == "".join(
        f"{rule.id}: {rule.title}\n  level: {rule.level}{', locked' if rule.locked else ''}\n  otherwise: {rule.effect}\n"
        f"  to do: {rule.remedy}\n  source: {rule.source}\n"
        for rule in RULES
    )


def test_the_page_of_rules_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    # If this fails: python -m serving rules --format markdown > docs/rules.md
    assert main(["rules", "--format", "markdown"]) == ACCEPTED
    page = capsys.readouterr().out
    assert page == (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\w+)(, locked)? \|", page, re.M)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")} == {7}
    assert rows == [(rule.id, rule.level, ", locked" if rule.locked else "") for rule in RULES]


# --- schema --------------------------------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def test_the_schema_file_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    # If this fails: python -m serving schema > docs/stack.schema.json
    assert main(["schema"]) == ACCEPTED
    assert capsys.readouterr().out == SCHEMA_FILE.read_text(encoding="utf-8")


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_stack_files_open_with_the_schema_and_fit_it(stack: str) -> None:
    assert stack_text(stack).startswith("# yaml-language-server: $schema=docs/stack.schema.json\n")
    problems = Draft202012Validator(schema()).iter_errors(yaml.safe_load(stack_text(stack)))
    assert [problem.message for problem in problems] == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("maxModelLen: 1048576", "maxModelLength: 1048576", "config/glm-on-gpus:workloads/glm"),
        ("nodes: 2", "nodes: two", "config/glm-on-gpus:nodePools/b200/nodes"),
        ("nodes: 2", "nodes: 0", "config/glm-on-gpus:nodePools/b200/nodes"),
        ("precision: fp8", "precision: fp16", "config/glm-on-gpus:workloads/glm/precision"),
        ("kind: eks", "kind: aks", "config/glm-on-gpus:cluster"),
        ("    glm:", "    GLM:", "config/glm-on-gpus:workloads"),
        ("glm-on-gpus:workloads", "glm-on-gpus:workload", "config"),
        ("aws:region: us-east-1", "aws:region: us-esat-1", "config/aws:region"),
    ],
)
def test_an_editor_sees_a_mistake(old: str, new: str, where: str) -> None:
    text = stack_text("prod")
    assert text.count(old) == 1
    problems = Draft202012Validator(schema()).iter_errors(yaml.safe_load(text.replace(old, new)))
    assert where in {"/".join(map(str, problem.absolute_path)) for problem in problems}
