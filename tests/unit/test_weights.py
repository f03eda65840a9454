"""The weights on a node: the real program against a hub on loopback that fails, lies, is cut off, and is killed."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from components.pod.weights import cache as weights_cache
from components.pod.weights import download as weights_download
from components.pod.weights.cache import FetchError, Model
from components.pod.weights.fetch import ensure
from components.pod.weights.sources import source_of
from tests.fixtures.hub import FILES, INDEX, REPOSITORY, REVISION, SHARDS, FakeHub, git_hash
from tests.fixtures.weights import Node

NAME = f"{REPOSITORY}@{REVISION}"
SHARD = next(iter(SHARDS))
WHOLE = sum(len(content) for content in FILES.values())
LARGEST = max(len(content) for content in FILES.values())
FIVE_WAITS = [30.0, 60.0, 120.0, 240.0]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def node(tmp_path: Path, hub: FakeHub) -> Node:
    return Node(Model(REPOSITORY, REVISION, tmp_path / "models"), hub)


@pytest.fixture
def served(node: Node) -> Node:
    """A node whose model is complete, verified and marked; its hub has counted nothing yet."""
    node.ensure()
    node.hub.sent = 0
    node.hub.requests.clear()
    return node


# --- a first and a second start --------------------------------------------------------------------------------------


def test_gits_hash_is_gits() -> None:
    assert git_hash(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_first_start_fetches_verifies_and_marks(node: Node) -> None:
    node.ensure()
    assert node.contents() == FILES
    assert node.hub.sent == WHOLE
    assert sorted(node.said)[-1].split(": ")[0] == f"{len(FILES)} of {len(FILES)} files"
    assert node.waits == []
    assert node.model.mark == node.model.cache / ".verified" / f"models--zai-org--GLM-5.2-FP8@{REVISION}.json"
    assert json.loads(node.model.mark.read_text()) == {name: len(content) for name, content in FILES.items()}
    assert list((node.model.folder / "blobs").glob("*.partial")) == []


def test_the_engines_own_client_finds_every_file_offline(served: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    # What vLLM does with a repository's name, a revision and HF_HUB_OFFLINE=1.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 (slow to import)

    folder = Path(snapshot_download(REPOSITORY, revision=REVISION, cache_dir=served.model.cache, local_files_only=True))
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES


def test_a_second_start_neither_asks_nor_hashes(served: Node) -> None:
    # The same size with other content: whoever reads the file again would see it.
    served.blob(SHARD).write_bytes(bytes(len(FILES[SHARD])))
    served.ensure()
    assert served.hub.requests == []
    assert served.said == [f"{NAME} is on this node and verified"]


def test_a_mark_is_for_one_revision(served: Node) -> None:
    served.model.mark.rename(served.model.mark.with_name(f"{served.model.folder.name}@{'f' * 40}.json"))
    served.ensure()
    assert served.hub.sent == 0  # the blobs are the same
    assert served.contents() == FILES
    assert served.model.mark.exists()


@pytest.mark.parametrize("damage", ["gone", "shorter", "empty"])
@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_what_changed_its_size_after_the_mark_is_fetched_again(served: Node, name: str, damage: str) -> None:
    blob = served.blob(name)
    if damage == "gone":
        blob.unlink()
    else:
        blob.write_bytes(FILES[name][:-1] if damage == "shorter" else b"")
    served.ensure()
    assert served.hub.fetched() == [name]
    assert served.hub.sent == len(FILES[name])
    assert served.contents() == FILES


@pytest.mark.parametrize("text", ["", '{"config.json": 2', "\0\0\0\0"])
def test_a_mark_that_a_crash_left_unreadable_is_no_mark(served: Node, text: str) -> None:
    served.model.mark.write_text(text)
    served.ensure()
    assert served.hub.sent == 0
    assert json.loads(served.model.mark.read_text()) == {name: len(content) for name, content in FILES.items()}


# --- bytes that are wrong --------------------------------------------------------------------------------------------

DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "one-bit": lambda content: content[:-1] + bytes([content[-1] ^ 128]),
    "shorter": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("name", [SHARD, "config.json", INDEX])
@pytest.mark.parametrize("damaged", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_blob_without_a_mark_is_found_and_fetched_again(
    served: Node, name: str, damaged: Callable[[bytes], bytes]
) -> None:
    served.model.mark.unlink()
    served.blob(name).write_bytes(damaged(FILES[name]))
    served.ensure()
    assert served.hub.fetched() == [name]
    assert served.contents() == FILES


def test_a_source_that_sends_other_bytes_is_refused_after_one_more_try(node: Node) -> None:
    node.hub.files[SHARD] = DAMAGES["one-bit"](FILES[SHARD])
    assert node.refused() == f"{SHARD} has another hash than the repository says, fetched 2 times"
    assert node.hub.sent <= WHOLE + len(FILES[SHARD])  # one download and one shard
    assert not node.blob(SHARD).exists()
    node.hub.files[SHARD] = FILES[SHARD]
    node.ensure()
    assert node.contents() == FILES


def test_a_source_that_sends_more_than_it_announced_is_refused(node: Node) -> None:
    node.hub.files[SHARD] = FILES[SHARD] + b"more"
    said = f"{SHARD} cannot be fetched: the server sends more than the {len(FILES[SHARD]):,} bytes it announced"
    assert node.refused() == said


def test_a_torn_tail_after_a_crash_of_the_node_costs_one_shard(node: Node) -> None:
    partial = node.partial(SHARD)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(FILES[SHARD][:50_000] + bytes(10_000))  # zeros where the disk had not written yet
    node.ensure()
    assert node.contents() == FILES
    assert node.hub.sent == WHOLE + len(FILES[SHARD]) - 60_000


@pytest.mark.parametrize("missing", [SHARD, INDEX])
def test_a_repository_that_lacks_what_the_weights_need(node: Node, missing: str) -> None:
    del node.hub.listed[missing]
    assert node.refused() == f"{NAME} lacks 1 files that its weights need, first {missing}"


# --- a hub that fails ------------------------------------------------------------------------------------------------


def test_four_failures_and_then_success(node: Node) -> None:
    node.hub.answers = [
        (503, {}),
        (429, {"Retry-After": "7"}),
        (500, {}),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    ]
    node.ensure()
    host = node.hub.url.removeprefix("http://")
    assert node.waits == [30.0, 7.0, 120.0, 240.0]
    assert node.said[:4] == [
        f"{NAME}: attempt 1 of 5: 503 Service Unavailable from {host}",
        f"{NAME}: attempt 2 of 5: 429 Too Many Requests from {host}",
        f"{NAME}: attempt 3 of 5: 500 Internal Server Error from {host}",
        f"{NAME}: attempt 4 of 5: 429 Too Many Requests from {host}",
    ]
    assert node.contents() == FILES


def test_five_failures(node: Node) -> None:
    node.hub.answers = [(503, {})] * 5
    host = node.hub.url.removeprefix("http://")
    assert node.refused() == f"{NAME} could not be fetched in 5 attempts: 503 Service Unavailable from {host}"
    assert node.waits == FIVE_WAITS


@pytest.mark.parametrize(("status", "reason"), [(401, "Unauthorized"), (404, "Not Found")])
def test_what_no_patience_mends_is_said_at_once(node: Node, status: int, reason: str) -> None:
    node.hub.answers = [(status, {})]
    host = node.hub.url.removeprefix("http://")
    assert node.refused() == f"{NAME} cannot be fetched: {status} {reason} from {host}"
    assert node.waits == []


def test_nobody_answers(node: Node) -> None:
    with FakeHub() as gone:
        pass
    node.hub = gone
    assert (
        "could not be fetched in 5 attempts: URLError: <urlopen error [Errno 111] Connection refused>" in node.refused()
    )


def test_a_transfer_that_is_cut_goes_on_where_it_was(node: Node) -> None:
    node.hub.cut_after = [10_000] * 10  # more than five, and each advances
    node.ensure()
    assert node.contents() == FILES
    assert node.hub.sent == WHOLE
    assert set(node.waits) == {30.0}


def test_a_transfer_that_never_advances_is_given_up(node: Node) -> None:
    node.hub.cut_after = [0] * 1000
    assert "could not be fetched in 5 attempts: the connection ended after 0 of" in node.refused()


def test_a_server_without_ranges_begins_again(node: Node) -> None:
    node.hub.knows_ranges = False
    partial = node.partial(SHARD)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(FILES[SHARD][:10_000])
    node.ensure()
    assert node.contents() == FILES
    assert node.hub.sent == WHOLE


def test_a_wait_that_a_server_asks_for_is_bounded() -> None:
    assert weights_download._seconds("86400") == 600.0
    assert weights_download._seconds("0") == 0.0
    assert weights_download._seconds(None) is None


# --- space -----------------------------------------------------------------------------------------------------------


def with_free(monkeypatch: pytest.MonkeyPatch, free: Callable[[], int]) -> None:
    usage = shutil.disk_usage("/")

    def disk_usage(_: Path) -> object:
        return usage._replace(free=free())

    monkeypatch.setattr(weights_cache.shutil, "disk_usage", disk_usage)


def another_model(node: Node, name: str, modified: int) -> Path:
    """Put another model with one blob beside the node's, marked as complete."""
    folder = node.model.cache / f"models--{name}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / ("0" * 64)).write_bytes(bytes(1000))
    mark = node.model.cache / ".verified" / f"{folder.name}@{'0' * 40}.json"
    mark.parent.mkdir(exist_ok=True)
    mark.write_text("{}")
    os.utime(folder, (modified, modified))
    return folder


