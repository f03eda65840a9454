"""The kind itself, as far as a stack uses it: the API server refuses a field that is not here."""

from __future__ import annotations

from typing import Any, Final

GROUP: Final = "leaderworkerset.x-k8s.io"
API_VERSION: Final = f"{GROUP}/v1"
KIND: Final = "LeaderWorkerSet"
CRD_NAME: Final = f"leaderworkersets.{GROUP}"

Object = dict[str, Any]

# A pod's fields are for the API server to judge when the pod is made.
_TEMPLATE: Final[Object] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_COUNT: Final[Object] = {"type": "integer", "minimum": 0}
_SPEC: Final[Object] = {
    "type": "object",
    "required": ["leaderWorkerTemplate"],
    "properties": {
        "replicas": {**_COUNT, "default": 1},
        "startupPolicy": {"type": "string", "enum": ["LeaderCreated", "LeaderReady"], "default": "LeaderCreated"},
        "rolloutStrategy": {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["RollingUpdate"]},
                "rollingUpdateConfiguration": {
                    "type": "object",
                    "properties": {"maxSurge": _COUNT, "maxUnavailable": _COUNT},
                    "x-kubernetes-validations": [
                        {
                            "rule": "self.maxSurge > 0 || self.maxUnavailable > 0",
                            "message": "must not be 0 when `maxSurge` is 0",
                        }
                    ],
                },
            },
        },
        "leaderWorkerTemplate": {
            "type": "object",
            "required": ["workerTemplate"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "default": 1},
                "restartPolicy": {
                    "type": "string",
                    "enum": ["RecreateGroupOnPodRestart", "None"],
                    "default": "RecreateGroupOnPodRestart",
                },
                "leaderTemplate": _TEMPLATE,
                "workerTemplate": _TEMPLATE,
            },
        },
    },
}
_STATUS: Final[Object] = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas"), _COUNT),
        "conditions": {"type": "array", "items": _TEMPLATE},
    },
}


def definition() -> Object:
    """Return the CustomResourceDefinition."""
    schema = {
        "type": "object",
        "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "spec": _SPEC, "status": _STATUS},
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": "leaderworkersets", "singular": "leaderworkerset", "kind": KIND, "shortNames": ["lws"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": CRD_NAME,
            # The API server wants this of kinds in a group of the Kubernetes project.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a rehearsal's own"},
        },
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }
