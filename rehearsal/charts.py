"""Helm charts of a stack. A rehearsal fetches none: it knows what each of them is for, and says what it does instead."""

from __future__ import annotations

from rehearsal.resource import Resource

LEADER_WORKER_SET_CHART = "oci://registry.k8s.io/lws/charts/lws"

_CHART = "kubernetes:helm.sh/v3:Release"


def is_chart(resource: Resource) -> bool:
    """Whether a resource is an installed chart; its objects are in the chart and not in the program."""
    return resource.type == _CHART


def chart_name(resource: Resource) -> str:
    """Return a chart with its version, `oci://registry.k8s.io/lws/charts/lws 0.7.0`."""
    return f"{resource.inputs['chart']} {resource.inputs['version']}"
