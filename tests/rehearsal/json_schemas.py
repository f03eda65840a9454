"""Strict JSON schemas of Kubernetes' kinds, from what a real API server publishes of itself (OpenAPI 2, /openapi/v2)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, cast

import httpx2
import yaml

from rehearsal.control_plane import ControlPlane
from rehearsal.groups.names import API_VERSION, KIND

Schema = dict[str, Any]

_REFERENCE = re.compile(r"#/definitions/(.+)")

# OpenAPI 2 has no word for one of two types: these are strings there, and numbers, too, in what the API server takes.
_TEXT_OR_NUMBER = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
}


def published(plane: ControlPlane) -> dict[str, Schema]:
    """Return the definitions that an API server publishes, by name."""
    (user,) = yaml.safe_load(plane.kubeconfig)["users"]
    headers = {"Authorization": f"Bearer {user['user']['token']}", "Accept": "application/json"}
    trusted = ssl.create_default_context(cadata=plane.certificate_authority.decode())
    answer = httpx2.get(f"{plane.server}/openapi/v2", headers=headers, verify=trusted, timeout=60.0)
    return answer.raise_for_status().json()["definitions"]


def schemas(definitions: Mapping[str, Schema], leader_worker_sets: Schema) -> dict[tuple[str, str, str], Schema]:
    """Return a schema for each group, version and kind that allows no field which it does not name.

    `leader_worker_sets` is the definition of the kind that its controller brings.
    """
    strict = {name: _TEXT_OR_NUMBER.get(name) or _closed(schema) for name, schema in definitions.items()}
    made = {
        (row["group"], row["version"], row["kind"]): _with_definitions(schema, strict)
        for schema in strict.values()
        for row in cast("list[dict[str, str]]", schema.get("x-kubernetes-group-version-kind", []))
    }
    group, _, version = API_VERSION.partition("/")
    return made | {(group, version, KIND): _with_definitions(_leader_worker_set(leader_worker_sets), strict)}


def _leader_worker_set(definition: Schema) -> Schema:
    """Return the kind's own schema; the fields of an object's metadata are not in it."""
    (schema,) = (row["schema"]["openAPIV3Schema"] for row in definition["spec"]["versions"])
    metadata = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    return _closed({**schema, "properties": {**schema["properties"], "metadata": metadata}})


def _closed(schema: Any) -> Any:
    """Return a schema in which objects have the properties they name and no others, wherever they are in it."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and "type" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def _with_definitions(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return a schema that carries all it refers to."""
    needed: dict[str, Schema] = {}
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = definitions[name]
            waiting += _references(definitions[name])
    return {**schema, "definitions": needed}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            found = _REFERENCE.fullmatch(value) if key == "$ref" and isinstance(value, str) else None
            if found:
                yield found[1]
            else:
                yield from _references(value)
