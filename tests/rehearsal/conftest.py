from tests.fixtures.control_plane import control_plane, programs

__all__ = ["control_plane", "programs"]
