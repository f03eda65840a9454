"""The stack: from Pulumi's configuration to a plan, from the plan to resources."""

import pulumi

from components.cluster import cluster_of
from components.prerequisites import prerequisites
from components.stack_config import load_plan
from components.vllm_workload import VllmWorkload
from serving.capacity_block import phase_notes
from serving.report import as_json

plan = load_plan()
for note in phase_notes(plan):
    pulumi.info(note)
cluster = cluster_of(plan)
after = [*cluster.node_pools, *prerequisites(plan, cluster)]
workloads = {
    name: VllmWorkload(
        name,
        row,
        pulumi.ResourceOptions(provider=cluster.provider, depends_on=[*after, *cluster.access_to_weights(row)]),
    )
    for name, row in plan.workloads.items()
}

pulumi.export("endpoints", {name: workload.endpoint for name, workload in workloads.items()})
pulumi.export("plan", as_json(plan))
pulumi.export("hourlyUsd", plan.cost.hourly_usd)
pulumi.export("kubeconfig", pulumi.Output.secret(cluster.kubeconfig))
