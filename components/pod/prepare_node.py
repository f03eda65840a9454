"""Make the folders of a replica on its node's NVMe array, owned by the user that serves.

Runs as root in an init container with the array at NODE_DISK. Refuses a disk that is too small to be the array: then the
array is not mounted and the weights would fill the root volume.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def prepare(disk: Path, folders: list[str], uid: int, gid: int, needed_bytes: int) -> str | None:
    """Create the folders below a disk and give them, not those above them, to a user; return what is wrong, or None."""
    size = os.statvfs(disk).f_frsize * os.statvfs(disk).f_blocks
    if size < needed_bytes:
        return (
            f"{disk} has {size / 1e9:,.0f} GB in all, the weights need {needed_bytes / 1e9:,.0f} GB: "
            "this is not the NVMe array; check the node's localStorage strategy (RAID0)"
        )
    for folder in folders:
        # Folders on the way stay root's: without the capability to override permissions, which this container does not
        # have, root cannot make the next release's folder in one that belongs to the serving user.
        path = disk / folder
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.chown(path, uid, gid)
    return None


def main() -> int:
    """Read the environment, prepare the folders, say what is wrong."""
    try:
        problem = prepare(
            Path(os.environ["NODE_DISK"]),
            os.environ["FOLDERS"].split(":"),
            int(os.environ["OWNER_UID"]),
            int(os.environ["OWNER_GID"]),
            int(os.environ["NEEDED_BYTES"]),
        )
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}; check the node's NVMe array"
    sys.stdout.write(f"{problem or 'folders are ready'}\n")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
