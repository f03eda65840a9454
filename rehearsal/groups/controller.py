"""The real LeaderWorkerSet controller, beside the control plane: its program, its kind and its webhooks, without its chart.

As in a cluster the API server asks it about every LeaderWorkerSet and every pod of one, and Kubernetes' own StatefulSet
controller makes the pods. It runs outside, on loopback, as an administrator; metrics, probes and leader election are off.
"""

from __future__ import annotations

import base64
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rehearsal.cluster import Cluster
from rehearsal.control_plane.access import write_private
from rehearsal.control_plane.errors import ControlPlaneError, describe_status, last_lines
from rehearsal.groups.names import API_VERSION, KIND, SET_NAME
from rehearsal.groups.program import VERSION, build_controller
from rehearsal.kubelet.sandbox import LOOPBACK, free_port
from rehearsal.resource import RehearsalError

if TYPE_CHECKING:
    from rehearsal.control_plane import ControlPlane

_DEFINITIONS = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
_NUMBERS = itertools.count()  # no name of a program beside a control plane may be used twice

Object = dict[str, Any]


class GroupController:
    """Runs the LeaderWorkerSet controller from `install` to `uninstall`."""

    def __init__(self, cluster: Cluster, plane: ControlPlane, tell: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._plane = plane
        self._tell = tell
        self._name = ""
        self._log = Path()
        self._made: list[Object] = []

    @property
    def installed(self) -> bool:
        """Whether it has run since the rehearsal began."""
        return bool(self._name)

    def check(self) -> None:
        """Raise a `ControlPlaneError` if the program has ended while it should run."""
        status = self._plane.exit_status(self._name) if self._made else None
        if status is not None:
            raise ControlPlaneError(f"the LeaderWorkerSet controller {describe_status(status)}{last_lines(self._log)}")

    def install(self, label: str, version: str) -> None:
        """Let the API server know the kind, start the controller and let the API server ask it."""
        if version != VERSION:
            raise RehearsalError(
                f"{label}: version: {version} is not rehearsed, the controller that can be run here is {VERSION}"
            )
        program = build_controller(lambda line: self._tell("setup", line))
        definition = program.definition()
        if self._cluster.get(*_DEFINITIONS, definition["metadata"]["name"]):
            raise RehearsalError(f"{label}: the cluster has a LeaderWorkerSet controller already")
        # Not applied: with the owner of each of its fields noted, the definition would be larger than etcd takes.
        self._create(definition)
        self._cluster.wait(self._is_served, f"{label}: the API server does not serve {API_VERSION} {KIND}")
        self._cluster.look_for_kinds()
        port = free_port()
        self._start(program.path, port)
        for configuration in program.webhooks():
            self._create(self._reached_here(configuration, port))
        self._cluster.wait(self._is_asked, f"{label}: the API server does not reach the controller's webhooks")

    def uninstall(self, label: str) -> None:
        """Take away what `install` has made, the kind with all objects of it, and end the program."""
        made, self._made = self._made, []
        for body in reversed(made):
            self._cluster.delete(body["apiVersion"], body["kind"], body["metadata"]["name"], None, label)
        self._cluster.look_for_kinds()
        if made:
            self._plane.signal(self._name, signal.SIGTERM)
            self._cluster.wait(
                lambda: self._plane.exit_status(self._name) is not None, f"{label}: the controller does not end"
            )

    def _create(self, body: Object) -> None:
        self._cluster.create(body)
        self._made.append(body)

    def _start(self, program: Path, port: int) -> None:
        name = f"lws.{next(_NUMBERS)}"
        folder = self._plane.directory / name
        certificates = folder / "certificates"
        certificates.mkdir(parents=True)
        certificate, key = self._plane.serving_certificate
        (certificates / "tls.crt").symlink_to(certificate)
        (certificates / "tls.key").symlink_to(key)
        kubeconfig, configuration = folder / "kubeconfig", folder / "configuration.yaml"
        write_private(kubeconfig, self._plane.kubeconfig)
        settings = {
            "apiVersion": "config.lws.x-k8s.io/v1alpha1",
            "kind": "Configuration",
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "webhook": {"host": LOOPBACK, "port": port, "certDir": str(certificates)},
            "metrics": {"bindAddress": "0"},
            "health": {"healthProbeBindAddress": "0"},
        }
        configuration.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._log = folder / "log"
        self._plane.run_beside(
            name,
            [str(program), f"--config={configuration}", f"--kubeconfig={kubeconfig}"],
            log=self._log,
            cwd=folder,
            env={"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.defpath},
        )
        self._name = name

    def _reached_here(self, configuration: Object, port: int) -> Object:
        """Return a webhook configuration with addresses of loopback in place of a Service's paths."""
        authority = base64.b64encode(self._plane.certificate_authority).decode()
        webhooks = [
            {
                **webhook,
                "clientConfig": {
                    "url": f"https://{LOOPBACK}:{port}{webhook['clientConfig']['service']['path']}",
                    "caBundle": authority,
                },
            }
            for webhook in configuration["webhooks"]
        ]
        return {**configuration, "webhooks": webhooks}

    def _is_served(self) -> bool:
        name = self._made[0]["metadata"]["name"]
        conditions = (self._cluster.get(*_DEFINITIONS, name) or {}).get("status", {}).get("conditions") or []
        return any(row["type"] == "Established" and row["status"] == "True" for row in conditions)

    def _is_asked(self) -> bool:
        """Whether the API server asks the controller: it refuses a pod that says it is a group's and not how large that is."""
        metadata = {"name": "tried-out", "namespace": "default", "labels": {SET_NAME: "none"}}
        container = {"name": "none", "image": "none"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
        return "size annotation is unexpectedly missing" in (self._cluster.refusal(pod) or "")
