"""What must be in a cluster before workloads: whatever hands out its devices, keeps groups of pods, and judges what comes."""

from __future__ import annotations

import pulumi

from components.admission_policies import AdmissionPolicies
from components.cluster import Cluster
from components.device_plugin import DevicePlugin, efa_plugin, nvidia_plugin
from components.leader_worker_sets import LeaderWorkerSets
from serving.admission import admission
from serving.plan import Plan


def prerequisites(plan: Plan, cluster: Cluster) -> list[pulumi.Resource]:
    """Install what the plan says is missing; workloads wait for it."""
    on_machines = pulumi.ResourceOptions(provider=cluster.provider, depends_on=cluster.node_pools)
    made: list[pulumi.Resource] = []
    if rules := admission(plan):
        made.append(AdmissionPolicies("admission", rules, pulumi.ResourceOptions(provider=cluster.provider)))
    if plan.installs_device_plugin:
        made.append(DevicePlugin("device-plugin", nvidia_plugin(), on_machines))
    if plan.efa_plugin_image is not None:
        made.append(DevicePlugin("efa-plugin", efa_plugin(plan.efa_plugin_image), on_machines))
    if plan.installs_leader_worker_set:
        made.append(LeaderWorkerSets("leader-worker-sets", on_machines))
    return made
