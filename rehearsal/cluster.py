"""The real API server: objects are applied by server-side apply, waited for, explained if they do not come up, deleted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from urllib3.exceptions import HTTPError

from rehearsal.resource import RehearsalError

_FIELD_MANAGER = "glm-on-gpus"
_POLL_SECONDS = 0.1
_NOT_FOUND, _CONFLICT = 404, 409
_DISCOVERY, _SERVICE_NAME = "discovery.k8s.io/v1", "kubernetes.io/service-name"

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
        self._discovering = threading.Lock()
        self._check = check
        self._deadline_seconds = deadline_seconds
        self._changed = time.monotonic()
        self.stopping = threading.Event()

    # --- reading and writing ----------------------------------------------------------------------------------

    def apply(self, body: Object, label: str, manager: str = _FIELD_MANAGER) -> Object:
        """Apply an object by server-side apply; a refusal names the resource, the field and the server's reason.

        `manager` is who then owns the fields, as the API server notes it.
        """
        kind = self._kind(body, label)
        try:
            return cast(
                "Object",
                kind.server_side_apply(
                    body=body,
                    name=body["metadata"]["name"],
                    namespace=body["metadata"].get("namespace"),
                    field_manager=manager,
                ).to_dict(),
            )
        except ApiException as error:
            raise RehearsalError(f"{label}: {_refusal(error)}") from None

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, or None if there is none of that name."""
        try:
            found = self._resource(api_version=api_version, kind=kind).get(name=name, namespace=namespace)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return cast("Object", found.to_dict())

    def list(self, api_version: str, kind: str, namespace: str | None = None, **options: Any) -> list[Object]:
        """Return all objects of a kind."""
        found = self._resource(api_version=api_version, kind=kind).get(namespace=namespace, **options)
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
            self._resource(api_version=api_version, kind=kind).delete(
                name=name, namespace=namespace, body={"propagationPolicy": "Foreground"}
            )
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise RehearsalError(f"{label}: {_refusal(error)}") from None
        self.wait(lambda: self.get(api_version, kind, name, namespace) is None, f"{label}: is still there")

    def ask_to_end(self, pod: str, namespace: str) -> None:
        """Ask for a pod's deletion and do not wait: it ends as its containers do."""
        self._resource(api_version="v1", kind="Pod").delete(name=pod, namespace=namespace)
        self.touch()

    def remove(self, api_version: str, kind: str, name: str, namespace: str, uid: str) -> None:
        """Take an object out at once, as a kubelet does with a pod whose containers have ended; another of its name stays."""
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        try:
            self._resource(api_version=api_version, kind=kind).delete(name=name, namespace=namespace, body=body)
        except ApiException as error:
            if error.status not in {_NOT_FOUND, _CONFLICT}:
                raise
        self.touch()

    @contextmanager
    def unless_stopped(self) -> Generator[None]:
        """Let a request fail in silence if its object is gone, or once the cluster is being stopped and its server with it."""
        try:
            yield
        except (ApiException, HTTPError) as error:
            gone = isinstance(error, ApiException) and error.status == _NOT_FOUND
            if not gone and not self.stopping.is_set():
                raise

    def touch(self) -> None:
        """Note that the cluster has changed, so that the scheduler gets its time again."""
        self._changed = time.monotonic()

    def everything(self) -> set[str]:
        """Return every object that a client can list, as `kind namespace/name`, except those that come and go by themselves."""
        found: set[str] = set()
        for kinds in self._dynamic.resources.search():
            if "list" not in (kinds.verbs or []) or kinds.kind in _TRANSIENT or kinds.kind.endswith("List"):
                continue
            for item in self._listed(kinds.group_version, kinds.kind):
                metadata = item["metadata"]
                found.add(f"{kinds.kind} {metadata.get('namespace', '')}/{metadata['name']}".replace(" /", " "))
        return found

    def _listed(self, api_version: str, kind: str) -> list[Object]:
        """Return all objects of a kind; none of one whose definition is gone, which is still listed for a moment."""
        try:
            return self.list(api_version, kind)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return []
            raise

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

    def settled(self, seconds: float) -> bool:
        """Whether nothing has changed for so long (see `touch`)."""
        return time.monotonic() - self._changed > seconds

    def nodes(self) -> list[Object]:
        """Return all nodes."""
        return self.list("v1", "Node")

    def endpoint_slices(self, namespace: str, service: str) -> list[Object]:
        """Return the EndpointSlices of a Service."""
        return self.list(_DISCOVERY, "EndpointSlice", namespace, label_selector=f"{_SERVICE_NAME}={service}")

    def watch_endpoints(self, namespace: str, service: str) -> Iterator[None]:
        """Yield whenever an EndpointSlice of a Service may have changed, until the cluster or the rehearsal ends."""
        slices = self._resource(api_version=_DISCOVERY, kind="EndpointSlice")
        selected = {"namespace": namespace, "label_selector": f"{_SERVICE_NAME}={service}"}
        return (None for _ in self._watch(slices, **selected))

    def watch_pods(self) -> Iterator[Object]:
        """Yield every pod that appears, changes or is gone, until the cluster or the rehearsal ends.

        One that is gone has a deletion timestamp, also if it was taken out without one.
        """
        pods = self._resource(api_version="v1", kind="Pod")
        for event, pod in self._watch(pods):
            if event == "DELETED":
                pod["metadata"].setdefault("deletionTimestamp", pod["metadata"]["creationTimestamp"])
            yield pod

    def _watch(self, kind: Any, **selected: str) -> Iterator[tuple[str, Object]]:
        """Yield the type of every event and its object; begins anew whenever the server ends the watch."""
        while not self.stopping.is_set():
            try:
                for event in kind.watch(timeout=60, **selected):
                    if self.stopping.is_set():
                        return
                    if event["type"] in {"ADDED", "MODIFIED", "DELETED"}:
                        yield event["type"], cast("Object", event["object"].to_dict())
            except (ApiException, HTTPError):
                if self.stopping.wait(_POLL_SECONDS):
                    return

    def close(self) -> None:
        """End every wait and close the connections."""
        self.stopping.set()
        self._api.close()

    def look_for_kinds(self) -> None:
        """Ask the API server anew which kinds it serves: a definition has come or gone."""
        with self._discovering:
            self._dynamic.resources.invalidate_cache()

    def _resource(self, api_version: str, kind: str) -> Any:
        """Return a kind that the API server serves; one that is new there it is asked for anew, by one thread at a time."""
        with self._discovering:
            return self._dynamic.resources.get(api_version=api_version, kind=kind)

    def _kind(self, body: Object, label: str) -> Any:
        try:
            return self._resource(api_version=body["apiVersion"], kind=body["kind"])
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