def test_too_little_space(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, lambda: WHOLE - 1)
    assert node.refused() == (
        f"{node.model.cache} has 0.0 GB free, {NAME} lacks 0.0 GB and nothing is left to remove; "
        "free some of the node's array or choose a machine with a larger one"
    )
    assert node.hub.fetched() == []


def test_what_is_there_already_needs_no_space(served: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    served.model.mark.unlink()
    served.blob("config.json").unlink()
    with_free(monkeypatch, lambda: len(FILES["config.json"]))
    served.ensure()
    assert served.hub.fetched() == ["config.json"]


def test_the_oldest_model_makes_room_and_no_more_than_is_needed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    newer, older = another_model(node, "a--newer", 2_000_000_000), another_model(node, "b--older", 1_000_000_000)
    with_free(monkeypatch, lambda: WHOLE if not older.exists() else 0)
    node.ensure()
    assert (newer.exists(), older.exists()) == (True, False)
    assert [line for line in node.said if "removed" in line] == ["0 GB are free, too few: models--b--older is removed"]
    assert {path.name.partition("@")[0] for path in (node.model.cache / ".verified").iterdir()} == {
        "models--a--newer",
        node.model.folder.name,
    }


def test_other_revisions_make_room_when_no_other_model_is_left(served: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    old = served.model.snapshot.with_name("e" * 40)
    old_blob = served.model.folder / "blobs" / ("1" * 64)
    old.mkdir()
    old_blob.write_bytes(bytes(1000))
    (old / "model.safetensors").symlink_to(f"../../blobs/{old_blob.name}")
    old_mark = served.model.mark.with_name(f"{served.model.folder.name}@{old.name}.json")
    served.model.mark.rename(old_mark)
    served.blob(SHARD).unlink()
    with_free(monkeypatch, lambda: 0 if old_blob.exists() else len(FILES[SHARD]))
    served.ensure()
    assert not old.exists()
    assert not old_mark.exists()
    assert served.hub.fetched() == [SHARD]
    assert served.contents() == FILES


def test_beginnings_that_nobody_goes_on_with_are_removed(node: Node) -> None:
    blobs = node.model.folder / "blobs"
    blobs.mkdir(parents=True)
    left = [blobs / f"{'2' * 64}.partial", blobs / f"{'3' * 64}.0a1b2c3d.incomplete"]
    for path in left:
        path.write_bytes(b"x")
    node.ensure()
    assert not any(path.exists() for path in left)


def test_a_disk_that_fills_up_keeps_what_was_written(node: Node) -> None:
    # The kernel's limit for one file stands in for the disk's: it, too, writes what still goes in and then refuses.
    limit = 30_000
    with node.process(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) as process:
        said = process.communicate()[0].splitlines()
    assert process.returncode == 1
    assert said[-1] == f"{node.model.cache}: File too large; what was fetched stays and the next start goes on from it"
    assert not node.model.mark.exists()
    # The first shard that reaches the limit ends the others wherever they are.
    kept = {name: node.partial(name).stat().st_size for name in SHARDS if node.partial(name).exists()}
    assert max(kept.values()) == limit
    node.hub.requests.clear()
    node.ensure()
    assert node.contents() == FILES
    assert {(f"/store/{name}", f"bytes={size}-") for name, size in kept.items()} <= set(node.hub.requests)


def test_a_full_disk(node: Node) -> None:
    partial = node.partial(SHARD)
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    with node.process() as process:
        said = process.communicate()[0].splitlines()
    assert process.returncode == 1
    assert (
        said[-1]
        == f"{node.model.cache}: No space left on device; what was fetched stays and the next start goes on from it"
    )


# --- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The same server as a bucket with a finished mirror; botocore signs for it."""
    prefix = f"copies/{REPOSITORY}/{REVISION}/"
    manifest = [
        {"path": name, "size": len(content), "hash": hashlib.sha256(content).hexdigest()}
        for name, content in FILES.items()
    ]
    hub.files = {prefix + name: content for name, content in FILES.items()}
    hub.files[f"{prefix}manifest.json"] = json.dumps(manifest).encode()
    monkeypatch.setenv("AWS_ENDPOINT_URL", hub.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    return hub


def test_a_mirror_in_s3(bucket: FakeHub, node: Node) -> None:
    ensure(node.model, source_of("s3://store/copies", REPOSITORY, REVISION), node.said.append)
    assert node.contents() == FILES
    asked = [path for path, _ in bucket.requests]
    assert all("X-Amz-Signature=" in path for path in asked)
    assert asked[0].startswith(f"/store/copies/{REPOSITORY}/{REVISION}/manifest.json?")


def test_a_mirror_that_was_not_finished_is_no_source(bucket: FakeHub, node: Node) -> None:
    del bucket.files[f"copies/{REPOSITORY}/{REVISION}/manifest.json"]
    with pytest.raises(FetchError, match=r"cannot be fetched: 404 Not Found from 127\.0\.0\.1"):
        ensure(node.model, source_of("s3://store/copies", REPOSITORY, REVISION), node.said.append)
    assert not node.model.mark.exists()


def test_an_image_without_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(weights_download.RefusedError, match="this image has no botocore, which signs requests to S3"):
        source_of("s3://store/copies", REPOSITORY, REVISION)


# --- the program -----------------------------------------------------------------------------------------------------


def test_the_program(node: Node) -> None:
    with node.process() as first:
        said = first.communicate()[0].splitlines()
    assert (first.returncode, len(said)) == (0, len(FILES))
    assert node.contents() == FILES
    with node.process() as second:
        assert second.communicate()[0] == f"{NAME} is on this node and verified\n"


def test_the_program_says_why_it_cannot(node: Node) -> None:
    node.hub.answers = [(404, {})]
    with node.process() as process:
        host = node.hub.url.removeprefix("http://")
        assert process.communicate()[0] == f"{NAME} cannot be fetched: 404 Not Found from {host}\n"
    assert process.returncode == 1
    node.model.cache.parent.joinpath("file").touch()
    node.model = Model(REPOSITORY, REVISION, node.model.cache.parent / "file" / "models")
    with node.process() as process:
        assert process.communicate()[0] == (
            f"{node.model.cache}: Not a directory; what was fetched stays and the next start goes on from it\n"
        )
    assert process.returncode == 1


def test_a_pod_that_is_deleted_ends_at_once(node: Node) -> None:
    with node.process() as process:
        node.hub.when_sent = (WHOLE // 2, lambda: process.send_signal(signal.SIGTERM))
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM


def waiters(path: Path) -> int:
    """How many processes wait for a lock on a file: the rows of /proc/locks with an arrow."""
    inode = f":{path.stat().st_ino} "
    return sum(" -> " in row and inode in row for row in Path("/proc/locks").read_text().splitlines())


def test_two_pods_that_start_at_once_fetch_once(node: Node) -> None:
    lock = node.model.cache / ".lock"
    waited = threading.Event()

    def wait_for_the_second() -> None:
        deadline = time.monotonic() + 60
        while waiters(lock) < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        if waiters(lock):
            waited.set()

    node.hub.when_sent = (1, wait_for_the_second)
    with node.process() as first:
        while not node.hub.requests:  # the first has the lock
            time.sleep(0.01)
        with node.process() as second:
            assert second.communicate()[0] == f"{NAME} is on this node and verified\n"
        first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert waited.is_set(), "the second never waited for the first"
    assert node.hub.sent == WHOLE
