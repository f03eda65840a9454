"""Who may talk to the API server, and the files that say so."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import yaml

USERS = {
    "admin": ("rehearsal-admin", "system:masters"),
    "kwok": ("kwok", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
}
"""Each user of the control plane: the name the API server knows and the group, empty where RBAC binds the name."""


def new_tokens() -> dict[str, str]:
    """A fresh bearer token for each of `USERS`."""
    return {user: secrets.token_urlsafe(32) for user in USERS}


def write_token_file(path: Path, tokens: dict[str, str]) -> None:
    """Write the API server's static token file: token, user name, user id, group."""
    lines = [f'{tokens[user]},{name},{name},"{group}"' for user, (name, group) in USERS.items()]
    write_private(path, "".join(f"{line}\n" for line in lines))


def kubeconfig(server: str, authority: bytes, user: str, token: str) -> str:
    """A kubeconfig (YAML) with one cluster, one user and one context, all named `rehearsal` or after the user."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "rehearsal", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "rehearsal", "context": {"cluster": "rehearsal", "user": user}}],
            "current-context": "rehearsal",
        },
        sort_keys=False,
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only the user may read, from its first byte on."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text)
