"""The weights on a node: real files in a Hugging Face cache, and a hub that fetches, fails, is slow or dies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from components.pod import fetch_weights
from components.pod.fetch_weights import FetchError, Model, ensure, verify

ROOT = Path(__file__).parents[2]
REPOSITORY = "zai-org/GLM-5.2-FP8"
REVISION = "31cba24fb749908a485082bdeed6eb1ac6cffc2f"
NAME = f"{REPOSITORY}@{REVISION}"

SHARDS = {f"model-0000{number}-of-00003.safetensors": bytes([number]) * (70_000 + number) for number in (1, 2, 3)}
INDEX = "model.safetensors.index.json"
FILES: Mapping[str, bytes] = {
    "README.md": b"# GLM-5.2\n",
    "assets/empty.txt": b"",
    "config.json": b'{"model_type": "glm"}\n',
    INDEX: json.dumps({"weight_map": {f"layer.{n}": shard for n, shard in enumerate(SHARDS)}}).encode(),
    **SHARDS,
    "tokenizer.json": b'{"version": "1.0"}' * 1000,
}

FIVE_WAITS = [30.0, 60.0, 120.0, 240.0]


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def etag(name: str, content: bytes) -> str:
    """What the hub calls a file: the SHA-256 of what lies in LFS or Xet, Git's hash of the rest."""
    large = name.endswith(".safetensors") or name == "tokenizer.json"
    return hashlib.sha256(content).hexdigest() if large else git_hash(content)


@dataclass
class Hub:
    """Fetches what a snapshot lacks, as `snapshot_download` lays it out; first raises its `failures`, one a call.

    `shared`: large blobs are links into a store of all repositories, by another hash, as from huggingface_hub 2.0 on.
    """

    files: Mapping[str, bytes] = field(default_factory=lambda: FILES)
    failures: list[Exception] = field(default_factory=list[Exception])
    shared: bool = False
    calls: int = 0
    fetched: list[str] = field(default_factory=list[str])

    def __call__(self, model: Model) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        for name, content in self.files.items():
            pointer = model.snapshot / name
            if not pointer.exists():
                self._fetch(model, name, content)

    def _fetch(self, model: Model, name: str, content: bytes) -> None:
        blob = model.folder / "blobs" / etag(name, content)
        pointer = model.snapshot / name
        for folder in (blob.parent, pointer.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            self.fetched.append(name)
            partial = blob.with_name(f"{blob.name}.incomplete")
            partial.write_bytes(content)
            if self.shared and len(blob.name) == 64:
                self._share(model, blob, partial)
            else:
                partial.replace(blob)
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))

    @staticmethod
    def _share(model: Model, blob: Path, partial: Path) -> None:
        xet_hash = hashlib.blake2s(partial.read_bytes()).hexdigest()
        stored = model.cache / "blobs" / xet_hash[:2] / xet_hash
        stored.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(stored)
        stored.chmod(0o444)
        blob.unlink(missing_ok=True)
        blob.symlink_to(os.path.relpath(stored, blob.parent))


@dataclass
class Node:
    """A node's cache with one model; keeps what is said and how long is waited."""

    model: Model
    said: list[str] = field(default_factory=list[str])
    waits: list[float] = field(default_factory=list[float])

    def ensure(self, hub: Callable[[Model], None]) -> None:
        """Fetch without waiting for real; what was said before is forgotten."""
        self.said.clear()
        self.waits.clear()
        ensure(self.model, hub, self.said.append, self.waits.append)

    def file(self, name: str) -> Path:
        return self.model.snapshot / name

    def damage(self, name: str, content: bytes) -> None:
        """Change what the disk holds for a file."""
        blob = self.file(name).resolve()
        blob.chmod(0o644)
        blob.write_bytes(content)

    def contents(self) -> dict[str, bytes]:
        return {name: self.file(name).read_bytes() for name in FILES}


def model_in(cache: Path) -> Model:
    return Model(REPOSITORY, REVISION, cache, sum(len(content) for content in FILES.values()))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(model_in(tmp_path / "models"))


@pytest.fixture
def served(node: Node) -> Node:
    """A node whose model is complete, verified and marked."""
    node.ensure(Hub())
    return node


# --- a first and a second start --------------------------------------------------------------------------------------


