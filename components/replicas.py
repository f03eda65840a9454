"""The object that keeps a workload's replicas: a Deployment of pods, or a LeaderWorkerSet of groups of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pulumi
import pulumi_kubernetes as k8s
from pydantic.alias_generators import to_camel

from components.pod_programs import short_digest
from components.pod_spec import PodNeeds, pod_spec, worker_pod_spec
from serving.plan import WorkloadKind, WorkloadPlan

_API_VERSION = "leaderworkerset.x-k8s.io/v1"
# Without replicas there is nothing to wait for, and a LeaderWorkerSet would never say that it has as many as it should: none.
_NOT_AWAITED = {"pulumi.com/skipAwait": "true"}
_WORKER_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
_TEMPLATE = "glm-on-gpus/template"


@dataclass(frozen=True)
class ReplicasArgs:
    """What replicas are made from: their plan, namespace, labels, the labels that select them, and what their pods refer to."""

    plan: WorkloadPlan
    namespace: pulumi.Output[str]
    labels: Mapping[str, str]
    selector: Mapping[str, str]
    needs: PodNeeds


def make_replicas(name: str, args: ReplicasArgs, opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    """Create the object that the plan calls for."""
    return _MAKERS[args.plan.kind](name, args, opts)


def answering_pods(plan: WorkloadPlan, selector: Mapping[str, str]) -> Mapping[str, str]:
    """Return the labels of the pods that answer requests: of a group, its first."""
    return {**selector, **_ANSWERING[plan.kind]}


def _deployment(name: str, args: ReplicasArgs, opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    plan = args.plan
    return k8s.apps.v1.Deployment(
        f"{name}-deployment",
        metadata={
            "name": plan.name,
            "namespace": args.namespace,
            "labels": args.labels,
            "annotations": None if plan.replicas else _NOT_AWAITED,
        },
        spec={
            "replicas": plan.replicas,
            "selector": {"match_labels": args.selector},
            "strategy": {
                "type": "RollingUpdate",
                "rolling_update": {
                    "max_surge": plan.rollout.max_surge,
                    "max_unavailable": plan.rollout.max_unavailable,
                },
            },
            "progress_deadline_seconds": plan.timing.progress_deadline_seconds,
            "revision_history_limit": 3,
            "template": {"metadata": _template_metadata(args), "spec": pod_spec(plan, args.needs)},
        },
        opts=opts,
    )


def _leader_worker_set(name: str, args: ReplicasArgs, opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    plan = args.plan
    digest = pulumi.Output.json_dumps(_group_templates(args), sort_keys=True).apply(short_digest)
    # Not the workload's own name: the controller makes a headless Service of this one, for the pods to find each other.
    set_name = f"{plan.name}-group"
    made = k8s.apiextensions.CustomResource(
        f"{name}-leader-worker-set",
        api_version=_API_VERSION,
        kind="LeaderWorkerSet",
        metadata={
            "name": set_name,
            "namespace": args.namespace,
            "labels": args.labels,
            # Pulumi knows no readiness of this kind, and its status does not say of which generation it is: after an update it
            # is the old one's for a moment. So this waits only until there is a StatefulSet, and that one is waited for below.
            "annotations": _wait_for({".status.replicas": plan.replicas}) if plan.replicas else _NOT_AWAITED,
        },
        spec=_as_written(
            {
                "replicas": plan.replicas,
                # The engine starts when all its nodes are there, so that workers cannot wait for a ready leader.
                "startup_policy": "LeaderCreated",
                "rollout_strategy": {
                    "type": "RollingUpdate",
                    "rolling_update_configuration": {
                        "max_surge": plan.rollout.max_surge,
                        "max_unavailable": plan.rollout.max_unavailable,
                    },
                },
                "leader_worker_template": {
                    "size": plan.nodes_per_replica,
                    # An engine that has lost a node answers nobody, and none of its processes can be replaced.
                    "restart_policy": "RecreateGroupOnPodRestart",
                    **_group_templates(args, {_TEMPLATE: digest}),
                },
            }
        ),
        opts=opts,
    )
    if plan.replicas:
        after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[made]))
        _await_groups(name, set_name, args, digest, after)
    return made


def _group_templates(
    args: ReplicasArgs, annotations: Mapping[str, pulumi.Input[str]] | None = None
) -> dict[str, object]:
    """Return the two kinds of pods of a group: the first, which answers, and the others."""
    metadata = _template_metadata(args, annotations)
    return {
        "leader_template": {"metadata": metadata, "spec": pod_spec(args.plan, args.needs)},
        "worker_template": {"metadata": metadata, "spec": worker_pod_spec(args.plan, args.needs)},
    }


def _await_groups(
    name: str, set_name: str, args: ReplicasArgs, digest: pulumi.Output[str], opts: pulumi.ResourceOptions
) -> None:
    """Have Pulumi wait until every group is of this template and ready, through the controller's StatefulSet of first pods.

    It has the set's name, and a status that says of which generation it is. Its pods' template is that of first pods, so that the
    digest in it tells a StatefulSet that the controller has updated from one that it has not come to yet. Patching it changes
    nothing that the controller keeps: it is Pulumi's way to wait for an object that somebody else makes.
    """
    awaited = {
        f".spec.template.metadata.annotations['{_TEMPLATE}']": digest,
        # A pod that ends counts here and, while it still answers, as ready, but not as updated: where there are as many pods as
        # there are to be and all of them are updated, none ends, and these are the ready ones. After a surge others may be.
        ".status.replicas": args.plan.replicas,
        ".status.updatedReplicas": args.plan.replicas,
        ".status.readyReplicas": args.plan.replicas,
    }
    k8s.apps.v1.StatefulSetPatch(
        f"{name}-groups",
        metadata={"name": set_name, "namespace": args.namespace, "annotations": _wait_for(awaited)},
        opts=opts,
    )


def _wait_for(values: Mapping[str, pulumi.Input[object]]) -> dict[str, pulumi.Output[str]]:
    """Return the annotation that has Pulumi wait until fields of an object have values."""
    conditions = [pulumi.Output.format("jsonpath={{{0}}}={1}", path, value) for path, value in values.items()]
    return {"pulumi.com/waitFor": pulumi.Output.json_dumps(conditions)}


def _template_metadata(
    args: ReplicasArgs, annotations: Mapping[str, pulumi.Input[str]] | None = None
) -> k8s.meta.v1.ObjectMetaArgsDict:
    """Say in the cluster what the flags say to vLLM."""
    return {
        "labels": args.labels,
        "annotations": {
            "glm-on-gpus/model": args.plan.checkpoint.repository,
            "glm-on-gpus/revision": args.plan.revision,
            "kubectl.kubernetes.io/default-container": "vllm",
            **(annotations or {}),
        },
    }


def _as_written(value: Any) -> Any:
    """Return a typed object as a manifest spells it: Pulumi translates the names of fields only of kinds that it knows."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {to_camel(key) if key.isidentifier() else key: _as_written(item) for key, item in fields.items()}
    if isinstance(value, list):
        return [_as_written(item) for item in cast("list[Any]", value)]
    return value


_Maker = Callable[[str, ReplicasArgs, pulumi.ResourceOptions], pulumi.CustomResource]
_MAKERS: Mapping[WorkloadKind, _Maker] = {"Deployment": _deployment, "LeaderWorkerSet": _leader_worker_set}
_ANSWERING: Mapping[WorkloadKind, Mapping[str, str]] = {"Deployment": {}, "LeaderWorkerSet": {_WORKER_INDEX: "0"}}
