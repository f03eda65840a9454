"""A real Kubernetes control plane on loopback: built from pinned modules, started and stopped from Python."""

from rehearsal.control_plane.build import Programs, build_programs
from rehearsal.control_plane.errors import ControlPlaneError
from rehearsal.control_plane.processes import ControlPlane

__all__ = ["ControlPlane", "ControlPlaneError", "Programs", "build_programs"]
