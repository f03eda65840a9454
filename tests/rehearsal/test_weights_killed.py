"""The program that fetches the weights, as a process that is killed at any moment."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from components.pod.weights.cache import Model
from tests.fixtures.hub import FILES, REPOSITORY, REVISION, FakeHub
from tests.fixtures.weights import Node

WHOLE = sum(len(content) for content in FILES.values())


def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    """No byte that is on the disk is asked for again, and nothing torn is ever shown as a file of the model."""
    chance = random.Random(20261125)
    with FakeHub() as hub:
        kill_again_and_again(Node(Model(REPOSITORY, REVISION, tmp_path / "models"), hub), chance)


def kill_again_and_again(node: Node, chance: random.Random) -> None:
    kills = 0
    while kills < 50:
        there = on_disk(node)
        node.hub.requests.clear()
        with node.process() as process:
            if kills % 3:  # while bytes flow
                node.hub.when_sent = (node.hub.sent + chance.randrange(1, WHOLE // 10), process.kill)
            else:  # at a line that the program says: files are being linked or the mark is being written
                node.hub.when_sent = None
                assert process.stdout is not None
                process.stdout.readline()
                process.kill()
            process.communicate()
        assert asked_again(node, there) == []
        kills += process.returncode == -signal.SIGKILL
        for path in node.model.snapshot.rglob("*"):
            if path.is_file():
                assert path.read_bytes() == FILES[str(path.relative_to(node.model.snapshot))]
        if node.model.mark.exists():
            assert node.contents() == FILES
            shutil.rmtree(node.model.cache)  # it is complete: begin again with an empty node
    node.hub.when_sent = None
    node.ensure()
    assert node.contents() == FILES


def on_disk(node: Node) -> dict[str, int]:
    """Return how many bytes of each file the node has, whole or in part."""
    sizes = {name: [node.blob(name), node.partial(name)] for name in FILES}
    return {name: max((p.stat().st_size for p in paths if p.exists()), default=0) for name, paths in sizes.items()}


def asked_again(node: Node, there: Mapping[str, int]) -> list[str]:
    """Return the files of which bytes were asked for that the node had."""
    asked = [(path.removeprefix("/store/"), begins) for path, begins in node.hub.requests if path.startswith("/store/")]
    return [name for name, begins in asked if begins != f"bytes={there[name]}-"]
