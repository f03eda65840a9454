"""The LeaderWorkerSet controller's own program beside the control plane: installed, missed when it ends, taken away."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from rehearsal.control_plane import ControlPlane, ControlPlaneError
from rehearsal.resource import RehearsalError
from rehearsal.rollout import wait_until_ready
from rehearsal.run import ROOT, Rehearsal, load, opened
from rehearsal.timeline import Timeline

SET: dict[str, Any] = {
    "apiVersion": "leaderworkerset.x-k8s.io/v1",
    "kind": "LeaderWorkerSet",
    "metadata": {"name": "tried-out", "namespace": "default"},
    "spec": {
        "leaderWorkerTemplate": {
            "size": 1,
            "workerTemplate": {"spec": {"containers": [{"name": "none", "image": "none"}]}},
        }
    },
}


@pytest.fixture
def rehearsal(control_plane: ControlPlane) -> Iterator[Rehearsal]:
    """A rehearsal of which nothing is there yet; at its end nothing may be."""
    plan, settings = load("h200-bf16-two-nodes", [], ROOT)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        yield rehearsal
        assert rehearsal.left() == []


def test_it_is_asked_about_every_set_and_goes_without_a_trace(
    rehearsal: Rehearsal, control_plane: ControlPlane
) -> None:
    groups, cluster = rehearsal.world.groups, rehearsal.world.cluster
    groups.install("lws", "v0.7.0")
    refused = {**SET, "spec": {**SET["spec"], "rolloutStrategy": {"rollingUpdateConfiguration": {"maxUnavailable": 0}}}}
    assert "must not be 0 when `maxSurge` is 0" in (cluster.refusal(refused) or "")
    assert cluster.refusal(SET) is None
    with pytest.raises(RehearsalError) as caught:
        groups.install("lws", "v0.7.0")
    assert str(caught.value) == "lws: the cluster has a LeaderWorkerSet controller already"
    (name,) = (
        name for name in control_plane.programs if name.startswith("lws.") and control_plane.exit_status(name) is None
    )
    groups.uninstall("lws")
    assert control_plane.exit_status(name) == 0
    groups.check()  # it is not missed


def test_its_end_is_noticed(rehearsal: Rehearsal, control_plane: ControlPlane) -> None:
    groups, cluster = rehearsal.world.groups, rehearsal.world.cluster
    groups.install("lws", "v0.7.0")
    (name,) = (
        name for name in control_plane.programs if name.startswith("lws.") and control_plane.exit_status(name) is None
    )
    control_plane.signal(name, signal.SIGKILL)
    with pytest.raises(
        ControlPlaneError, match=r"^the LeaderWorkerSet controller was ended by SIGKILL; its last lines:\n"
    ):
        cluster.wait(lambda: False, "")
    groups.uninstall("lws")


def test_another_release_is_refused(rehearsal: Rehearsal) -> None:
    with pytest.raises(RehearsalError) as caught:
        rehearsal.world.groups.install("lws", "v0.8.0")
    assert str(caught.value) == "lws: version: v0.8.0 is not rehearsed, the controller that can be run here is v0.7.0"


def test_a_group_whose_pods_are_refused_is_not_waited_for(rehearsal: Rehearsal) -> None:
    """The controllers say so in events only: the StatefulSet of the first pods has no condition for it."""
    groups, cluster = rehearsal.world.groups, rehearsal.world.cluster
    groups.install("lws", "v0.7.0")
    namespace = {"name": "refused", "namespace": "refused"}
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "refused"}})
    try:
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": namespace, "spec": {"hard": {"pods": "0"}}}
        cluster.create(quota)
        awaited = {"pulumi.com/waitFor": "jsonpath={.status.replicas}=1"}
        body = cluster.apply({**SET, "metadata": {**namespace, "annotations": awaited}}, "the set")
        with pytest.raises(RehearsalError) as caught:
            wait_until_ready(cluster, body, "the set")
        cluster.delete(body["apiVersion"], body["kind"], "refused", "refused", "the set")
    finally:
        cluster.delete("v1", "Namespace", "refused", None, "the namespace")
        groups.uninstall("lws")
    assert str(caught.value) == (
        'the set: Create Pod refused-0 in StatefulSet refused failed error: pods "refused-0" is forbidden: exceeded quota: '
        "refused, requested: pods=1, used: pods=0, limited: pods=0"
    )
