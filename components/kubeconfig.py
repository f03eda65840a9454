"""Kubeconfigs: one made for an EKS cluster, and one context taken out of a file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pulumi
import yaml

from serving.spelling import did_you_mean, listed

# Fields that name a file, and the fields that hold what is in it. A kubeconfig that leaves its folder must carry it.
_CLUSTER_FILES = {"certificate-authority": "certificate-authority-data"}
_USER_FILES = {"client-certificate": "client-certificate-data", "client-key": "client-key-data"}

_Entry = dict[str, Any]


@dataclass(frozen=True)
class ChosenContext:
    """A kubeconfig with one context, as text, and the URL of its API server."""

    kubeconfig: str
    server: str


def eks_kubeconfig(cluster_name: str, region: str, endpoint: str, certificate_authority: str) -> str:
    """Return a kubeconfig that asks the aws CLI for a token at every use, so that it holds no credentials.

    `certificate_authority` is in base64. The aws CLI must be where Pulumi and kubectl run.
    """
    command = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": ["eks", "get-token", "--cluster-name", cluster_name, "--region", region],
    }
    return _kubeconfig(
        cluster_name,
        {"server": endpoint, "certificate-authority-data": certificate_authority},
        {"exec": command},
        {"cluster": cluster_name, "user": cluster_name},
    )


def chosen_context(path: str, context: str) -> ChosenContext:
    """Return one context of a kubeconfig file, with the certificates that it names inlined.

    Raises `pulumi.RunError` if the file, the context or something that the context refers to is missing.
    """
    file = Path(path).expanduser()
    document = _document(file, path)
    entry = _context(document, path, context)
    cluster = _inlined(_referred(document, path, context, entry, "cluster"), _CLUSTER_FILES, file.parent)
    user = _inlined(_referred(document, path, context, entry, "user"), _USER_FILES, file.parent)
    user = _anchored(user, file.parent.absolute())
    server = cluster.get("server")
    if not isinstance(server, str):
        raise pulumi.RunError(f"cluster.kubeconfig: cluster {entry['cluster']!r} in {path} names no server")
    return ChosenContext(_kubeconfig(context, cluster, user, entry), server)


def _kubeconfig(context: str, cluster: Mapping[str, Any], user: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": entry["cluster"], "cluster": dict(cluster)}],
        "users": [{"name": entry["user"], "user": dict(user)}],
        "contexts": [{"name": context, "context": dict(entry)}],
        "current-context": context,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _document(file: Path, path: str) -> _Entry:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise pulumi.RunError(
            f"cluster.kubeconfig: there is no file {path}; name the kubeconfig that holds the cluster's context"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise pulumi.RunError(f"cluster.kubeconfig: {path} cannot be read ({_reason(error)})") from None
    except yaml.YAMLError as error:
        raise pulumi.RunError(f"cluster.kubeconfig: {path} is not YAML ({_where(error)})") from None
    if not isinstance(document, dict):
        raise pulumi.RunError(f"cluster.kubeconfig: {path} is not a kubeconfig; expected a map with contexts in it")
    return cast("_Entry", document)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not text"


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}" if mark else "no line known"


def _entries(document: _Entry, section: str) -> list[_Entry]:
    rows = document.get(section)
    if not isinstance(rows, list):
        return []
    return [cast("_Entry", row) for row in cast("list[Any]", rows) if isinstance(row, dict)]


def _names(document: _Entry, section: str) -> list[str]:
    return [str(row["name"]) for row in _entries(document, section) if "name" in row]


def _named(document: _Entry, section: str, key: str, name: str) -> _Entry | None:
    """Return the content of a section's row by its name, or None if there is no such row or nothing in it."""
    contents = [row.get(key) for row in _entries(document, section) if row.get("name") == name]
    return next((cast("_Entry", content) for content in contents if isinstance(content, dict)), None)


def _context(document: _Entry, path: str, context: str) -> _Entry:
    names = _names(document, "contexts")
    if context not in names:
        has = f"it has {listed(names)}" if names else "it has none"
        raise pulumi.RunError(
            f"cluster.context: there is no context {context!r} in {path}; {has}{did_you_mean(context, names)}"
        )
    entry = _named(document, "contexts", "context", context)
    if entry is None:
        raise pulumi.RunError(f"cluster.kubeconfig: context {context!r} in {path} is empty")
    return entry


def _referred(document: _Entry, path: str, context: str, entry: _Entry, kind: str) -> _Entry:
    """Return what a context refers to: its cluster or its user."""
    name = str(entry.get(kind, ""))
    found = _named(document, f"{kind}s", kind, name)
    if found is None:
        names = _names(document, f"{kind}s")
        raise pulumi.RunError(
            f"cluster.kubeconfig: context {context!r} in {path} refers to the {kind} {name!r}, which is not there"
            f"{did_you_mean(name, names)}"
        )
    return found


def _inlined(entry: _Entry, fields: Mapping[str, str], folder: Path) -> _Entry:
    """Replace the fields that name files, relative to the kubeconfig's folder, by what the files hold."""
    inlined = dict(entry)
    for field, data in fields.items():
        if field in inlined:
            inlined[data] = _content(field, folder / str(inlined.pop(field)))
    return inlined


def _anchored(user: _Entry, folder: Path) -> _Entry:
    """Make absolute what stays a path: a token's file, which is renewed, and a plugin that is named by its path."""
    anchored = dict(user)
    if "tokenFile" in user:
        anchored["tokenFile"] = str(folder / str(user["tokenFile"]))
    plugin = cast("_Entry", user["exec"]) if isinstance(user.get("exec"), dict) else {}
    command = str(plugin.get("command", ""))
    if "/" in command:
        anchored["exec"] = {**plugin, "command": str(folder / command)}
    return anchored


def _content(field: str, file: Path) -> str:
    try:
        return base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise pulumi.RunError(
            f"cluster.kubeconfig: {field} names {file}, which cannot be read ({_reason(error)})"
        ) from None
