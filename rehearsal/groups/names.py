"""What the LeaderWorkerSet controller calls things: its kind, and the labels that it gives to the pods of a set."""

from __future__ import annotations

from typing import Final

API_VERSION: Final = "leaderworkerset.x-k8s.io/v1"
KIND: Final = "LeaderWorkerSet"

_DOMAIN: Final = "leaderworkerset.sigs.k8s.io"
SET_NAME: Final = f"{_DOMAIN}/name"
GROUP_INDEX: Final = f"{_DOMAIN}/group-index"
GROUP_KEY: Final = f"{_DOMAIN}/group-key"
WORKER_INDEX: Final = f"{_DOMAIN}/worker-index"
REVISION: Final = f"{_DOMAIN}/template-revision-hash"
