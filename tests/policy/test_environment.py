"""Where Pulumi looks for the pack's environment, `make policy` puts a link to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rehearsal import policy_environment
from rehearsal.control_plane.errors import ControlPlaneError


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The link's place in an empty folder, and a finished environment to link to."""
    link = tmp_path / "policy" / ".venv"
    link.parent.mkdir()
    built = tmp_path / "built"
    built.mkdir()

    def environment(*_: object) -> Path:
        return built

    monkeypatch.setattr(policy_environment, "ROOT", tmp_path)
    monkeypatch.setattr(policy_environment, "LINK", link)
    monkeypatch.setattr(policy_environment, "policy_environment", environment)
    return link


def test_pulumi_looks_where_the_link_is() -> None:
    pack = yaml.safe_load((policy_environment.PACK / "PulumiPolicy.yaml").read_text(encoding="utf-8"))
    assert policy_environment.PACK / pack["runtime"]["options"]["virtualenv"] == policy_environment.LINK


def test_the_environment_is_linked_anew_each_time(link: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link.symlink_to(link.parent / "of-an-older-lock")
    for _ in range(2):
        assert policy_environment.main() == 0
        assert link.readlink() == link.parents[1] / "built"
    assert capsys.readouterr().out == "policy/.venv is ready: pulumi preview --policy-pack policy\n" * 2


def test_an_environment_that_pulumi_made_is_left_alone(link: Path) -> None:
    link.mkdir()
    assert policy_environment.main() == 0
    assert not link.is_symlink()


def test_a_failure_is_told(link: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> Path:
        raise ControlPlaneError("packages could not be made")

    monkeypatch.setattr(policy_environment, "policy_environment", fail)
    assert policy_environment.main() == 1
    assert capsys.readouterr().err == "packages could not be made\n"
    assert not link.exists()
