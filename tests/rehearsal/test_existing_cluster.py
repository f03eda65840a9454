"""A stack on a cluster that exists: its machines are there before the stack, and remain after it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rehearsal.control_plane import ControlPlane
from rehearsal.run import load, opened
from rehearsal.timeline import Timeline

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "mine", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
}


@pytest.mark.parametrize("installs_plugin", [False, True])
def test_a_stack_on_an_existing_cluster(control_plane: ControlPlane, tmp_path: Path, installs_plugin: bool) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG), encoding="utf-8")
    cluster = {
        "kind": "existing",
        "context": "mine",
        "kubeconfig": str(kubeconfig),
        "installDevicePlugin": installs_plugin,
    }
    config = {
        "glm-on-gpus:cluster": cluster,
        "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5en.48xlarge", "nodes": 1}},
        "glm-on-gpus:workloads": {
            "glm": {"nodePool": "h200", "precision": "fp8", "replicas": 1, "maxModelLen": 131072},
        },
    }
    (tmp_path / "Pulumi.existing.yaml").write_text(yaml.safe_dump({"config": config}), encoding="utf-8")
    plan, settings = load("existing", (), tmp_path)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        rehearsal.preview()
        rehearsal.update()
        kinds = {created.resource.type for created in rehearsal.engine.created}
        assert not any(kind.startswith("aws:") for kind in kinds)
        assert ("kubernetes:apps/v1:DaemonSet" in kinds) == installs_plugin
        rehearsal.tear_down()
    assert ("workload glm", "1 of 1 replicas ready at http://glm.glm.svc.cluster.local:8000/v1") in rehearsal.proof
