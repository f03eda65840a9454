"""A model served by vLLM behind a gate: what stands around its pods, and how they are replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as k8s

from components.pod_programs import content_digest, pod_programs
from components.pod_spec import EXPECT_FILE, PodNeeds
from components.replicas import ReplicasArgs, answering_pods, make_replicas
from serving.component import TYPE, properties
from serving.plan import RELEASE_LABEL, WorkloadPlan


class VllmWorkload(pulumi.ComponentResource):
    """Namespace, service account, programs, replicas, Service and disruption budget of one workload."""

    endpoint: pulumi.Output[str]

    def __init__(self, name: str, plan: WorkloadPlan, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, properties(plan), opts)
        child = pulumi.ResourceOptions(parent=self)
        labels = _labels(plan)
        selector = _selector(plan)
        namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata={
                "name": plan.namespace,
                # The weights live on a folder of the host, which the baseline level forbids.
                "labels": {**labels, "pod-security.kubernetes.io/enforce": "privileged"},
            },
            opts=child,
        )
        place = namespace.metadata.name
        account = k8s.core.v1.ServiceAccount(
            f"{name}-service-account",
            metadata={"name": plan.name, "namespace": place, "labels": labels},
            automount_service_account_token=False,
            opts=child,
        )
        programs = pod_programs()

        def config_map(what: str, data: Mapping[str, str], digest: str) -> k8s.core.v1.ConfigMap:
            """Immutable, and named by its content: what changes is another one, and pods that run keep theirs.

            Its resource, too, is another one. Under one name it would be a replacement: after an update that fails, Pulumi
            keeps the old object for deletion, and on the way back refuses to create what exists (pulumi-kubernetes 4.29).
            """
            return k8s.core.v1.ConfigMap(
                f"{name}-{what}-{digest}",
                metadata={"name": f"{plan.name}-{what}-{digest}", "namespace": place, "labels": labels},
                data=data,
                immutable=True,
                opts=child,
            )

        expect = {EXPECT_FILE: json.dumps(dict(plan.expectations), indent=2)}
        programs_map = config_map("programs", programs.data, programs.digest)
        expectations_map = config_map("expectations", expect, content_digest(expect))
        k8s.core.v1.Service(
            f"{name}-service",
            metadata={
                "name": plan.name,
                "namespace": place,
                "labels": labels,
                # Pulumi would give the Service ten minutes to get endpoints; the weights take longer than that, and the
                # Deployment is waited for anyway.
                "annotations": {"pulumi.com/skipAwait": "true"},
            },
            spec={
                "type": "ClusterIP",
                "selector": answering_pods(plan, selector),
                "ports": [{"name": "http", "port": plan.port, "target_port": "http", "app_protocol": "http"}],
            },
            opts=child,
        )
        budget = k8s.policy.v1.PodDisruptionBudget(
            f"{name}-disruption-budget",
            metadata={"name": plan.name, "namespace": place, "labels": labels},
            spec={
                # One at a time, also where there is one: a budget of none would block every node update.
                "max_unavailable": 1,
                "unhealthy_pod_eviction_policy": "AlwaysAllow",
                "selector": {"match_labels": selector},
            },
            opts=child,
        )
        needs = PodNeeds(
            account=account.metadata.name,
            programs=programs_map.metadata.name,
            program_files=programs.items,
            expectations=expectations_map.metadata.name,
        )
        make_replicas(
            name,
            ReplicasArgs(plan=plan, namespace=place, labels=labels, selector=selector, needs=needs),
            pulumi.ResourceOptions(
                parent=self,
                depends_on=[budget],
                custom_timeouts=pulumi.CustomTimeouts(
                    create=f"{plan.timing.await_seconds}s",
                    update=f"{plan.timing.await_seconds}s",
                    delete=f"{plan.timing.delete_seconds}s",
                ),
            ),
        )
        # From the plan, so that a preview shows it.
        endpoint = f"http://{plan.name}.{plan.namespace}.svc.cluster.local:{plan.port}/v1"
        self.endpoint = pulumi.Output.from_input(endpoint)
        self.register_outputs({"endpoint": self.endpoint})


def _selector(plan: WorkloadPlan) -> dict[str, str]:
    return {"app.kubernetes.io/name": "vllm", "app.kubernetes.io/instance": plan.name}


def _labels(plan: WorkloadPlan) -> dict[str, str]:
    return {
        **_selector(plan),
        RELEASE_LABEL: plan.engine_version,
        "app.kubernetes.io/managed-by": "pulumi",
    }
