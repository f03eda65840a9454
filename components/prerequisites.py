"""What must be in a cluster before workloads: whatever hands out its devices and keeps groups of pods."""

from __future__ import annotations

import pulumi

from components.device_plugin import DevicePlugin, efa_plugin, nvidia_plugin
from components.leader_worker_sets import LeaderWorkerSets
from serving.plan import Plan


def prerequisites(plan: Plan, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Install what the plan says is missing; workloads wait for it."""
    made: list[pulumi.Resource] = []
    if plan.installs_device_plugin:
        made.append(DevicePlugin("device-plugin", nvidia_plugin(), opts))
    if plan.efa_plugin_image is not None:
        made.append(DevicePlugin("efa-plugin", efa_plugin(plan.efa_plugin_image), opts))
    if plan.installs_leader_worker_set:
        made.append(LeaderWorkerSets("leader-worker-sets", opts))
    return made
