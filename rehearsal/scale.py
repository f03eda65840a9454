"""How much faster a rehearsal is than real machines."""

from __future__ import annotations

TIME_SCALE = 1 / 600
"""Seconds of a rehearsal for each second that bytes are moved: half an hour of fetching and loading becomes three seconds."""

KUBELET_SCALE = 1 / 10
"""The same for what a kubelet waits for: probes, back-off, preStop, grace periods. What they wait for here (a control plane that
forgets an endpoint, a process that ends) is as slow as on real machines, so that they must not be scaled down as far."""
