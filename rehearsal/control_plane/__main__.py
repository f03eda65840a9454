"""`python -m rehearsal.control_plane build`: build the control plane's programs ahead of their first use."""

from __future__ import annotations

import argparse
import sys

from rehearsal.control_plane.build import build_programs
from rehearsal.control_plane.errors import ControlPlaneError


def main() -> int:
    """Exit status: 0 built or already there, 1 could not be built, 2 wrong arguments, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal.control_plane", description=__doc__)
    parser.add_argument("command", choices=["build"])
    parser.parse_args()
    try:
        programs = build_programs(lambda line: print(line, flush=True))
    except ControlPlaneError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing half built is left", file=sys.stderr)
        return 130
    print(f"control plane: {programs.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
