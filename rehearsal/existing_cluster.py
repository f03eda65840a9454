"""The cluster of a stack that makes none: in a rehearsal its context leads to a cluster of the rehearsal's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rehearsal.control_plane.access import kubeconfig, write_private
from serving.config import PROJECT, ExistingClusterConfig
from serving.plan import Plan

_CLUSTER = f"{PROJECT}:cluster"

NOWHERE = kubeconfig("https://existing-cluster.invalid", b"", "nobody", "")
"""For a rendering, which reaches no cluster: the same on every machine, and so is what is rendered."""


@dataclass(frozen=True)
class StandInCluster:
    """Stands for every existing cluster: what a kubeconfig of one context reaches. `folder` holds the file that leads there."""

    kubeconfig: str
    folder: Path

    def settings(self, plan: Plan, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a stack's settings, with the context of its existing cluster leading here; the user's file is not read."""
        if not isinstance(plan.cluster, ExistingClusterConfig):
            return settings
        document = yaml.safe_load(self.kubeconfig)
        (context,) = document["contexts"]
        context["name"] = plan.cluster.context
        file = self.folder / "kubeconfig"
        write_private(file, yaml.safe_dump(document))
        return {**settings, _CLUSTER: {**settings[_CLUSTER], "kubeconfig": str(file)}}
