"""Where a rehearsed stack comes to exist: AWS in the stand-in, node groups as simulated nodes, Kubernetes for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from rehearsal.aws import AwsRefusal, AwsStandIn
from rehearsal.changes import changed, moves, replaces
from rehearsal.charts import LEADER_WORKER_SET_CHART, chart_name, is_chart
from rehearsal.cluster import Cluster
from rehearsal.groups.controller import GroupController
from rehearsal.nodes import MachineGroup, SimulatedNodes
from rehearsal.placement import pod_template
from rehearsal.resource import Created, NotReadyError, RehearsalError, Resource, Updated
from rehearsal.rollout import wait_until_ready
from serving.rules import image_problem

_NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
_KUBERNETES = "kubernetes:"
_PATCH = "Patch"
_PROVIDER = "pulumi:providers:"

Object = dict[str, Any]


@dataclass
class RehearsedWorld:
    """AWS, nodes and a cluster. `tell` gets a topic and a line for what a watcher wants to know."""

    aws: AwsStandIn
    cluster: Cluster
    nodes: SimulatedNodes
    groups: GroupController
    region: str
    tell: Callable[[str, str], None]
    _joined: int = field(default=0, init=False)

    def create(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        """Validate or create one resource; raise `RehearsalError` if somebody refuses it."""
        if resource.type.startswith("aws:"):
            return self._create_aws(resource, preview=preview)
        if is_chart(resource):
            return self._install(resource, preview=preview)
        if is_patch(resource):
            return self._patch(resource, preview=preview)
        if resource.type.startswith(_KUBERNETES):
            return self._create_object(resource, preview=preview)
        if resource.type.startswith(_PROVIDER):
            return f"{resource.name}-id", {}
        raise RehearsalError(f"{resource.label}: a rehearsal knows aws, kubernetes and providers only")

    def update(self, created: Created, resource: Resource, *, preview: bool) -> Updated:
        """Bring an object to new inputs as Pulumi's Kubernetes provider does: in place, or anew where a field demands it."""
        if is_chart(resource) or not resource.type.startswith(_KUBERNETES):
            return self._scale(created, resource, preview=preview)
        if is_patch(resource):
            return Updated(*self._patch(resource, preview=preview))
        old, new = object_of(created.resource), object_of(resource)
        if moves(old, new):
            return Updated(*self._create_object(resource, preview=preview), replaced=created)
        if preview:
            _refuse_unpinned(new, resource.label)
            return Updated(created.id, dict(resource.inputs))
        if replaces(new["kind"], old, new):
            self.delete(created)
            return Updated(*self._create_object(resource, preview=False))
        return Updated(*self._apply(new, resource.label))

    def delete(self, created: Created) -> None:
        """Delete one resource and wait until it is gone."""
        resource = created.resource
        if resource.type == _NODE_GROUP:
            self.nodes.leave(_group_name(created))
        if resource.type.startswith("aws:"):
            try:
                self.aws.delete(resource.type, created.id)
            except AwsRefusal as error:
                raise RehearsalError(str(error)) from None
        elif is_chart(resource):
            self.groups.uninstall(resource.label)
        elif is_patch(resource):
            self._let_go(resource)
        elif resource.type.startswith(_KUBERNETES):
            body = object_of(resource)
            metadata = body["metadata"]
            self.cluster.delete(
                body["apiVersion"], body["kind"], metadata["name"], metadata.get("namespace"), resource.label
            )

    def _create_aws(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        try:
            resource_id, outputs = self.aws.create(resource.type, resource.name, resource.inputs, preview=preview)
        except AwsRefusal as error:
            raise RehearsalError(str(error)) from None
        if resource.type == _NODE_GROUP and not preview:
            self._join(str(outputs["nodeGroupName"]))
        if resource.type == "aws:eks/cluster:Cluster" and not preview:
            self.tell("aws", f"EKS cluster {outputs['name']}")
        return resource_id, outputs

    def _scale(self, created: Created, resource: Resource, *, preview: bool) -> Updated:
        """Change how many machines a node group has."""
        fields = list(changed(created.resource.inputs, resource.inputs))
        if resource.type != _NODE_GROUP or not all(field.startswith("scalingConfig.") for field in fields):
            raise RehearsalError(
                f"{resource.label}: {', '.join(fields)}: not rehearsed: an upgrade here changes Kubernetes objects and the size "
                "of node groups only"
            )
        try:
            outputs = self.aws.update(resource.type, created.id, resource.inputs, preview=preview)
        except AwsRefusal as error:
            raise RehearsalError(str(error)) from None
        if not preview:
            self._join(_group_name(created))
        return Updated(created.id, outputs)

    def _install(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        """Run the controller of the one chart that a stack has."""
        if resource.inputs["chart"] != LEADER_WORKER_SET_CHART:
            raise RehearsalError(f"{resource.label}: chart: a rehearsal knows {LEADER_WORKER_SET_CHART} only")
        for problem in _unpinned_in_values(resource.inputs.get("values") or {}):
            raise RehearsalError(f"{resource.label}: values.{problem}")
        if preview:
            return None, dict(resource.inputs)
        self.groups.install(resource.label, f"v{resource.inputs['version']}")
        self.tell("groups", f"the controller of {chart_name(resource)} runs; the chart itself is not installed")
        return f"{resource.name}-id", dict(resource.inputs)

    def _join(self, name: str) -> None:
        group = next(group for group in self.aws.node_groups if group.name == name)
        self.nodes.scale(
            MachineGroup(
                name=group.name,
                instance_type=group.instance_type,
                count=group.desired_size,
                labels=group.labels,
                taints=tuple(group.taints),
                zone_ids=tuple(group.availability_zone_ids),
                region=self.region,
                efa_interfaces=group.efa_interfaces,
            )
        )

    def _create_object(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        body = object_of(resource)
        if preview:
            _refuse_unpinned(body, resource.label)
            return None, dict(resource.inputs)
        metadata = body["metadata"]
        # From 4.29 on the provider does not adopt what is there already.
        if self._existing(body):
            raise RehearsalError(f"{resource.label}: metadata.name: {metadata['name']} exists already")
        return self._apply(body, resource.label)

    def _patch(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        """Take over some fields of an object that somebody else makes, and wait for it; a preview leaves it alone."""
        if preview:
            return None, dict(resource.inputs)
        body = object_of(resource)
        metadata = body["metadata"]
        if self._existing(body) is None:
            raise RehearsalError(
                f"{resource.label}: metadata.name: there is no {body['kind']} {metadata['name']} to patch"
            )
        return self._apply(body, resource.label, resource.name)

    def _let_go(self, resource: Resource) -> None:
        """Give the fields of a patch up again, as Pulumi does instead of deleting the object."""
        body = object_of(resource)
        metadata = {key: body["metadata"][key] for key in ("name", "namespace") if key in body["metadata"]}
        if self._existing(body) is not None:
            self.cluster.apply({**body, "metadata": metadata}, resource.label, resource.name)

    def _existing(self, body: Object) -> Object | None:
        metadata = body["metadata"]
        return self.cluster.get(body["apiVersion"], body["kind"], metadata["name"], metadata.get("namespace"))

    def _apply(self, body: Object, label: str, manager: str | None = None) -> tuple[str, dict[str, Any]]:
        """Apply an object and wait for it as Pulumi does."""
        _refuse_unpinned(body, label)
        applied = self.cluster.apply(body, label, manager) if manager else self.cluster.apply(body, label)
        metadata = applied["metadata"]
        object_id = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        if self._has_no_machine_yet(body):
            self.tell("kubernetes", f"DaemonSet {metadata['name']} waits for machines: its node groups have none")
            return object_id, applied
        try:
            wait_until_ready(self.cluster, body, label)
        except RehearsalError as error:
            raise NotReadyError(str(error), object_id, applied) from None
        if body["kind"] in {"Deployment", "DaemonSet"} or manager:
            self.tell("kubernetes", _outcome(body))
        return object_id, applied

    def _has_no_machine_yet(self, body: Object) -> bool:
        """Whether a DaemonSet is for machines that node groups have, and whose number is 0: for Kubernetes it is complete."""
        if body["kind"] != "DaemonSet":
            return False
        selected = (pod_template(body)["spec"].get("nodeSelector") or {}).items()
        groups = [group for group in self.aws.node_groups if selected <= group.labels.items()]
        return bool(groups) and not any(group.desired_size for group in groups)


def _outcome(body: Object) -> str:
    what = f"{body['kind']} {body['metadata']['name']}"
    replicas = body.get("spec", {}).get("replicas")
    return f"{what} has no replica, as it says" if replicas == 0 else f"{what} is ready"


def _refuse_unpinned(body: Object, label: str) -> None:
    for problem in unpinned_images(body):
        raise RehearsalError(f"{label}: {problem}")


def _group_name(created: Created) -> str:
    return str(created.outputs["nodeGroupName"])


def is_patch(resource: Resource) -> bool:
    """Whether a resource is some fields of an object that somebody else makes."""
    return resource.type.startswith(_KUBERNETES) and resource.type.endswith(_PATCH)


def object_of(resource: Resource) -> Object:
    """Return the Kubernetes object of a resource: its inputs, with whole numbers as integers."""
    body = cast("Object", _whole(dict(resource.inputs)))
    group_version, _, kind = resource.type.removeprefix(_KUBERNETES).rpartition(":")
    body.setdefault("apiVersion", group_version.removeprefix("core/"))
    body.setdefault("kind", kind.removesuffix(_PATCH))
    if not (body.get("metadata") or {}).get("name"):
        raise RehearsalError(f"{resource.label}: metadata.name: missing; a rehearsal does not make up names")
    return body


def _whole(value: Any) -> Any:
    """Pulumi's protocol has one kind of number; the API server wants integers as integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in cast("Mapping[str, Any]", value).items() if item is not None}
    if isinstance(value, list):
        return [_whole(item) for item in cast("list[Any]", value)]
    return value


def unpinned_images(body: Object) -> Iterator[str]:
    """Yield `field: reason` for every container of an object whose image is not pinned by digest."""
    for path, pod in _pods(body):
        for group in ("initContainers", "containers", "ephemeralContainers"):
            for index, container in enumerate((pod or {}).get(group) or []):
                problem = image_problem(str(container.get("image", "")))
                if problem:
                    yield f"{path}.{group}[{index}].image: rule image-digest: {problem}"


def _pods(body: Object) -> Iterator[tuple[str, Object]]:
    """Yield the path of every pod that an object has or makes, and the pod's specification."""
    spec = body.get("spec") or {}
    if body["kind"] == "Pod":
        yield "spec", spec
    group = spec.get("leaderWorkerTemplate") or {}
    templates = {"template": spec.get("template")} | {
        f"leaderWorkerTemplate.{name}": group.get(name) for name in ("leaderTemplate", "workerTemplate")
    }
    for name, template in templates.items():
        yield f"spec.{name}.spec", (template or {}).get("spec") or {}


def _unpinned_in_values(values: Object) -> Iterator[str]:
    """Yield `field: reason` if the controller's image is not pinned by digest in a chart's values."""
    manager = (values.get("image") or {}).get("manager") or {}
    problem = image_problem(f"lws:{manager.get('tag', '')}")
    if problem:
        yield f"image.manager.tag: rule image-digest: {problem}"
