"""`python3 -m weights.manifest`: write what a mirror must say of its files, from a revision that is complete on this machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .cache import Model, is_marked


def manifest(model: Model) -> list[dict[str, object]]:
    """Return path, size and hash of every file; a file's hash is the name of the blob it links to."""
    names: dict[str, int] = json.loads(model.mark.read_text(encoding="utf-8"))
    return [
        {"path": path, "size": size, "hash": (model.snapshot / path).readlink().name}
        for path, size in sorted(names.items())
    ]


def main() -> int:
    """Write the manifest of MODEL at REVISION in HF_HUB_CACHE to standard output."""
    model = Model(os.environ["MODEL"], os.environ["REVISION"], Path(os.environ["HF_HUB_CACHE"]))
    if not is_marked(model):
        sys.stderr.write(f"{model.name} is not complete in {model.cache}; fetch it first\n")
        return 1
    sys.stdout.write(json.dumps(manifest(model), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
