"""Make the folders of a replica on its node's NVMe array, owned by the user that serves.

Runs as root in an init container with the array at NODE_DISK. Refuses a disk that is too small to be the array: then the
array is not mounted and the weights would fill the root volume.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def prepare(disk: Path, folders: list[str], uid: int, gid: int, needed_bytes: int) -> str | None:
    """Create the folders below a disk and give them to a user; return what is wrong, or None."""
    size = os.statvfs(disk).f_frsize * os.statvfs(disk).f_blocks
    if size < needed_bytes:
        return (
            f"{disk} has {size / 1e9:,.0f} GB in all, the weights need {needed_bytes / 1e9:,.0f} GB: "
            "this is not the NVMe array; check the node's localStorage strategy (RAID0)"
        )
    for folder in folders:
        path = disk
        for part in Path(folder).parts:
            path /= part
            path.mkdir(mode=0o750, exist_ok=True)
            os.chown(path, uid, gid)
    return None


def main() -> int:
    """Read the environment, prepare the folders, say what is wrong."""
    problem = prepare(
        Path(os.environ["NODE_DISK"]),
        os.environ["FOLDERS"].split(":"),
        int(os.environ["OWNER_UID"]),
        int(os.environ["OWNER_GID"]),
        int(os.environ["NEEDED_BYTES"]),
    )
    sys.stdout.write(f"{problem or 'folders are ready'}\n")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
