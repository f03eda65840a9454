"""`python -m serving diff` around its comment: whose code plans which side, hostile text, consequences, and bad arguments."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from serving.__main__ import ACCEPTED, BAD_INPUT, REFUSED, main
from serving.report import as_json
from serving.review import markdown, text
from serving.review.changes import Change
from serving.review.compare import Consequence, compare
from serving.review.planned import Planned
from serving.review.resources import PolicyMessage, ResourceChange, ResourceChanges
from serving.review.review import Request, Review, review
from serving.review.sides import ABSENT, Side
from tests.fixtures.repository import SERVING, STACK_FILES, ScratchRepository
from tests.fixtures.stacks import plan

DEV, PROD = "Pulumi.dev.yaml", "Pulumi.prod.yaml"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScratchRepository:
    """A repository whose work tree is the current folder."""
    repository = ScratchRepository(tmp_path / "repository", STACK_FILES, SERVING)
    monkeypatch.chdir(repository.folder)
    return repository


def diff(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["diff", "--base", "main", *words])
    output = capsys.readouterr()
    return code, output.out, output.err


def reviewed(scratch: ScratchRepository, head: str | None = None) -> Review:
    return review(Request(scratch.folder, "main", head, []))


# --- bad arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--base", "orgin/main"), "--base orgin/main: git knows no such commit, branch or tag"),
        (("--head", "mian"), "--head mian: git knows no such commit, branch or tag; did you mean main?"),
        (
            ("--stack", "prdo"),
            "--stack prdo: neither side has a Pulumi.prdo.yaml; allowed are dev or prod; did you mean prod?",
        ),
        (
            ("--formt", "json"),
            "python -m serving diff: unknown option --formt; allowed are --help, --base, --head, --stack, --rendered, "
            "--previewed or --format; did you mean --format? See python -m serving diff --help",
        ),
    ],
)
def test_bad_arguments_get_one_sentence(
    scratch: ScratchRepository, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diff(capsys, *words) == (BAD_INPUT, "", f"{said}\n")
    assert scratch.git("status", "--porcelain") == ""


def test_a_repository_without_stack_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = ScratchRepository(tmp_path, STACK_FILES)
    for path in tmp_path.glob("Pulumi.*.yaml"):
        path.unlink()
    scratch.git("checkout", "--quiet", "--orphan", "empty")
    scratch.commit("nothing")
    monkeypatch.chdir(tmp_path)
    assert main(["diff", "--base", "HEAD"]) == BAD_INPUT
    assert capsys.readouterr() == ("", "neither side has a stack file Pulumi.NAME.yaml\n")


@pytest.mark.usefixtures("scratch")
def test_a_rendering_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ("base", "head"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "dev.json").write_text("no JSON", encoding="utf-8")
    code, out, said = diff(capsys, "--rendered", str(tmp_path))
    assert (code, out) == (BAD_INPUT, "")
    assert said == (
        f"{tmp_path}/head/dev.json: not a rendering; write it with python -m rehearsal resources --stack NAME\n"
    )


# --- sides ---------------------------------------------------------------------------------------------------------------


def test_only_the_stacks_asked_for(scratch: ScratchRepository, capsys: pytest.CaptureFixture[str]) -> None:
    scratch.edit(DEV, ("precision: fp8", "precision: bf16"))
    code, out, _ = diff(capsys, "--stack", "prod", "--format", "json")
    assert code == ACCEPTED
    assert list(json.loads(out)["stacks"]) == ["prod"]
    assert diff(capsys, "--stack", "dev", "--stack", "prod")[0] == REFUSED


def test_a_head_that_is_a_commit(scratch: ScratchRepository) -> None:
    scratch.git("switch", "--quiet", "--create", "change")
    scratch.edit(DEV, ("maxModelLen: 131072", "maxModelLen: 65536"))
    head = scratch.commit("change")
    scratch.edit(DEV, ("maxModelLen: 65536", "maxModelLen: 128k"))  # the work tree does not count
    found = reviewed(scratch, "change")
    assert (found.base, found.head, found.head_by_its_own_code) == (scratch.base, head, True)
    assert found.stacks[0].settings == (Change("workloads.glm.maxModelLen", 131_072, 65_536),)


def test_a_base_is_planned_by_its_own_code(scratch: ScratchRepository) -> None:
    # The base's catalogue has another digest: the stack file does not change, the image does.
    mirrored = "sha256:" + "0" * 64
    ours = plan("dev").workloads["glm"].image
    scratch.edit("serving/catalogue/pins.toml", (ours.partition("@")[2], mirrored))
    scratch.git("commit", "--quiet", "--all", "--message", "another catalogue")
    scratch.edit("serving/catalogue/pins.toml", (mirrored, ours.partition("@")[2]))
    found = reviewed(scratch)
    dev = found.stacks[0]
    assert dev.settings == ()
    assert dev.workloads[0].pins[0] == Change("image", f"vllm/vllm-openai@{mirrored}", ours)
    assert found.program == ("serving/catalogue/pins.toml",)
    assert (found.head_by_its_own_code, found.notes) == (True, ())
    said = markdown.as_markdown(found)
    assert (
        "What stacks are made from changes too: `serving/catalogue/pins.toml`. The base is planned by its own code, "
        "the head by its own.\n"
    ) in said
    assert "**serving stops for about " in said


def test_a_base_that_its_own_code_refuses_as_input(scratch: ScratchRepository) -> None:
    scratch.edit("serving/catalogue/engines.toml", ('[engine."0.31.0"]', '[engine."0.31.1"]'))
    scratch.git("commit", "--quiet", "--all", "--message", "a base that does not know the release")
    scratch.git("checkout", "--quiet", "HEAD~1", "--", "serving")
    before = reviewed(scratch).stacks[0].before
    assert (before.verdict, before.planned) == ("bad input", None)
    assert before.problems[0].startswith("Pulumi.dev.yaml: workloads.glm.vllmVersion: ")


@pytest.mark.parametrize(
    ("broken", "note"),
    [
        (
            "raise SystemError('the base is broken')",
            "the base's own code does not plan it (SystemError: the base is broken)",
        ),
        ("print('{}')", "the base's own code does not plan it (it said nothing)"),
        (None, "the base has no code of its own that plans"),
    ],
)
def test_a_base_whose_code_does_not_plan(scratch: ScratchRepository, broken: str | None, note: str) -> None:
    if broken is None:
        scratch.git("rm", "--quiet", "-r", "serving")
    else:
        scratch.write("serving/__main__.py", broken)
    scratch.commit("a base whose code does not plan")
    scratch.git("checkout", "--quiet", "HEAD~1", "--", "serving")
    found = reviewed(scratch)
    assert [row.before.verdict for row in found.stacks] == ["accepted", "accepted"]
    assert found.notes == tuple(
        f"{stack}: {note}; so the code that plans the head plans it" for stack in ("dev", "prod")
    )


def test_the_code_of_a_head_is_never_run(scratch: ScratchRepository, tmp_path: Path) -> None:
    scratch.git("switch", "--quiet", "--create", "strangers")
    ran = tmp_path / "ran"
    scratch.write("serving/__init__.py", f"import pathlib; pathlib.Path({str(ran)!r}).touch()")
    scratch.edit(DEV, ("maxModelLen: 131072", "maxModelLen: 65536"))
    scratch.commit("a stranger's change")
    scratch.git("switch", "--quiet", "main")
    found = reviewed(scratch, "strangers")
    assert not ran.exists()
    assert found.stacks[0].settings == (Change("workloads.glm.maxModelLen", 131_072, 65_536),)
    assert not found.head_by_its_own_code
    assert "the head by the code that made this comment, **not by its own**.\n" in markdown.as_markdown(found)


def test_a_link_in_the_place_of_a_stack_file_is_no_stack(scratch: ScratchRepository) -> None:
    scratch.git("switch", "--quiet", "--create", "strangers")
    (scratch.folder / "Pulumi.evil.yaml").symlink_to("/etc/passwd")
    scratch.commit("a link")
    scratch.git("switch", "--quiet", "main")
    assert [row.stack for row in reviewed(scratch, "strangers").stacks] == ["dev", "prod"]


def test_what_pulumi_itself_reads_is_a_change(scratch: ScratchRepository) -> None:
    text_ = (scratch.folder / PROD).read_text(encoding="utf-8")
    scratch.write(PROD, f"secretsprovider: awskms://alias/pulumi\n{text_}")
    assert reviewed(scratch).stacks[1].settings == (Change("secretsprovider", None, "awskms://alias/pulumi"),)


def test_formats_and_streams(scratch: ScratchRepository) -> None:
    scratch.edit(PROD, ("replicas: 2", "replicas: 9"))
    done = subprocess.run(
        [sys.executable, "-m", "serving", "diff", "--base", "main", "--format", "text"],
        cwd=scratch.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == BAD_INPUT
    assert done.stdout.startswith(f"{markdown.MARKER}\n## Bad input: `prod`\n")
    assert done.stderr == (
        "Pulumi.prod.yaml: workloads.glm.replicas: the replicas (9 of glm) need 9 nodes, one each, but nodePools.b200.nodes "
        "is 2; lower the replicas or raise the nodes\n"
    )


# --- consequences --------------------------------------------------------------------------------------------------------


def side(stack: str, *overrides: str) -> Side:
    return Side("accepted", Planned.model_validate(as_json(plan(stack, *overrides))))


REVISION = "workloads.glm.revision=" + "a" * 40
SPARE = ("nodePools.b200.nodes=3",)


@pytest.mark.parametrize(
    ("before", "after", "consequence"),
    [
        pytest.param(("dev",), ("dev",), Consequence("untouched"), id="nothing"),
        pytest.param(("dev",), ("dev", "workloads.glm.env={A: '1'}"), Consequence("replaced", 1400), id="a-variable"),
        pytest.param(
            ("dev",), ("dev", REVISION), Consequence("replaced", 1400 + 780, fetches_weights=True), id="weights"
        ),
        pytest.param(
            ("prod",), ("prod", REVISION), Consequence("replaced", 0, fetches_weights=True), id="weights-of-two"
        ),
        pytest.param(
            ("prod", *SPARE),
            ("prod", *SPARE, "workloads.glm.maxModelLen=65536"),
            Consequence("replaced"),
            id="a-spare-node",
        ),
        pytest.param(("prod",), ("prod", "workloads.glm.replicas=1"), Consequence("scaled"), id="fewer"),
        pytest.param(("prod", "workloads.glm.replicas=1"), ("prod",), Consequence("scaled"), id="more"),
    ],
)
def test_what_a_change_does_to_requests(
    before: tuple[str, ...], after: tuple[str, ...], consequence: Consequence
) -> None:
    found = compare(after[0], side(*before), side(*after))
    assert found.workloads[0].consequence == consequence


def test_workloads_that_come_and_go() -> None:
    found = compare("dev", side("dev"), side("prod"))
    assert [row.consequence.kind for row in found.workloads] == ["replaced"]  # on other machines
    new = compare("dev", ABSENT, side("dev"))
    assert [row.consequence.kind for row in new.workloads] == ["starts"]
    unknown = compare("dev", Side("bad input", problems=("x",)), side("dev"))
    assert [row.consequence.kind for row in unknown.workloads] == ["unknown"]


def change(kind: str, name: str, place: str, namespace: str | None = None, operation: Any = "update") -> ResourceChange:
    return ResourceChange(operation, kind, name, namespace, (Change(place, 1, 2),))


NODES, TEMPLATE = "aws:eks/nodeGroup:NodeGroup", "aws:ec2/launchTemplate:LaunchTemplate"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (change(NODES, "h200-nodes", "releaseVersion"), "evicted"),
        (change(NODES, "h200-nodes", "releaseVersion", operation="replace"), "evicted"),
        (change(NODES, "h200-nodes", "scalingConfig.maxSize"), "untouched"),
        (change(NODES, "h200-nodes", "labels.x"), "untouched"),
        (change(NODES, "h200-nodes", "releaseVersion", operation="create"), "untouched"),
        (change(TEMPLATE, "h200-template", "userData"), "evicted"),
        (change(TEMPLATE, "cluster-system", "userData"), "untouched"),
        (change(DEPLOYMENT, "glm-deployment", "spec.template.spec.containers[vllm].image", "glm"), "replaced"),
        (change(DEPLOYMENT, "glm-deployment", "spec.replicas", "glm"), "untouched"),
        (change(DEPLOYMENT, "other-deployment", "spec.template.spec.x", "other"), "untouched"),
    ],
)
def test_what_resources_tell_of_pods(found: ResourceChange, kind: str) -> None:
    same = side("dev")
    for witnesses in (
        {"rendered": ResourceChanges("rendering", (found,))},
        {"rendered": ResourceChanges("rendering", (found,)), "previewed": ResourceChanges("preview", ())},
    ):
        assert compare("dev", same, same, **witnesses).workloads[0].consequence.kind == kind


# --- the comment ---------------------------------------------------------------------------------------------------------


def commented(**parts: Any) -> str:
    found = compare("dev", side("dev"), side("dev"), **parts)
    return markdown.as_markdown(Review("0" * 40, None, (), True, (), (found,)))


def test_a_preview_is_shown_with_its_policies_and_errors() -> None:
    previewed = ResourceChanges(
        "preview",
        (ResourceChange("replace", NODES, "b200-nodes", None, (Change("version", None, None),)),),
        (PolicyMessage("image-digest", "mandatory", "x-deployment", "image <b>x</b> is not | pinned"),),
        ("no ```route``` to the cluster\nsecond line",),
        failed=True,
    )
    said = commented(previewed=previewed)
    assert "Resources, by `pulumi preview`: 1 to replace.\n" in said
    assert "| replace | `aws:eks/nodeGroup:NodeGroup` `b200-nodes` | `version` |\n" in said
    assert (
        "- policy **`image-digest`** (mandatory) on `x-deployment`: image &lt;b&gt;x&lt;/b&gt; is not \\| pinned\n"
    ) in said
    assert (
        "**`pulumi preview` failed**; its log says why.\n\n````text\nno ```route``` to the cluster\nsecond line\n````\n"
        in said
    )


def test_a_long_list_of_resources_is_counted() -> None:
    many = tuple(change("aws:ec2/vpc:Vpc", f"vpc-{number}", "cidrBlock") for number in range(42))
    said = commented(rendered=ResourceChanges("rendering", many))
    assert "42 to update." in said
    assert "vpc-29" in said
    assert "vpc-30" not in said
    assert "\n… and 12 more.\n" in said


def test_a_long_list_of_fields_is_counted() -> None:
    fields = tuple(Change(f"field{number}", "x" * 40, "y") for number in range(9))
    one = ResourceChange("update", "aws:ec2/vpc:Vpc", "vpc", None, fields)
    said = commented(rendered=ResourceChanges("rendering", (one,)))
    assert "| `field0`, `field1`, `field2`, `field3`, `field4`, `field5`, 3 more |" in said


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("plain", "`plain`"),
        ("a|b", "`a\\|b`"),
        ("`", "`` ` ``"),
        ("a``b", "```a``b```"),
        ("two\nlines", "`two lines`"),
        ("", "` `"),
    ],
)
def test_code(given_: str, shown: str) -> None:
    assert text.code(given_) == shown


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        (None, "–"),
        (True, "`true`"),
        (2.0, "`2`"),
        (0.92, "`0.92`"),
        (["a", "b"], '`["a", "b"]`'),
        ("x" * 101, f"`{'x' * 99}…`"),
        ("x" * 100, f"`{'x' * 100}`"),
    ],
)
def test_values(given_: object, shown: str) -> None:
    assert text.value(given_) == shown


def test_prose() -> None:
    assert text.prose("a_b _c_ *d* [e](f) <img> & `g` | ~h~ \\") == (
        "a_b \\_c\\_ \\*d\\* \\[e\\](f) &lt;img&gt; &amp; \\`g\\` \\| \\~h\\~ \\\\"
    )


# What a CommonMark parser makes of it, with GitHub's tables.
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def tokens(said: str) -> list[Token]:
    """Return all tokens of a text, those inside lines too."""
    return [inner for token in PARSER.parse(said) for inner in (token, *(token.children or ()))]


@given(st.text(alphabet="`|<>\n\\a[]*_~ !&#"))
def test_no_text_leaves_its_code(given_: str) -> None:
    cells = "\n".join(text.table(("a", "b"), [(text.code(given_), text.value(given_))]))
    found = tokens(cells)
    assert [token.type for token in found].count("td_open") == 2
    shown = [token.content for token in found if token.type == "code_inline"]
    wanted = " ".join(given_.split()).replace("\\|", "\\ |")
    assert [content.strip() for content in shown] == [wanted] * 2
    assert {token.type for token in found} <= TABLE_OF_CODE


TABLE_OF_CODE = {
    *(f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")),
    *("inline", "text", "code_inline"),
}


@given(st.text(alphabet="`|<>\n\\a[]()*_~ !&#-=+.1"))
def test_prose_is_only_text(given_: str) -> None:
    found = tokens(f"a: {text.prose(given_)}")
    assert {token.type for token in found} <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    shown = "".join(token.content for token in found if token.type in {"text", "text_special"})
    assert shown == f"a: {' '.join(given_.split())}".rstrip()


@given(st.lists(st.text(alphabet="`~ab "), max_size=4))
def test_no_line_ends_a_block(lines: list[str]) -> None:
    found = tokens("\n".join(text.fenced(lines)))
    assert [(token.type, token.content) for token in found] == [("fence", "".join(f"{line}\n" for line in lines))]


HOSTILE = "x`](http://evil) <img src=x> | y\\\n## heading\n[a](http://evil)"


def test_hostile_text_stays_text(scratch: ScratchRepository, capsys: pytest.CaptureFixture[str]) -> None:
    quoted = json.dumps(HOSTILE)
    scratch.edit(DEV, ("precision: fp8", f"precision: fp8\n      image: {quoted}\n      env: {{A: {quoted}}}"))
    scratch.edit(PROD, ("precision: fp8", f"precision: {quoted}"))
    scratch.write("Pulumi.`<b>`.yaml", "config: {}\n")
    code, out, _ = diff(capsys)
    assert code == BAD_INPUT
    found = tokens(out)
    assert [token.content for token in found if "html" in token.type] == [f"{markdown.MARKER}\n"]
    assert not [token for token in found if token.type in {"link_open", "image"}]
    assert [token.content for token in found if token.type == "heading_open"] == [""] * 4
    # Each table's rows have as many cells as its head.
    rows = [len(re.findall(r"(?<!\\)\|", line)) for line in out.splitlines() if line.startswith("|")]
    assert set(rows) == {4, 5, 6}