def test_gits_hash_is_gits() -> None:
    assert git_hash(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_first_start_fetches_verifies_and_marks(node: Node) -> None:
    hub = Hub()
    node.ensure(hub)
    assert hub.fetched == list(FILES)
    assert node.said == ["fetched; verifying", f"verified {len(FILES)} files"]
    assert node.waits == []
    assert node.contents() == FILES
    assert node.model.mark == node.model.cache / ".verified" / f"models--zai-org--GLM-5.2-FP8@{REVISION}.json"
    assert json.loads(node.model.mark.read_text()) == {name: len(content) for name, content in FILES.items()}


def test_a_second_start_neither_fetches_nor_hashes(served: Node) -> None:
    # The same size with other content: whoever reads the file again would see it.
    shard = next(iter(SHARDS))
    served.damage(shard, bytes(len(SHARDS[shard])))
    hub = Hub()
    served.ensure(hub)
    assert hub.calls == 0
    assert served.said == [f"{NAME} is on this node and verified"]


def test_a_mark_is_for_one_revision(served: Node) -> None:
    newer = Node(Model(REPOSITORY, "f" * 40, served.model.cache, served.model.expected_bytes))
    hub = Hub()
    newer.ensure(hub)
    assert hub.calls == 1
    assert hub.fetched == []  # the blobs are the same
    assert newer.contents() == FILES
    assert served.model.mark.exists()


@pytest.mark.parametrize("damage", ["gone", "shorter", "empty"])
@pytest.mark.parametrize("name", [next(iter(SHARDS)), "config.json"])
def test_what_changed_its_size_after_the_mark_is_fetched_again(served: Node, name: str, damage: str) -> None:
    match damage:
        case "gone":
            served.file(name).resolve().unlink()
        case "shorter":
            served.damage(name, FILES[name][:-1])
        case _:
            served.damage(name, b"")
    hub = Hub()
    served.ensure(hub)
    assert hub.fetched == [name]
    assert served.contents() == FILES


@pytest.mark.parametrize("text", ["", '{"config.json": 2', "\0\0\0\0"])
def test_a_mark_that_a_crash_left_unreadable_is_no_mark(served: Node, text: str) -> None:
    served.model.mark.write_text(text)
    hub = Hub()
    served.ensure(hub)
    assert (hub.calls, hub.fetched) == (1, [])
    assert served.said[-1] == f"verified {len(FILES)} files"
    assert json.loads(served.model.mark.read_text()) == {name: len(content) for name, content in FILES.items()}


# --- what verification finds -----------------------------------------------------------------------------------------


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "one-bit": lambda content: content[:-1] + bytes([content[-1] ^ 128]),
    "shorter": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("shared", [False, True], ids=["own-blobs", "shared-blobs"])
@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content])
@pytest.mark.parametrize("damaged", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_removed_and_fetched_again(
    node: Node, name: str, damaged: Callable[[bytes], bytes], shared: bool
) -> None:
    def with_damage(model: Model) -> None:
        hub(model)
        if hub.calls == 1:
            node.damage(name, damaged(FILES[name]))
            assert verify(model) == [node.file(name)]

    hub = Hub(shared=shared)
    node.ensure(with_damage)
    assert hub.fetched == [*FILES, name]
    assert node.said == [
        "fetched; verifying",
        f"attempt 1 of 5: 1 files are damaged or missing, first {name}; they are fetched again",
        "fetched; verifying",
        f"verified {len(FILES)} files",
    ]
    assert node.waits == [30.0]
    assert node.contents() == FILES
    assert verify(node.model) == []


def test_shared_blobs_are_links_to_links_and_verified_by_their_own_name(node: Node) -> None:
    node.ensure(Hub(shared=True))
    shard = node.file(next(iter(SHARDS)))
    assert shard.resolve().is_relative_to(node.model.cache / "blobs")
    assert shard.readlink().name == hashlib.sha256(shard.read_bytes()).hexdigest() != shard.resolve().name


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (next(iter(SHARDS)), f"1 files are damaged or missing, first {next(iter(SHARDS))}; they are fetched again"),
        (INDEX, f"1 files are damaged or missing, first {INDEX}; they are fetched again"),
    ],
    ids=["shard", "index"],
)
def test_a_hub_that_lacks_what_the_weights_need(node: Node, missing: str, message: str) -> None:
    hub = Hub({name: content for name, content in FILES.items() if name != missing})
    with pytest.raises(FetchError) as refused:
        node.ensure(hub)
    assert str(refused.value) == f"{NAME} could not be fetched in 5 attempts: {message}"
    assert hub.calls == 5
    assert node.waits == FIVE_WAITS
    assert not node.model.mark.exists()


