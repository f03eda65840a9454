"""Upgrades of a stack that serves, as a user runs them: what goes through, what stops, and what clients notice."""

from __future__ import annotations

import re

import pytest

from rehearsal.control_plane import ControlPlane
from rehearsal.kubelet.programs import StandIns
from rehearsal.resource import RehearsalError
from rehearsal.run import ROOT, load, opened
from rehearsal.timeline import Timeline
from rehearsal.vllm.faults import Fault
from tests.fixtures.rehearsals import brought_up, rehearse

NO_LOSS = re.compile(r"client of glm +(\d+) requests, 0 failed; answered by ")


def told(*arguments: str) -> str:
    """What a rehearsal that passes has printed, as one line of words."""
    result = rehearse("upgrade", *arguments)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    return " ".join(result.stdout.split())


@pytest.mark.usefixtures("nothing_left")
def test_a_good_upgrade_goes_through_and_no_request_fails() -> None:
    lines = told("--stack", "prod")
    assert "✓ the upgrade of stack prod went through" in lines
    assert re.search(r"upgrade 1 to create, 1 to update, 1 to delete: [\w, -]*glm-expectations-", lines)
    assert len(re.findall(r"passed \d+ checks with [\d,]+ tokens in [\d.]+ s and takes traffic", lines)) == 4
    found = NO_LOSS.search(lines)
    assert found is not None
    assert int(found[1]) > 50
    assert "nothing is left" in lines


@pytest.mark.usefixtures("nothing_left")
def test_a_bad_image_stops_at_its_first_pod_and_is_taken_back() -> None:
    lines = told("--stack", "prod", "--serving-fault", "forced-call-in-content")
    assert "✓ the upgrade of stack prod stopped at its first pod and went back" in lines
    assert re.search(
        r"the rollout stopped at 1 of 2 pods, glm-\w+-\w+ does not become ready: container gate: tools-required failed: content "
        r"holds <tool_call>; usual cause: --enable-auto-tool-choice or --tool-call-parser is missing, or the release repeats or "
        r"loses forced calls",
        lines,
    )
    assert "way back the old settings were applied again, every pod is ready" in lines
    assert NO_LOSS.search(lines)
    assert "nothing is left" in lines


@pytest.mark.usefixtures("nothing_left")
def test_with_one_replica_the_report_says_that_serving_stops() -> None:
    lines = told("--stack", "dev", "--set", "workloads.glm.maxModelLen=65536")
    assert "✓ the upgrade of stack dev went through" in lines
    assert "upgrade glm: no spare node: serving stops for about 23 min, and stays stopped if the new pod fails" in lines
    assert re.search(r"\d+ requests, 0 failed, \d+ found no ready pod", lines)


@pytest.mark.usefixtures("nothing_left")
def test_a_capacity_block_starts() -> None:
    lines = told("--stack", "h200-capacity-block", "--set", "nodePools.h200.capacity.phase=active")
    assert "plan stack h200-capacity-block is accepted: 0 x p5en.48xlarge, 0.00 USD an hour at list price" in lines
    assert "plan nodePools.h200: Capacity Block cr-0123456789abcdef0 starts at 2026-12-01 11:30 UTC;" in lines
    assert "kubernetes DaemonSet nvidia-device-plugin waits for machines: its node groups have none" in lines
    assert "workload glm declared without replicas: the Capacity Block of pool h200 is not active" in lines
    assert "upgrade 2 to update: h200-nodes, glm-deployment" in lines
    assert "upgrade glm: has no pod to replace" in lines
    assert "nodes 1 x p5en.48xlarge joined: h200-nodes-" in lines
    assert "kubernetes Deployment glm is ready" in lines
    assert "✓ the upgrade of stack h200-capacity-block went through" in lines


