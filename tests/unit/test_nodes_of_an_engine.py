"""How the nodes of an engine find each other in a rehearsal."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from rehearsal.vllm import group


def test_an_engine_starts_when_all_its_nodes_are_there(tmp_path: Path) -> None:
    place = tmp_path / "meet"
    gathered, attended = threading.Event(), threading.Event()
    nodes: list[Any] = []

    def first() -> None:
        nodes.extend(group.gather(place, 2))
        gathered.set()

    def other() -> None:
        group.attend(place)
        attended.set()

    threads = [threading.Thread(target=act, daemon=True) for act in (first, other)]
    for thread in threads:
        thread.start()
    last = threading.Thread(target=other, daemon=True)
    assert not gathered.is_set()  # one of two is there at most
    last.start()
    threads[0].join()
    assert gathered.is_set()
    assert not attended.is_set()
    for node in nodes:
        node.close()
    threads[1].join()
    last.join()  # both have seen that the first is gone


def test_the_loss_of_a_node_is_noticed(tmp_path: Path) -> None:
    place, lost = tmp_path / "meet", threading.Event()
    nodes: list[Any] = []
    gathering = threading.Thread(target=lambda: nodes.extend(group.gather(place, 1)), daemon=True)
    gathering.start()
    with group.connected(place):
        gathering.join()
        group.watch(nodes, lost.set)
        assert not lost.is_set()
    assert lost.wait(60)
    for node in nodes:
        node.close()


@pytest.mark.parametrize(
    ("flags", "worker", "others"),
    [({}, False, 0), ({"nnodes": "2", "node-rank": "0"}, False, 1), ({"nnodes": "4", "headless": "true"}, True, 3)],
)
def test_what_a_command_says_of_its_nodes(flags: dict[str, str], worker: bool, others: int) -> None:
    assert (group.is_worker(flags), group.others(flags)) == (worker, others)
