"""The stack's admission policies on the real API server, as tests use them: installed, in effect, asked without creating."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from rehearsal.cluster import Cluster
from rehearsal.control_plane import ControlPlane
from rehearsal.run import render

Object = dict[str, Any]

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
API = "admissionregistration.k8s.io/v1"

# An object with this label is judged by the policies that were installed for its value.
JUDGED_BY = "judged-by"


@dataclass(frozen=True)
class Policy:
    """A rule's policy and its binding, as the component makes them."""

    rule: str
    policy: Object
    binding: Object


@cache
def policies_of(stack: str) -> tuple[Policy, ...]:
    """Return what the program registers for a stack."""
    objects = list(render(stack, (), pytest.fail))
    policies = {row["metadata"]["name"]: row for row in objects if row["kind"] == POLICY}
    bindings = {row["spec"]["policyName"]: row for row in objects if row["kind"] == BINDING}
    assert policies.keys() == bindings.keys()
    prefix = f"glm-on-gpus-{stack}-"
    return tuple(
        Policy(name.removeprefix(prefix), _plain(policies[name]), _plain(bindings[name])) for name in sorted(policies)
    )


def _plain(body: Mapping[str, Any]) -> Object:
    return copy.deepcopy(dict(body))


class Server:
    """An API server with a namespace, and the policies that a test installs there."""

    def __init__(self, plane: ControlPlane, scratch: Path) -> None:
        self.namespace = f"judged-{uuid.uuid4().hex[:8]}"
        self.cluster = Cluster(plane.kubeconfig, scratch, plane.check)
        self.client = config.new_client_from_config_dict(yaml.safe_load(plane.kubeconfig))
        self.core: Any = client.CoreV1Api(self.client)
        self.apps: Any = client.AppsV1Api(self.client)
        self._canaries = 0
        self.create_namespace(self.namespace)

    def create_namespace(self, name: str) -> None:
        """Create a namespace and wait for the account that its pods run under."""
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.cluster.wait(
            lambda: self.cluster.get("v1", "ServiceAccount", "default", name) is not None, "no default service account"
        )

    def install(self, policies: Mapping[str, Policy], scope: Mapping[str, Any] | None = None) -> None:
        """Install policies, each for objects labelled with its key, and wait until the API server holds to them.

        `scope` is the binding's own selection of namespaces instead, for all objects.
        """
        here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}}
        for key, row in policies.items():
            selected = scope or {**here, "objectSelector": {"matchLabels": {JUDGED_BY: key}}}
            self._apply(key, row.policy, selected)
        # The API server learns of policies in the order of their creation: when it holds to the last one, it does to all.
        self._canaries += 1
        canary = f"canary-{self._canaries}"
        self._apply(canary, _CANARY, {**here, "objectSelector": {"matchLabels": {JUDGED_BY: canary}}})
        self.cluster.wait(lambda: self._refuses(canary), "the policies do not take effect")

    def _apply(self, key: str, policy: Object, selected: Mapping[str, Any]) -> None:
        name = f"{key}.{self.namespace}"
        metadata = {"metadata": {"name": name, "labels": {"test": self.namespace}}}
        spec = {"policyName": name, "validationActions": ["Deny"], "matchResources": dict(selected)}
        bodies: tuple[Object, ...] = (
            {**policy, **metadata},
            {"apiVersion": API, "kind": BINDING, **metadata, "spec": spec},
        )
        for body in bodies:
            self.cluster.apply(body, name)

    def _refuses(self, canary: str) -> bool:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "canary"}}
        return self.refusal(body, judged_by=canary) is not None

    def close(self) -> None:
        """Take away what was made, and wait until the API server has forgotten the policies."""
        registered: Any = client.AdmissionregistrationV1Api(self.client)
        registered.delete_collection_validating_admission_policy_binding(label_selector=f"test={self.namespace}")
        registered.delete_collection_validating_admission_policy(label_selector=f"test={self.namespace}")
        last = f"canary-{self._canaries}"
        self.cluster.wait(lambda: not self._refuses(last), "the policies do not cease")
        self.core.delete_namespace(self.namespace)
        self.client.close()
        self.cluster.close()

    def refusal(self, body: Object, *, judged_by: str | None = None) -> str | None:
        """Return why an object would not be created in the namespace, None if it would."""
        return self.cluster.refusal(self.placed(body, judged_by))

    def placed(self, body: Object, judged_by: str | None = None) -> Object:
        """Return an object in the namespace, to be judged by one policy if `judged_by` names its key."""
        labels = {**body["metadata"].get("labels", {}), **({JUDGED_BY: judged_by} if judged_by else {})}
        metadata = {"namespace": self.namespace, **body["metadata"], "labels": labels}
        return {**body, "metadata": metadata}


_CANARY: Object = {
    "apiVersion": API,
    "kind": POLICY,
    "spec": {
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
            ]
        },
        "validations": [{"expression": "false", "message": "the canary"}],
    },
}