@pytest.mark.usefixtures("nothing_left")
def test_a_capacity_block_ends() -> None:
    lines = told("--stack", "prod", "--set", "nodePools.b200.capacity.phase=ended")
    assert "upgrade 2 to update: b200-nodes, glm-deployment" in lines
    assert re.search(r"nodes 2 x p6-b200\.48xlarge taken away: b200-nodes-\w+-0, b200-nodes-\w+-1", lines)
    assert "kubernetes Deployment glm has no replica, as it says" in lines
    assert "✓ the upgrade of stack prod went through" in lines


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--serving-fault", "giberish"),
            2,
            "unknown fault 'giberish'; allowed are gibberish, low-accuracy, ",
        ),
        (
            ("--serving-fault", "gibberish", "--set", "workloads.glm.maxModelLen=65536"),
            2,
            "--serving-fault gibberish: a fault belongs to an image, and the upgrade changes none; leave --set out, or add --set "
            "workloads.glm.image=REPOSITORY@sha256:DIGEST\n",
        ),
        (("--set", "workloads.glm.precision=bf16"), 1, "stack dev is refused:\n  workloads.glm: bf16-one-node: "),
        (("--set", "workloads.glm.replica=2"), 2, "Pulumi.dev.yaml: workloads.glm.replica: unknown key; "),
    ],
)
def test_what_is_refused_before_anything_is_started(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = rehearse("upgrade", "--stack", "dev", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr


# --- on a control plane that other tests use too ----------------------------------------------------------------------------


def upgraded(control_plane: ControlPlane, *changes: str, stack: str = "dev") -> None:
    """Bring a stack up, upgrade it with clients asking, and tear it down whatever happens."""
    with brought_up(control_plane, stack) as upgrade, upgrade.watched():
        upgrade.go_through(*load(stack, changes, ROOT))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((), "the upgrade changes nothing"),
        (
            ("nodePools.h200.rootVolumeGiB=500",),
            "aws:ec2/launchTemplate:LaunchTemplate h200-template: blockDeviceMappings[0].ebs.volumeSize: not rehearsed: an "
            "upgrade here changes Kubernetes objects and the size of node groups only",
        ),
    ],
)
def test_what_is_not_rehearsed(control_plane: ControlPlane, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(RehearsalError) as refused:
        upgraded(control_plane, *changes)
    assert str(refused.value) == message


def test_clients_notice_a_pod_that_ends_before_its_endpoint_is_forgotten(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.timing._PRE_STOP_SECONDS", 0)
    with pytest.raises(RehearsalError, match=r"^workload glm: \d+ requests, \d+ failed.*: glm-[\w-]+: ") as noticed:
        upgraded(control_plane, "workloads.glm.maxModelLen=524288", stack="prod")
    assert re.search(r"RemoteDisconnected|Refused|Reset|broke off|ended with abort", str(noticed.value))


@pytest.mark.parametrize(
    ("fault", "words", "message", "code"),
    [
        # The engine is up again when the gate's restarts have used up the deadline: the gate has the word.
        (Fault.DIES_MID_CHECK, "container gate: ", "torch.OutOfMemoryError: CUDA out of memory.", 1),
        (
            Fault.NEVER_HEALTHY,
            "container vllm: Startup probe failed: [Errno 111] Connection refused",
            "Startup probe failed: [Errno 111] Connection refused",
            137,
        ),
    ],
)
def test_an_engine_that_dies_or_never_answers(
    control_plane: ControlPlane, *, fault: Fault, words: str, message: str, code: int
) -> None:
    plan, settings = load("dev", (), ROOT)
    servers = StandIns({plan.workloads["glm"].image: fault}, start_seconds=10.0)
    with opened(plan, settings, control_plane, Timeline(), servers) as rehearsal:
        with pytest.raises(RehearsalError) as failed:
            rehearsal.update()
        (pod,) = rehearsal.world.cluster.list("v1", "Pod", "glm")
        rehearsal.engine.destroy()
        assert rehearsal.left() == []
    assert words in str(failed.value)
    status = next(row for row in pod["status"]["containerStatuses"] if row["name"] == "vllm")
    ended = status["lastState"]["terminated"]
    assert (ended["message"].splitlines()[-1], ended["exitCode"]) == (message, code)


def test_a_failing_gate_shows_in_the_pods_status(control_plane: ControlPlane) -> None:
    plan, settings = load("dev", (), ROOT)
    servers = StandIns({plan.workloads["glm"].image: Fault.DEAD_MTP})
    with opened(plan, settings, control_plane, Timeline(), servers) as rehearsal:
        with pytest.raises(RehearsalError) as failed:
            rehearsal.update()
        (pod,) = rehearsal.world.cluster.list("v1", "Pod", "glm")
        rehearsal.engine.destroy()
        assert rehearsal.left() == []
    statuses = {row["name"]: row for row in pod["status"]["containerStatuses"]}
    ended = statuses["gate"]["lastState"]["terminated"]
    assert ended["message"].startswith("speculation failed: 1.0% of draft tokens were accepted, expected at least ")
    assert ended["message"].splitlines()[0] in str(failed.value)
    assert (ended["exitCode"], ended["reason"], statuses["gate"]["ready"]) == (1, "Error", False)
    assert statuses["gate"]["restartCount"] >= 1
    assert (statuses["vllm"]["ready"], statuses["vllm"]["restartCount"]) == (True, 0)
    conditions = {row["type"]: row for row in pod["status"]["conditions"]}
    assert conditions["Ready"]["message"] == "containers with unready status: [gate]"
    assert conditions["PodScheduled"]["status"] == "True"
