"""One control plane for the tier; no test sees the admission policies of another, or leaves anything."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from rehearsal.control_plane import ControlPlane, Programs
from tests.fixtures.control_plane import control_plane, programs
from tests.fixtures.rehearsals import processes_of, work_tree

__all__ = ["control_plane", "programs"]


@pytest.fixture
def scratch(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for everything temporary of a rehearsal; short, because sockets lie in it. Needs the programs built."""
    assert programs.complete()
    with tempfile.TemporaryDirectory(prefix="r-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def nothing_left(scratch: Path) -> Iterator[None]:
    """Check that a test leaves no process, no temporary file and nothing in the work tree."""
    tree = work_tree()
    yield
    assert processes_of(scratch) == set()
    assert list(scratch.iterdir()) == []
    assert work_tree() == tree


@pytest.fixture(autouse=True)
def no_policy_of_a_test_before(request: pytest.FixtureRequest) -> None:
    """Wait until the API server has forgotten the admission policies of a rehearsal before: it takes a second to."""
    if "control_plane" not in request.fixturenames:
        return
    plane: ControlPlane = request.getfixturevalue("control_plane")
    with config.new_client_from_config_dict(yaml.safe_load(plane.kubeconfig)) as api:
        while not client.AdmissionregistrationV1Api(api).list_validating_admission_policy().items and _refused(api):
            time.sleep(0.05)


def _refused(api: client.ApiClient) -> bool:
    """Whether a policy that is no more refuses a pod that breaks every rule."""
    container = {"name": "vllm", "image": "vllm", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    pod: Any = {
        "metadata": {"name": "tried-out"},
        "spec": {"automountServiceAccountToken": False, "containers": [container]},
    }
    core: Any = client.CoreV1Api(api)
    try:
        core.create_namespaced_pod("default", pod, dry_run="All")
    except ApiException as error:
        return "ValidatingAdmissionPolicy" in str(error.body)
    return False
