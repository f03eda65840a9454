"""Every example stack, rehearsed from preview to nothing left: each replica takes traffic because its gate has passed.

Two are rehearsed as a whole elsewhere: several nodes in test_groups.py, a Capacity Block before its start in test_upgrade.py.
"""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from rehearsal.control_plane import ControlPlane
from rehearsal.run import ROOT, load, opened, policy_pack
from rehearsal.timeline import Timeline
from tests.fixtures.stacks import EXAMPLES

ELSEWHERE = {"h200-bf16-two-nodes", "h200-capacity-block"}
GATE_PASSED = re.compile(r"gate +(glm-\S+) passed \d+ checks with [\d,]+ tokens in [\d.]+ s and takes traffic")


@pytest.mark.parametrize("stack", sorted({*EXAMPLES} - ELSEWHERE))
def test_an_example_is_rehearsed(control_plane: ControlPlane, stack: str) -> None:
    plan, settings = load(stack, (), ROOT)
    printed = io.StringIO()
    timeline = Timeline(Console(file=printed))
    pack = policy_pack(plan, control_plane, timeline)
    with opened(plan, settings, control_plane, timeline, pack=pack) as rehearsal:
        rehearsal.preview()
        rehearsal.update()
        pods = rehearsal.world.cluster.list("v1", "Pod", "glm", label_selector="app.kubernetes.io/instance=glm")
        rehearsal.tear_down()
        assert rehearsal.left() == []
    replicas = plan.workloads["glm"].replicas
    assert sorted(GATE_PASSED.findall(printed.getvalue())) == sorted(pod["metadata"]["name"] for pod in pods)
    assert len(pods) == replicas > 0
    served = f"{replicas} of {replicas} replicas ready at http://glm.glm.svc.cluster.local:8000/v1"
    assert ("workload glm", served) in rehearsal.proof
    assert "policy pack" in dict(rehearsal.proof)
