"""Where built programs are kept: one folder for each user, shared by all clones of this repository."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder of this project.

    By the XDG base directory rules, which have a relative XDG_CACHE_HOME count as unset.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return root / "glm-on-gpus"
