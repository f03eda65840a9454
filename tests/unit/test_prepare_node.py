"""The folders of a replica on its node: who owns them, and that root without its privileges can make them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.pod import prepare_node
from components.pod.prepare_node import prepare

PROGRAM = Path(prepare_node.__file__)
WEIGHTS = 755_000_000_000

# What the component hands over for one release and for the next.
FIRST = ["models", "caches/c1c9f6fd5c10/glm-0"]
SECOND = ["models", "caches/0123456789ab/glm-0"]

# Root in the init container has one capability, CHOWN (0): drop the others from what a program may have, then start it.
WITHOUT_CAPABILITIES = """
import ctypes, os, sys
PR_CAPBSET_DROP = 24
for capability in range(1, 64):
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def chowned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int, int]]:
    """Every change of owner; nothing changes on the disk, so that anybody may run these tests."""
    calls: list[tuple[Path, int, int]] = []

    def chown(path: Path, uid: int, gid: int) -> None:
        calls.append((path, uid, gid))

    monkeypatch.setattr(os, "chown", chown)
    return calls


def folders(disk: Path) -> dict[str, int]:
    """Every folder below a disk with its mode."""
    return {
        str(path.relative_to(disk)): stat.S_IMODE(path.stat().st_mode)
        for path in sorted(disk.rglob("*"))
        if path.is_dir()
    }


def test_a_replicas_folders(tmp_path: Path, chowned: list[tuple[Path, int, int]]) -> None:
    assert prepare(tmp_path, FIRST, 2000, 0, needed_bytes=1) is None
    assert folders(tmp_path) == {
        "caches": 0o755,
        "caches/c1c9f6fd5c10": 0o755,
        "caches/c1c9f6fd5c10/glm-0": 0o750,
        "models": 0o750,
    }
    # Those on the way stay root's, or the next release could not make its own beside this one.
    assert chowned == [(tmp_path / folder, 2000, 0) for folder in FIRST]


def test_a_second_start_and_a_second_release(tmp_path: Path, chowned: list[tuple[Path, int, int]]) -> None:
    assert prepare(tmp_path, FIRST, 2000, 0, needed_bytes=1) is None
    kept = tmp_path / "caches/c1c9f6fd5c10/glm-0/kernel"
    kept.write_text("compiled")
    before = folders(tmp_path)
    assert prepare(tmp_path, FIRST, 2000, 0, needed_bytes=1) is None
    assert folders(tmp_path) == before
    assert prepare(tmp_path, SECOND, 2000, 0, needed_bytes=1) is None
    assert folders(tmp_path).keys() - before.keys() == {"caches/0123456789ab", "caches/0123456789ab/glm-0"}
    assert kept.read_text() == "compiled"
    assert chowned == [(tmp_path / folder, 2000, 0) for folder in (*FIRST, *FIRST, *SECOND)]


@pytest.mark.parametrize(("blocks", "fits"), [(WEIGHTS // 4096, False), (WEIGHTS // 4096 + 1, True)])
@pytest.mark.usefixtures("chowned")
def test_a_disk_that_is_not_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, fits: bool) -> None:
    def statvfs(_: Path) -> SimpleNamespace:
        return SimpleNamespace(f_frsize=4096, f_blocks=blocks)

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert prepare(tmp_path, FIRST, 2000, 0, WEIGHTS) == (
        None
        if fits
        else (
            f"{tmp_path} has 755 GB in all, the weights need 755 GB: "
            "this is not the NVMe array; check the node's localStorage strategy (RAID0)"
        )
    )
    assert bool(folders(tmp_path)) == fits


def test_the_size_is_the_disks(tmp_path: Path) -> None:
    size = os.statvfs(tmp_path).f_frsize * os.statvfs(tmp_path).f_blocks
    assert prepare(tmp_path, [], 2000, 0, size) is None
    refused = prepare(tmp_path, [], 2000, 0, size + 1)
    assert refused is not None
    assert refused.startswith(f"{tmp_path} has {size / 1e9:,.0f} GB in all")


# --- as a program ----------------------------------------------------------------------------------------------------


def run_program(disk: Path, folders: list[str], needed_bytes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run it as the init container does, with one capability; whoever is not root has none and owns the folders."""
    uid, gid = (2000, 0) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    settings = {
        "NODE_DISK": disk,
        "FOLDERS": ":".join(folders),
        "OWNER_UID": uid,
        "OWNER_GID": gid,
        "NEEDED_BYTES": needed_bytes,
    }
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_CAPABILITIES, str(PROGRAM)],
        env={**os.environ, **{name: str(value) for name, value in settings.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


def test_root_without_privileges_can_prepare_every_release(tmp_path: Path) -> None:
    for release in (FIRST, SECOND, FIRST):
        result = run_program(tmp_path, release)
        assert (result.returncode, result.stdout, result.stderr) == (0, "folders are ready\n", "")
    owner = 2000 if os.geteuid() == 0 else os.geteuid()
    for folder in (*FIRST, *SECOND):
        assert (tmp_path / folder).stat().st_uid == owner
    for folder in ("caches", "caches/c1c9f6fd5c10"):
        assert (tmp_path / folder).stat().st_uid == os.geteuid()


def test_the_program_says_what_is_wrong(tmp_path: Path) -> None:
    refused = run_program(tmp_path, FIRST, needed_bytes=10**18)
    assert refused.returncode == 1
    assert refused.stdout.endswith(
        "GB in all, the weights need 1,000,000,000 GB: "
        "this is not the NVMe array; check the node's localStorage strategy (RAID0)\n"
    )
    (tmp_path / "models").touch()
    refused = run_program(tmp_path, FIRST)
    assert (refused.returncode, refused.stderr) == (1, "")
    assert refused.stdout == f"{tmp_path / 'models'}: File exists; check the node's NVMe array\n"
