"""The command line of each program of the control plane."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rehearsal.control_plane.build import Programs

LOOPBACK = "127.0.0.1"

MANAGED_NODES = "kwok.x-k8s.io/node=fake"
"""Nodes with this annotation are KWOK's: it plays their kubelet, and that of the pods bound to them."""

POD_ADDRESSES = "10.244.0.0/16"
SERVICE_ADDRESSES = "10.96.0.0/16"

STAGES = Path(__file__).with_name("stages")

_NOWHERE = f"http://{LOOPBACK}:1"
"""For addresses that etcd wants to advertise although nobody will ever call them."""


@dataclass(frozen=True)
class Layout:
    """Where one running control plane keeps its files and listens."""

    directory: Path
    apiserver_port: int
    controller_manager_port: int
    scheduler_port: int

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{LOOPBACK}:{self.apiserver_port}"

    @property
    def etcd_socket(self) -> Path:
        """etcd's, which has no access control here: a socket in a folder only the user may enter needs none."""
        return self.directory / "etcd.sock"

    @property
    def certificate(self) -> Path:
        """The API server's certificate, followed by that of the authority that it made for it."""
        return self.directory / "certificates" / "apiserver.crt"

    @property
    def key(self) -> Path:
        """The key of that certificate; service account tokens are signed with it as well."""
        return self.directory / "certificates" / "apiserver.key"

    @property
    def tokens(self) -> Path:
        """The API server's static token file."""
        return self.directory / "tokens.csv"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig that one of the programs uses."""
        return self.directory / f"{user}.kubeconfig"

    def log(self, name: str) -> Path:
        """What a program writes."""
        return self.directory / f"{name}.log"


def etcd(programs: Programs, layout: Layout) -> list[str]:
    """One member, on unix sockets. Nothing is worth a disk flush: the data goes with the directory."""
    return [
        str(programs.path("etcd")),
        "--name=rehearsal",
        f"--data-dir={layout.directory / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls=unix://{layout.etcd_socket}",
        f"--listen-peer-urls=unix://{layout.directory / 'etcd-peer.sock'}",
        f"--advertise-client-urls={_NOWHERE}",
        f"--initial-advertise-peer-urls={_NOWHERE}",
        f"--initial-cluster=rehearsal={_NOWHERE}",
    ]


def kube_apiserver(programs: Programs, layout: Layout) -> list[str]:
    """As a managed cluster runs it: RBAC, default admission (with Pod Security and admission policies)."""
    return [
        str(programs.path("kube-apiserver")),
        f"--etcd-servers=unix://{layout.etcd_socket}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={layout.apiserver_port}",
        "--permit-port-sharing",
        f"--cert-dir={layout.certificate.parent}",
        f"--token-auth-file={layout.tokens}",
        "--authorization-mode=Node,RBAC",
        # Does not exist yet: the server makes it in --cert-dir before it reads it here.
        f"--service-account-signing-key-file={layout.key}",
        f"--service-account-key-file={layout.key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
        # Endpoints must not be loopback addresses, so there can be none for the Service `kubernetes`.
        "--endpoint-reconciler-type=none",
        "--allow-privileged",
        "--profiling=false",
    ]


def kube_controller_manager(programs: Programs, layout: Layout) -> list[str]:
    """Every controller that is on by default, each under its own service account as in a real cluster."""
    return [
        str(programs.path("kube-controller-manager")),
        f"--kubeconfig={layout.kubeconfig('kube-controller-manager')}",
        *_serving(layout, layout.controller_manager_port),
        f"--root-ca-file={layout.certificate}",
        f"--service-account-private-key-file={layout.key}",
        "--use-service-account-credentials",
        # It creates this folder, and by default that is one of the whole system's.
        f"--flex-volume-plugin-dir={layout.directory / 'flexvolume'}",
        # The default of 20 requests a second is meant to protect a shared API server.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def kube_scheduler(programs: Programs, layout: Layout) -> list[str]:
    """With its default profile."""
    return [
        str(programs.path("kube-scheduler")),
        f"--kubeconfig={layout.kubeconfig('kube-scheduler')}",
        *_serving(layout, layout.scheduler_port),
    ]


def kwok(programs: Programs, layout: Layout) -> list[str]:
    """The kubelets, playing the stages of the folder beside this file."""
    return [
        str(programs.path("kwok")),
        f"--kubeconfig={layout.kubeconfig('kwok')}",
        f"--manage-nodes-with-annotation-selector={MANAGED_NODES}",
        f"--cidr={POD_ADDRESSES}",
        *(f"--config={file}" for file in sorted(STAGES.glob("*.yaml"))),
    ]


def _serving(layout: Layout, port: int) -> list[str]:
    """Flags of a controller: where it answers /healthz, and that there is no second one to elect a leader with."""
    return [
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        "--permit-port-sharing",
        f"--tls-cert-file={layout.certificate}",
        f"--tls-private-key-file={layout.key}",
        "--leader-elect=false",
        "--profiling=false",
    ]
