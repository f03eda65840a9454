"""A world that only writes down the Kubernetes objects, in the order in which they would be created."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from rehearsal.aws import AwsRefusal, AwsStandIn
from rehearsal.charts import chart_name, is_chart
from rehearsal.resource import Created, RehearsalError, Resource, World
from rehearsal.world import Object, is_patch, object_of


class RenderedWorld(World):
    """Collects `objects`, and the names of `charts` and of `patched` objects, which somebody else makes.

    AWS answers through the stand-in, so that values from it are there.
    """

    def __init__(self, region: str) -> None:
        self.objects: list[Object] = []
        self.charts: list[str] = []
        self.patched: list[str] = []
        self._aws = AwsStandIn(region)
        self._lock = threading.Lock()

    def create(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        """Write an object down, or let AWS answer."""
        if resource.type.startswith("aws:"):
            try:
                return self._aws.create(resource.type, resource.name, resource.inputs, preview=preview)
            except AwsRefusal as error:
                raise RehearsalError(str(error)) from None
        if is_chart(resource):
            with self._lock:
                self.charts.append(chart_name(resource))
            return f"{resource.name}-id", dict(resource.inputs)
        if resource.type.startswith("kubernetes:"):
            body = object_of(resource)
            with self._lock:
                if is_patch(resource):
                    self.patched.append(f"{body['kind']} {body['metadata']['name']}")
                else:
                    self.objects.append(body)
            return body["metadata"]["name"], dict(resource.inputs)
        return f"{resource.name}-id", {}

    def delete(self, created: Created) -> None:
        """Nothing exists, so there is nothing to delete."""


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it stands: programs and the API server's expressions are there to be read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def as_yaml(objects: Iterable[Mapping[str, Any]]) -> str:
    """Return objects as YAML documents, fields sorted: Pulumi hands them over in another order every time."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=True, allow_unicode=True)
