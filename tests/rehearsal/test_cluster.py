"""What a rehearsal's cluster says of a kind that goes while it looks."""

from __future__ import annotations

from pathlib import Path

from kubernetes.client.exceptions import ApiException

from rehearsal.cluster import Cluster
from rehearsal.control_plane import ControlPlane
from rehearsal.resource import RehearsalError

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "visitors.test.example"},
    "spec": {
        "group": "test.example",
        "scope": "Namespaced",
        "names": {"plural": "visitors", "singular": "visitor", "kind": "Visitor"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


VISITOR = {"apiVersion": "test.example/v1", "kind": "Visitor", "metadata": {"name": "short", "namespace": "default"}}
LISTED = "Visitor default/short"


def test_a_kind_that_has_gone_has_no_objects(control_plane: ControlPlane, tmp_path: Path) -> None:
    cluster = Cluster(control_plane.kubeconfig, tmp_path, control_plane.check)
    cluster.apply(DEFINITION, "visitors")
    try:
        cluster.wait(lambda: is_taken(cluster), "the kind is not served")
        cluster.create(VISITOR)
        assert LISTED in cluster.everything()
        cluster.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "visitors.test.example", None, "visitors")
        # The client has looked for kinds before, and still knows this one.
        cluster.wait(lambda: is_not_found(cluster), "the kind is still served")
        assert LISTED not in cluster.everything()
    finally:
        cluster.close()


def is_taken(cluster: Cluster) -> bool:
    cluster.look_for_kinds()
    try:
        return cluster.refusal(VISITOR) is None
    except RehearsalError:
        return False


def is_not_found(cluster: Cluster) -> bool:
    try:
        cluster.list("test.example/v1", "Visitor")
    except ApiException as error:
        return error.status == 404
    return False
