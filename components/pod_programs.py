"""The programs that pods run beside the engine, as one immutable ConfigMap whose name is its content's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pulumi_kubernetes.core.v1 import KeyToPathArgsDict

MOUNT = "/opt/glm-on-gpus"
"""Where a pod finds them; also the folder they start in, so that `python3 -m NAME` finds a package."""

_FOLDER = Path(__file__).parent / "pod"
_GATE = Path(__file__).parents[1] / "gate"
_HASH_DIGITS = 10


@dataclass(frozen=True)
class PodPrograms:
    """Files by their path below the mount. A key of a ConfigMap has no slash, so `items` says which path it stands for."""

    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """A short hash of the content: other programs are another ConfigMap, and pods that run keep theirs."""
        return content_digest(self.files)

    @property
    def data(self) -> dict[str, str]:
        """The ConfigMap's data."""
        return {_key(path): text for path, text in self.files.items()}

    @property
    def items(self) -> list[KeyToPathArgsDict]:
        """Where each of them is mounted."""
        return [{"key": _key(path), "path": path} for path in self.files]


def pod_programs() -> PodPrograms:
    """Read every program of `components/pod`, and the gate."""
    paths = sorted(path for path in _FOLDER.rglob("*.py") if path.parent != _FOLDER or path.name != "__init__.py")
    files = {str(path.relative_to(_FOLDER)): path for path in paths}
    files |= {f"gate/{path.name}": path for path in sorted(_GATE.glob("*.py"))}
    return PodPrograms({name: path.read_text(encoding="utf-8") for name, path in files.items()})


def content_digest(data: Mapping[str, str]) -> str:
    """Return a short hash of a ConfigMap's content, for its name."""
    return short_digest(json.dumps(dict(data), sort_keys=True))


def short_digest(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def _key(path: str) -> str:
    return path.replace("/", ".")
