"""Admission policies: what the API server holds against every new pod, so that `kubectl` gets around no rule."""

from __future__ import annotations

from dataclasses import dataclass

from serving.admission.matching import CONDITIONS, OPERATIONS, RESOURCES
from serving.admission.policy import AdmissionPolicy, policies
from serving.config import ExistingClusterConfig
from serving.plan import Plan

__all__ = ["CONDITIONS", "OPERATIONS", "RESOURCES", "Admission", "AdmissionPolicy", "Scope", "admission", "policies"]


@dataclass(frozen=True)
class Scope:
    """Where policies hold: `In` these namespaces, or `NotIn` these but in every other."""

    operator: str
    namespaces: tuple[str, ...]


@dataclass(frozen=True)
class Admission:
    """The policies of a stack. Their names begin with `prefix`: in one cluster other stacks may have theirs."""

    prefix: str
    policies: tuple[AdmissionPolicy, ...]
    scope: Scope


def admission(plan: Plan) -> Admission | None:
    """Return a stack's admission policies, or None if its configuration leaves them out."""
    if isinstance(plan.cluster, ExistingClusterConfig) and not plan.cluster.install_admission_policies:
        return None
    return Admission(plan.cluster_name, policies(), _scope(plan))


def _scope(plan: Plan) -> Scope:
    """Return where a stack's policies hold.

    In a cluster of its own everywhere but in kube-system, whose pods must come up whatever a policy says. An existing cluster
    may be shared: there, in the namespaces of the stack's workloads.
    """
    if isinstance(plan.cluster, ExistingClusterConfig):
        return Scope("In", tuple(sorted({row.namespace for row in plan.workloads.values()})))
    return Scope("NotIn", ("kube-system",))
