"""The LeaderWorkerSet controller: it keeps the pods of a group together, each on its own node, and restarts them as one."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as k8s

from serving import catalogue

NAMESPACE = "lws-system"

_CHART = "oci://registry.k8s.io/lws/charts/lws"


class LeaderWorkerSets(pulumi.ComponentResource):
    """The project's own chart: a controller with its CRD, webhooks and their certificates is what charts are for.

    Its version is fixed, and tags of that registry are; the controller's image is pinned by digest.
    """

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        image = catalogue.image("lws")
        version = image.version or ""
        super().__init__("glm-on-gpus:leader_worker_sets:LeaderWorkerSets", name, {"image": image.reference}, opts)
        child = pulumi.ResourceOptions(parent=self)
        namespace = k8s.core.v1.Namespace(f"{name}-namespace", metadata={"name": NAMESPACE}, opts=child)
        k8s.helm.v3.Release(
            f"{name}-release",
            name="lws",
            chart=_CHART,
            version=version.removeprefix("v"),
            namespace=namespace.metadata.name,
            # A tag may carry the digest, and then the digest is what counts; the chart has no field of its own for it.
            values={"image": {"manager": {"tag": f"{version}@{image.digest}", "pullPolicy": "IfNotPresent"}}},
            opts=child,
        )
        self.register_outputs({})
