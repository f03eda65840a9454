"""A cluster that exists already, reached through a context of a kubeconfig file."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as k8s

from components.kubeconfig import chosen_context
from serving.config import ExistingClusterConfig


class ExistingCluster(pulumi.ComponentResource):
    """A provider for a cluster that the stack does not own. `kubeconfig` holds the chosen context and no other.

    Raises `pulumi.RunError` if the file or the context is missing.
    """

    provider: k8s.Provider
    kubeconfig: pulumi.Output[str]

    def __init__(self, name: str, config: ExistingClusterConfig, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {"context": config.context, "kubeconfigPath": config.kubeconfig}
        super().__init__("glm-on-gpus:existing_cluster:ExistingCluster", name, props, opts)
        chosen = chosen_context(config.kubeconfig, config.context)
        self.kubeconfig = pulumi.Output.secret(chosen.kubeconfig)
        self.provider = k8s.Provider(
            f"{name}-provider",
            kubeconfig=self.kubeconfig,
            # What the cluster is to Pulumi. Without it a renewed certificate or another user in the file would plan a new
            # provider, and with it a replacement of every object in the cluster.
            cluster_identifier=chosen.server,
            enable_server_side_apply=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"kubeconfig": self.kubeconfig, "server": chosen.server})
