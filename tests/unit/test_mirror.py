"""A mirror is filled by the script that the command prints or runs, and pods can fetch from what it leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.pod.weights.cache import Model
from components.pod.weights.fetch import ensure
from components.pod.weights.sources import RemoteFile
from serving.__main__ import main
from tests.fixtures.hub import FILES, REPOSITORY, REVISION, FakeHub, hash_of
from tests.fixtures.stacks import ROOT

MIRROR = "workloads.glm.weightsMirror=s3://my-models/glm"

# The AWS CLI as far as the script uses it, with a folder for S3: it refuses every other call.
AWS = """#!/usr/bin/env bash
set -eu
case "$*" in
  "s3 sync --follow-symlinks --no-progress "*) target="$S3/${6#s3://}"; mkdir -p "$target"; cp -rL "$5/." "$target" ;;
  "s3 cp --no-progress - "*) cat > "$S3/${5#s3://}" ;;
  *) echo "aws: unexpected: $*" >&2; exit 64 ;;
esac
"""


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for S3."""
    folder, programs = tmp_path / "s3", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    (programs / "aws").write_text(AWS)
    (programs / "aws").chmod(0o755)
    monkeypatch.setenv("S3", str(folder))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(ROOT)
    return folder


class Copy:
    """The mirror in the folder as a source, as `Bucket` reads it from S3."""

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub

    def files(self) -> list[RemoteFile]:
        return [RemoteFile(name, len(content), hash_of(name, content)) for name, content in FILES.items()]

    def url(self, file: RemoteFile) -> str:
        return f"{self.hub.url}/store/{file.path.replace(' ', '%20')}"


def test_what_is_copied_is_whole_and_listed_last(s3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json  # noqa: PLC0415

    with FakeHub() as hub:
        monkeypatch.setenv("WEIGHTS_FROM", hub.url)
        code = main(["mirror", "--stack", "dev", "--set", MIRROR, "--cache", str(tmp_path / "cache"), "--run"])
    assert code == 0
    copy = s3 / "my-models" / "glm" / REPOSITORY / REVISION
    assert {name: (copy / name).read_bytes() for name in FILES} == FILES
    rows = json.loads((copy / "manifest.json").read_text())
    assert rows == [
        {"path": name, "size": len(content), "hash": hash_of(name, content)} for name, content in sorted(FILES.items())
    ]
    with FakeHub({name: (copy / name).read_bytes() for name in FILES}) as mirror:
        model = Model(REPOSITORY, REVISION, tmp_path / "node")
        ensure(model, Copy(mirror), lambda _: None)
    assert {name: (model.snapshot / name).read_bytes() for name in FILES} == FILES


@pytest.mark.usefixtures("s3")
def test_a_fetch_that_fails_leaves_no_manifest(s3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub() as hub:
        del hub.listed["model-00001-of-00003.safetensors"]
        monkeypatch.setenv("WEIGHTS_FROM", hub.url)
        assert main(["mirror", "--stack", "dev", "--set", MIRROR, "--cache", str(tmp_path / "cache"), "--run"]) == 1
    assert list(s3.rglob("*")) == []


def test_without_run_the_script_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["mirror", "--stack", "dev", "--set", MIRROR, "--cache", "/data/my models"]) == 0
    snapshot = f"models--zai-org--GLM-5.2-FP8/snapshots/{REVISION}"
    assert (
        capsys.readouterr().out
        == f"""\
set -euo pipefail
export MODEL={REPOSITORY} REVISION={REVISION} HF_HUB_CACHE='/data/my models'
(cd components/pod && python3 -m weights)
aws s3 sync --follow-symlinks --no-progress "$HF_HUB_CACHE"/{snapshot} s3://my-models/glm/{REPOSITORY}/{REVISION}
(cd components/pod && python3 -m weights.manifest) | aws s3 cp --no-progress - s3://my-models/glm/{REPOSITORY}/{REVISION}/manifest.json
"""
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--cache", "/data"),
            "workloads.glm.weightsMirror: missing; set it to the S3 folder to copy to, such as s3://my-models/glm",
        ),
        (
            ("--cache", "/data", "--set", MIRROR, "--workload", "gml"),
            "--workload: there is no workload 'gml'; allowed is glm; did you mean glm?",
        ),
    ],
    ids=["no-mirror", "no-such-workload"],
)
def test_bad_input(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["mirror", "--stack", "dev", *arguments]) == 2
    assert capsys.readouterr().err == f"{said}\n"
