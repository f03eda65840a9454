"""The policy pack in a rehearsal: what somebody writes beside the components is judged before anything is made."""

from __future__ import annotations

import io
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from rehearsal.control_plane import ControlPlane
from rehearsal.policy_pack import PolicyPack
from rehearsal.resource import RehearsalError
from rehearsal.run import ROOT, Rehearsal, load, opened, policy_pack
from rehearsal.timeline import Timeline
from tests.fixtures.rule_cases import image, on_h200

BESIDE = """
import runpy

import pulumi_kubernetes as k8s

runpy.run_path({program!r}, run_name="__pulumi_program__")
words = {words!r}
pod = {{
    "node_selector": {{"accelerator.nvidia.com/class": "h200-8gpu"}},
    "containers": [
        {{
            "name": "vllm",
            "image": {image!r},
            "command": words,
            "resources": {{"limits": {{"nvidia.com/gpu": "8"}}}},
        }}
    ],
}}
k8s.core.v1.Pod("by-hand", metadata={{"name": "by-hand", "namespace": "glm"}}, spec=pod)
"""


@contextmanager
def rehearsed(plane: ControlPlane, printed: io.StringIO) -> Generator[tuple[Rehearsal, PolicyPack]]:
    """A rehearsal of dev with the pack."""
    plan, settings = load("dev", (), ROOT)
    timeline = Timeline(Console(file=printed, width=400))
    pack = policy_pack(plan, plane, timeline)
    with opened(plan, settings, plane, timeline, pack=pack) as rehearsal:
        yield rehearsal, pack


def test_what_is_written_by_hand_is_refused_before_anything_is_made(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    text = BESIDE.format(
        program=str(ROOT / "__main__.py"), words=list(on_h200("zai-org/GLM-5.2")), image=image("0.31.0")
    )
    (tmp_path / "__main__.py").write_text(text, encoding="utf-8")
    printed = io.StringIO()
    with rehearsed(control_plane, printed) as (rehearsal, _):
        rehearsal.engine.folder = tmp_path
        with pytest.raises(RehearsalError) as refused:
            rehearsal.preview()
        assert rehearsal.left() == []
    words = str(refused.value)
    assert words.startswith("the policy pack refuses kubernetes:core/v1:Pod by-hand: ")
    assert (
        "kubernetes:core/v1:Pod by-hand: bf16-one-node: BF16 weights fit their GPUs: container vllm: BF16 needs 178.8 GiB of "
        "weights on each GPU of one 8xH200 node; "
    ) in words
    assert "\n" not in words


def test_it_judges_every_preview_of_an_upgrade(control_plane: ControlPlane) -> None:
    printed = io.StringIO()
    with rehearsed(control_plane, printed) as (rehearsal, _):
        rehearsal.preview()
        rehearsal.change(*load("dev", ("workloads.glm.maxModelLen=65536",), ROOT))
    said = [line for line in printed.getvalue().splitlines() if "resources is refused by any of" in line]
    assert len(said) == 2
    assert [label for label, _ in rehearsal.proof] == ["preview", "policy pack"]


def test_a_pack_that_has_ended_is_no_pack_that_agrees(control_plane: ControlPlane) -> None:
    with rehearsed(control_plane, io.StringIO()) as (rehearsal, pack):
        control_plane.signal(pack.process, signal.SIGKILL)
        control_plane.programs[pack.process].wait(30)
        with pytest.raises(RehearsalError, match=r"^the policy pack (was ended by SIGKILL|has not judged)"):
            rehearsal.preview()
