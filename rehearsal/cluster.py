"""The real API server: objects are applied by server-side apply, waited for, explained if they do not come up, deleted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from urllib3.exceptions import HTTPError

from rehearsal.engine import RehearsalError
from rehearsal.placement import pod_template, why_not_placed

_FIELD_MANAGER = "glm-on-gpus"
_POLL_SECONDS = 0.1

# How long a pod may stay unschedulable after the cluster last changed. The real scheduler tries again at every change of a
# node within a second or two.
_SETTLED_SECONDS = 6.0

Object = dict[str, Any]


class Cluster:
    """A Kubernetes cluster, through a kubeconfig. `check` is called while waiting and raises if the cluster is gone."""

    def __init__(
        self, kubeconfig: str, scratch: Path, check: Callable[[], None], deadline_seconds: float = 120.0
    ) -> None:
        settings: Object = json.loads(kubeconfig) if kubeconfig.lstrip().startswith("{") else _yaml(kubeconfig)
        api = config.new_client_from_config_dict(settings)
        api.configuration.retries = False  # a control plane that is being stopped is not worth asking again
        self._api: client.ApiClient = api
        self._dynamic = DynamicClient(api, cache_file=str(scratch / "discovery.json"))
        self._check = check
        self._deadline_seconds = deadline_seconds
        self._changed = time.monotonic()
        self.stopping = threading.Event()

    # --- reading and writing ----------------------------------------------------------------------------------

    def apply(self, body: Object, label: str) -> Object:
        """Apply an object by server-side apply; a refusal names the resource, the field and the server's reason."""
        kind = self._kind(body, label)
        try:
            return cast(
                "Object",
                kind.server_side_apply(
                    body=body,
                    name=body["metadata"]["name"],
                    namespace=body["metadata"].get("namespace"),
                    field_manager=_FIELD_MANAGER,
                ).to_dict(),
            )
        except ApiException as error:
            raise RehearsalError(f"{label}: {_refusal(error)}") from None

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, or None if there is none of that name."""
        try:
            found = self._dynamic.resources.get(api_version=api_version, kind=kind).get(name=name, namespace=namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return cast("Object", found.to_dict())

    def list(self, api_version: str, kind: str, namespace: str | None = None, **options: Any) -> list[Object]:
        """Return all objects of a kind."""
        found = self._dynamic.resources.get(api_version=api_version, kind=kind).get(namespace=namespace, **options)
        return cast("list[Object]", found.to_dict()["items"])

    def create(self, body: Object) -> None:
        """Create an object, with its status where the server takes one (nodes)."""
        kind = self._kind(body, body["kind"])
        kind.create(body=body, namespace=body["metadata"].get("namespace"))
        self.touch()

    def refusal(self, body: Object) -> str | None:
        """Return why the API server would not create an object, None if it would; nothing is created."""
        kind = self._kind(body, body["kind"])
        try:
            kind.create(body=body, namespace=body["metadata"].get("namespace"), dry_run="All")
        except ApiException as error:
            return _refusal(error)
        return None

    def patch(self, body: Object, *, status: bool = False) -> None:
        """Merge into an object, or into its status."""
        kind = self._kind(body, body["kind"])
        target = kind.status if status else kind
        target.patch(
            body=body,
            name=body["metadata"]["name"],
            namespace=body["metadata"].get("namespace"),
            content_type="application/merge-patch+json",
        )
        self.touch()

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None, label: str) -> None:
        """Delete an object with what it owns and wait until it is gone."""
        try:
            self._dynamic.resources.get(api_version=api_version, kind=kind).delete(
                name=name, namespace=namespace, body={"propagationPolicy": "Foreground"}
            )
        except ApiException as error:
            if error.status != 404:
                raise RehearsalError(f"{label}: {_refusal(error)}") from None
        self.wait(lambda: self.get(api_version, kind, name, namespace) is None, f"{label}: is still there")

    def touch(self) -> None:
        """Note that the cluster has changed, so that the scheduler gets its time again."""
        self._changed = time.monotonic()

    def everything(self) -> set[str]:
        """Return every object that a client can list, as `kind namespace/name`, except those that come and go by themselves."""
        found: set[str] = set()
        for kinds in self._dynamic.resources.search():
            if "list" not in (kinds.verbs or []) or kinds.kind in _TRANSIENT or kinds.kind.endswith("List"):
                continue
            for item in self.list(kinds.group_version, kinds.kind):
                metadata = item["metadata"]
                found.add(f"{kinds.kind} {metadata.get('namespace', '')}/{metadata['name']}".replace(" /", " "))
        return found

    # --- waiting ------------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool], otherwise: str | Callable[[], str]) -> None:
        """Wait for a condition; raise `RehearsalError` with `otherwise` when the deadline has passed."""
        deadline = time.monotonic() + self._deadline_seconds
        while not condition():
            if self.stopping.wait(_POLL_SECONDS):
                raise RehearsalError("the rehearsal was stopped")
            self._check()
            if time.monotonic() > deadline:
                raise RehearsalError(otherwise if isinstance(otherwise, str) else otherwise())

    def wait_until_ready(self, body: Object, label: str) -> None:
        """Wait until a Deployment or a DaemonSet runs; fail as soon as it is clear that it cannot, and say why."""
        kind, name, namespace = body["kind"], body["metadata"]["name"], body["metadata"].get("namespace")
        ready = {"Deployment": _deployment_ready, "DaemonSet": _daemon_set_ready}.get(kind)
        if ready is None:
            return
        self.touch()

        def done() -> bool:
            current = self.get(body["apiVersion"], kind, name, namespace)
            if current is None:
                raise RehearsalError(f"{label}: was deleted while it was waited for")
            if ready(current):
                return True
            self._fail_if_hopeless(current, label)
            return False

        self.wait(done, lambda: f"{label}: is not ready: {self._pods_of(body)}")

    def _fail_if_hopeless(self, current: Object, label: str) -> None:
        for condition in current.get("status", {}).get("conditions", []):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                raise RehearsalError(f"{label}: {condition['message']}")
        if time.monotonic() - self._changed < _SETTLED_SECONDS:
            return
        if current["kind"] == "DaemonSet" and current.get("status", {}).get("desiredNumberScheduled", 0) == 0:
            reason = why_not_placed(pod_template(current), self.nodes())
            raise RehearsalError(f"{label}: runs on none of {len(self.nodes())} nodes: {reason}")
        for pod in self._unschedulable(current):
            reason = why_not_placed(pod, self.nodes())
            said = next(c["message"] for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
            raise RehearsalError(f"{label}: cannot be scheduled: {reason} (scheduler: {said})")

    def _unschedulable(self, owner: Object) -> Iterator[Object]:
        for pod in self._owned_pods(owner):
            for condition in pod.get("status", {}).get("conditions", []):
                if condition["type"] == "PodScheduled" and condition["status"] == "False":
                    yield pod

    def _owned_pods(self, owner: Object) -> list[Object]:
        labels: Mapping[str, str] = owner["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return self.list("v1", "Pod", owner["metadata"].get("namespace"), label_selector=selector)

    def _pods_of(self, owner: Object) -> str:
        pods = self._owned_pods(owner)
        return "; ".join(f"pod {p['metadata']['name']} is {p['status'].get('phase')}" for p in pods) or "it has no pod"

    def nodes(self) -> list[Object]:
        """Return all nodes."""
        return self.list("v1", "Node")

    def watch_pods(self) -> Iterator[Object]:
        """Yield every pod that appears or changes, until the cluster or the rehearsal ends."""
        pods = self._dynamic.resources.get(api_version="v1", kind="Pod")
        while not self.stopping.is_set():
            try:
                for event in pods.watch(timeout=60):
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        yield cast("Object", event["object"].to_dict())
                    if self.stopping.is_set():
                        return
            except (ApiException, HTTPError):
                if self.stopping.wait(_POLL_SECONDS):
                    return

    def close(self) -> None:
        """End every wait and close the connections."""
        self.stopping.set()
        self._api.close()

    def _kind(self, body: Object, label: str) -> Any:
        try:
            return self._dynamic.resources.get(api_version=body["apiVersion"], kind=body["kind"])
        except Exception as error:
            raise RehearsalError(
                f"{label}: the API server does not serve {body['apiVersion']} {body['kind']}"
            ) from error


# Objects that the control plane makes and renews by itself.
_TRANSIENT = {"Event", "Lease", "EndpointSlice", "Endpoints", "ComponentStatus", "APIService", "FlowSchema"}


def _yaml(text: str) -> Object:
    import yaml  # noqa: PLC0415 (only here)

    return cast("Object", yaml.safe_load(text))


def _refusal(error: ApiException) -> str:
    """Turn the API server's answer into `field: reason`."""
    try:
        status: Object = json.loads(error.body or "{}")
    except ValueError:
        return f"the API server answered {error.status} {error.reason}"
    details = status.get("details") or {}
    causes = [f"{cause.get('field')}: {cause.get('message')}" for cause in details.get("causes") or []]
    message = status.get("message", error.reason)
    if details.get("kind") == "namespaces" and status.get("reason") == "NotFound":
        return f"metadata.namespace: {message}"
    return "; ".join(causes) or str(message)


def _deployment_ready(current: Object) -> bool:
    status = current.get("status", {})
    wanted = current["spec"]["replicas"]
    return (
        status.get("observedGeneration", 0) >= current["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


def _daemon_set_ready(current: Object) -> bool:
    """A DaemonSet on no node counts as complete for Kubernetes; here it does not."""
    status = current.get("status", {})
    wanted = status.get("desiredNumberScheduled", 0)
    return (
        status.get("observedGeneration", 0) >= current["metadata"]["generation"]
        and wanted > 0
        and status.get("numberReady", 0) == wanted
        and status.get("updatedNumberScheduled", 0) == wanted
    )