# --- a hub that fails ------------------------------------------------------------------------------------------------


def test_four_failures_and_then_success(node: Node) -> None:
    failures: list[Exception] = [
        ConnectionError("reset by peer"),
        TimeoutError(),
        OSError(28, "No space left on device"),
        RuntimeError("429\nFor more information check: https://example.com\n\nslow down"),
    ]
    hub = Hub(failures=list(failures))
    node.ensure(hub)
    assert node.waits == FIVE_WAITS
    assert node.said == [
        "attempt 1 of 5: ConnectionError: reset by peer",
        "attempt 2 of 5: TimeoutError:",
        "attempt 3 of 5: OSError: [Errno 28] No space left on device",
        "attempt 4 of 5: RuntimeError: 429 For more information check: https://example.com slow down",
        "fetched; verifying",
        f"verified {len(FILES)} files",
    ]
    assert node.contents() == FILES


def test_five_failures(node: Node) -> None:
    hub = Hub(failures=[ConnectionError(f"failure {number}") for number in range(1, 10)])
    with pytest.raises(FetchError) as refused:
        node.ensure(hub)
    assert str(refused.value) == f"{NAME} could not be fetched in 5 attempts: ConnectionError: failure 5"
    assert hub.calls == 5
    assert node.waits == FIVE_WAITS
    assert node.said[-1] == "attempt 5 of 5: ConnectionError: failure 5"
    assert not node.model.mark.exists()


# --- space -----------------------------------------------------------------------------------------------------------


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)

    def disk_usage(_: Path) -> object:
        return usage

    monkeypatch.setattr(fetch_weights.shutil, "disk_usage", disk_usage)


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 120_400_000_000)
    node = Node(Model(REPOSITORY, REVISION, tmp_path, 755_000_000_000))
    hub = Hub()
    with pytest.raises(FetchError) as refused:
        node.ensure(hub)
    assert str(refused.value) == (
        f"{tmp_path} has 120 GB free, {REPOSITORY} needs 755 GB of which 0 GB are there; "
        "remove models that are no longer served"
    )
    assert (hub.calls, node.said) == (0, [])


@pytest.mark.parametrize("short_by", [0, 1])
def test_what_is_there_already_needs_no_space(served: Node, monkeypatch: pytest.MonkeyPatch, short_by: int) -> None:
    served.model.mark.unlink()
    with_free(monkeypatch, 1000 - short_by)
    larger = Node(Model(REPOSITORY, REVISION, served.model.cache, served.model.expected_bytes + 1000))
    if short_by:
        with pytest.raises(FetchError, match="remove models that are no longer served"):
            larger.ensure(Hub())
    else:
        larger.ensure(Hub())
        assert larger.model.mark.exists()


# --- processes: two at once, and one that dies -----------------------------------------------------------------------


@contextmanager
def another_process(cache: Path, what: str) -> Generator[subprocess.Popen[str]]:
    """Run `_main` of this file as another pod's process would run; end it in any case."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.test_fetch_weights", str(cache), what],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _main(cache: str, what: str) -> None:
    """Fetch in a process of its own. `waits`: in the middle of the fetch; `dies-…`: killed where the name says."""
    hub = Hub()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        if what == "dies-before-mark" and line == "fetched; verifying":
            os.kill(os.getpid(), signal.SIGKILL)

    def download(model: Model) -> None:
        say("fetching")
        if what == "waits":
            sys.stdin.readline()
        if what == "dies-in-fetch":
            Hub(dict(list(FILES.items())[:5]))(model)
            os.kill(os.getpid(), signal.SIGKILL)
        hub(model)

    ensure(model_in(Path(cache)), download, say)
    say(f"fetched {len(hub.fetched)} files")


def waiters(path: Path) -> int:
    """How many processes wait for a lock on a file: the rows of /proc/locks with an arrow."""
    inode = f":{path.stat().st_ino} "
    return sum(" -> " in row and inode in row for row in Path("/proc/locks").read_text().splitlines())


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never came about: {what}"
        time.sleep(0.01)


def test_two_pods_that_start_at_once_fetch_once(node: Node) -> None:
    cache = node.model.cache
    with another_process(cache, "waits") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "fetching\n"
        with another_process(cache, "does-not-wait") as second:
            until(lambda: waiters(cache / f".{node.model.folder.name}.lock") == 1, "the second waits for the first")
            said_by_first, _ = first.communicate("go on\n")
            said_by_second, _ = second.communicate()
    assert said_by_first.splitlines()[-1] == f"fetched {len(FILES)} files"
    assert said_by_second.splitlines() == [f"{NAME} is on this node and verified", "fetched 0 files"]
    assert node.contents() == FILES


@pytest.mark.parametrize(("moment", "left_to_fetch"), [("dies-in-fetch", list(FILES)[5:]), ("dies-before-mark", [])])
def test_a_crash_is_recovered(node: Node, moment: str, left_to_fetch: Sequence[str]) -> None:
    with another_process(node.model.cache, moment) as killed:
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
    assert not node.model.mark.exists()
    hub = Hub()
    node.ensure(hub)
    assert hub.fetched == left_to_fetch
    assert node.said == ["fetched; verifying", f"verified {len(FILES)} files"]
    assert node.contents() == FILES


# --- as a program, with the hub's client -----------------------------------------------------------------------------


@dataclass
class Client:
    """`huggingface_hub`, as far as the program uses it, in front of a hub. `unanswered`: the hub does not answer a list."""

    hub: Hub
    unanswered: bool = False
    downloads: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list[tuple[str, Mapping[str, Any]]])

    def list_repo_files(self, repository: str, *, revision: str) -> list[str]:
        assert (repository, revision) == (REPOSITORY, REVISION)
        if self.unanswered:
            raise ConnectionError("503 from the hub")
        return list(FILES)

    def snapshot_download(self, repository: str, **options: Any) -> None:
        self.downloads.append((repository, options))
        self.hub(model_in(options["cache_dir"]))


def install(monkeypatch: pytest.MonkeyPatch, client: Client, cache: Path, expected_bytes: int = 1) -> None:
    module = ModuleType("huggingface_hub")
    module.__dict__.update(HfApi=lambda: client, snapshot_download=client.snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    settings = {"MODEL": REPOSITORY, "REVISION": REVISION, "HF_HUB_CACHE": cache, "EXPECTED_BYTES": expected_bytes}
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))


def test_the_program_fetches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(Hub())
    install(monkeypatch, client, tmp_path)
    assert fetch_weights.main() == 0
    assert client.downloads == [(REPOSITORY, {"revision": REVISION, "cache_dir": tmp_path, "max_workers": 8})]
    assert capsys.readouterr().out == f"fetched; verifying\nverified {len(FILES)} files\n"
    assert fetch_weights.main() == 0
    assert capsys.readouterr().out == f"{NAME} is on this node and verified\n"


def test_the_program_says_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_free(monkeypatch, 0)
    install(monkeypatch, Client(Hub()), tmp_path, expected_bytes=755_000_000_000)
    assert fetch_weights.main() == 1
    assert capsys.readouterr().out == (
        f"{tmp_path} has 0 GB free, {REPOSITORY} needs 755 GB of which 0 GB are there; "
        "remove models that are no longer served\n"
    )
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    install(monkeypatch, Client(Hub()), in_the_way / "models")
    assert fetch_weights.main() == 1
    assert capsys.readouterr().out == f"[Errno 20] Not a directory: '{in_the_way / 'models'}'\n"


def test_a_client_that_leaves_a_file_out_is_found_out(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 1.x the client is content with a partial folder; without its tokenizer an engine cannot start."""
    partial = Hub({name: content for name, content in FILES.items() if name != "tokenizer.json"})
    install(monkeypatch, Client(partial), node.model.cache)
    with pytest.raises(FetchError) as refused:
        node.ensure(fetch_weights._from_hub)
    assert str(refused.value) == (
        f"{NAME} could not be fetched in 5 attempts: "
        f"FetchError: 1 of {len(FILES)} files were not fetched, first tokenizer.json"
    )
    assert not node.model.mark.exists()


def test_a_hub_that_does_not_answer_is_no_complete_model(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Hub(), unanswered=True)
    install(monkeypatch, client, node.model.cache)
    with pytest.raises(FetchError, match="5 attempts: ConnectionError: 503 from the hub"):
        node.ensure(fetch_weights._from_hub)
    assert client.downloads == []
    assert not node.model.mark.exists()


if __name__ == "__main__":
    _main(*sys.argv[1:])
