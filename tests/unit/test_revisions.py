"""Reading another revision through git: what is found, what gets one sentence, and that nothing of it is run or followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.review.revisions import Repository
from serving.spelling import InputError
from tests.fixtures.repository import STACK_FILES, ScratchRepository

HOW_TO_DEEPEN = "; this clone is shallow: get the rest with git fetch --unshallow (actions/checkout: fetch-depth: 0)"


@pytest.fixture
def scratch(tmp_path: Path) -> ScratchRepository:
    return ScratchRepository(tmp_path / "origin", STACK_FILES)


def refusal(act: object) -> str:
    assert callable(act)
    with pytest.raises(InputError) as refused:
        act()
    return str(refused.value)


@pytest.mark.parametrize("ref", ["main", "HEAD", "v1", "refs/heads/main"])
def test_a_ref_is_found(scratch: ScratchRepository, ref: str) -> None:
    scratch.git("tag", "--annotate", "--message", "one", "v1")
    assert Repository(scratch.folder).commit("--base", ref) == scratch.base


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("mian", "--base mian: git knows no such commit, branch or tag; did you mean main?"),
        ("origin/production", "--base origin/production: git knows no such commit, branch or tag"),
        ("0123456789abcdef", "--base 0123456789abcdef: git knows no such commit, branch or tag"),
        ("main:Pulumi.yaml", "--base main:Pulumi.yaml: git knows no such commit, branch or tag"),
        ("--all", "--base --all: git knows no such commit, branch or tag"),
        ("", "--base : git knows no such commit, branch or tag"),
    ],
)
def test_an_unknown_ref(scratch: ScratchRepository, ref: str, said: str) -> None:
    assert refusal(lambda: Repository(scratch.folder).commit("--base", ref)) == said


def test_the_base_is_where_the_change_began(scratch: ScratchRepository) -> None:
    scratch.git("switch", "--quiet", "--create", "change")
    scratch.write("change", "")
    change = scratch.commit("change")
    scratch.git("switch", "--quiet", "main")
    scratch.write("meanwhile", "")
    scratch.commit("meanwhile on main")
    assert Repository(scratch.folder).merge_base("--base", "main", change) == scratch.base


def test_two_histories(scratch: ScratchRepository) -> None:
    scratch.git("switch", "--quiet", "--orphan", "other")
    scratch.write("other", "")
    other = scratch.commit("another beginning")
    said = refusal(lambda: Repository(scratch.folder).merge_base("--base", "main", other))
    assert said == f"--base main: it has no commit in common with {other[:12]}"


def test_a_shallow_clone(scratch: ScratchRepository, tmp_path: Path) -> None:
    scratch.git("switch", "--quiet", "--create", "change")
    scratch.write("change", "")
    change = scratch.commit("change")
    clone = tmp_path / "clone"
    scratch.git("clone", "--quiet", "--depth=1", "--no-single-branch", scratch.folder.as_uri(), str(clone))
    repository = Repository(clone)
    # Both tips are there, what they have in common is not.
    scratch.git("switch", "--quiet", "main")
    scratch.write("meanwhile", "")
    scratch.commit("meanwhile on main")
    scratch.git("-C", str(clone), "fetch", "--quiet", "--depth=1")
    assert refusal(lambda: repository.merge_base("--base", "origin/main", change)) == (
        f"--base origin/main: it has no commit in common with {change[:12]}{HOW_TO_DEEPEN}"
    )
    assert refusal(lambda: repository.commit("--base", "HEAD~1")) == (
        f"--base HEAD~1: git knows no such commit, branch or tag{HOW_TO_DEEPEN}"
    )


def test_a_folder_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    said = refusal(lambda: Repository(tmp_path))
    assert said.startswith(f"git rev-parse in {tmp_path}: fatal: not a git repository")


def test_the_folder_of_git_itself(scratch: ScratchRepository) -> None:
    folder = scratch.folder / ".git"
    assert refusal(lambda: Repository(folder)) == (
        f"{folder} is not in the work tree of a git repository; run this in a clone"
    )


def test_a_machine_without_git(scratch: ScratchRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(lambda: Repository(scratch.folder)) == "git is not on PATH; install it, a base is read through it"


def test_only_what_matches_is_laid(scratch: ScratchRepository, tmp_path: Path) -> None:
    for name in ("serving/a.py", "serving/deep/b.toml", "docs/Pulumi.x.yaml", "serving.py"):
        scratch.write(name, name)
    commit = scratch.commit("more")
    target = tmp_path / "target"
    Repository(scratch.folder).lay(commit, ("Pulumi.*.yaml", "serving/**"), target)
    laid = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert laid == ["Pulumi.dev.yaml", "Pulumi.prod.yaml", "serving/a.py", "serving/deep/b.toml"]
    assert (target / "serving/deep/b.toml").read_text(encoding="utf-8") == "serving/deep/b.toml"


def test_a_project_in_a_folder_of_a_larger_repository(scratch: ScratchRepository, tmp_path: Path) -> None:
    scratch.write("infra/Pulumi.dev.yaml", "config: {}\n")
    scratch.write("infra/serving/a.py", "")
    commit = scratch.commit("infra")
    repository = Repository(scratch.folder / "infra")
    repository.lay(commit, ("Pulumi.*.yaml", "serving/**"), tmp_path / "target")
    assert (tmp_path / "target" / "Pulumi.dev.yaml").read_text(encoding="utf-8") == "config: {}\n"
    assert (tmp_path / "target" / "serving" / "a.py").is_file()
    assert repository.changed(scratch.base, commit) == ["Pulumi.dev.yaml", "serving/a.py"]


def test_links_are_left_out(scratch: ScratchRepository, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("token", encoding="utf-8")
    (scratch.folder / "Pulumi.evil.yaml").symlink_to(secret)
    commit = scratch.commit("a link out of the repository")
    Repository(scratch.folder).lay(commit, ("Pulumi.*.yaml",), tmp_path / "target")
    assert not os.path.lexists(tmp_path / "target" / "Pulumi.evil.yaml")


def test_no_filter_is_run(scratch: ScratchRepository, tmp_path: Path) -> None:
    scratch.git("config", "filter.evil.smudge", f"touch {tmp_path / 'ran'}")
    scratch.write(".gitattributes", "*.yaml filter=evil text eol=crlf\n")
    commit = scratch.commit("attributes that name a filter")
    (tmp_path / "ran").unlink(missing_ok=True)
    Repository(scratch.folder).lay(commit, ("Pulumi.*.yaml",), tmp_path / "target")
    assert not (tmp_path / "ran").exists()
    assert b"\r" not in (tmp_path / "target" / "Pulumi.dev.yaml").read_bytes()


def test_a_file_that_the_clone_lacks(scratch: ScratchRepository, tmp_path: Path) -> None:
    scratch.write(
        "Pulumi.test.yaml", "config: {}\n"
    )  # in a file of its own among git's, beside the pack of the first commit
    commit = scratch.commit("a file that gets lost")
    blob = scratch.git("rev-parse", f"{commit}:Pulumi.test.yaml")
    (scratch.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    said = refusal(lambda: Repository(scratch.folder).lay(commit, ("Pulumi.*.yaml",), tmp_path / "target"))
    assert said == f"git cat-file in {scratch.folder}: {blob} is missing; get it with git fetch --refetch"


def test_changed_files_of_a_commit_and_of_the_work_tree(scratch: ScratchRepository) -> None:
    repository = Repository(scratch.folder)
    scratch.git("mv", "Pulumi.dev.yaml", "Pulumi.test.yaml")
    moved = scratch.commit("rename")
    scratch.edit("Pulumi.prod.yaml", ("replicas: 2", "replicas: 1"))
    scratch.write("über.yaml", "")
    assert repository.changed(scratch.base, moved) == ["Pulumi.dev.yaml", "Pulumi.test.yaml"]
    assert repository.changed(moved, None) == ["Pulumi.prod.yaml", "über.yaml"]
