"""The stack: from Pulumi's configuration to a plan, from the plan to resources."""

import pulumi

from components.admission_policies import AdmissionPolicies
from components.cluster import cluster_of
from components.prerequisites import prerequisites
from components.stack_config import load_plan
from components.vllm_workload import VllmWorkload
from serving.admission import admission
from serving.report import as_json

plan = load_plan()
cluster = cluster_of(plan)
in_cluster = pulumi.ResourceOptions(provider=cluster.provider, depends_on=cluster.node_pools)
after = [*cluster.node_pools, *prerequisites(plan, in_cluster)]
if rules := admission(plan):
    after.append(AdmissionPolicies("admission", rules, pulumi.ResourceOptions(provider=cluster.provider)))
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
