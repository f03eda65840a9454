"""One control plane for the whole tier; no test sees the admission policies of another."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from rehearsal.control_plane import ControlPlane
from tests.fixtures.control_plane import control_plane, programs

__all__ = ["control_plane", "programs"]


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
