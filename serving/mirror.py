"""The shell script that copies a workload's weights into its mirror in S3."""

from __future__ import annotations

from shlex import quote

from serving.plan import WorkloadPlan
from serving.spelling import InputError

# Relative to the project's folder. The same program that fetches in pods, so that what is copied has been verified.
_PROGRAMS = "components/pod"


def script(workload: WorkloadPlan, cache: str) -> str:
    """Return the script: fetch into a local cache folder, copy with the AWS CLI, and the manifest last.

    Each step goes on where it was interrupted, and until the manifest is there no pod takes the copy for one. Raises `InputError`
    if the stack names no mirror.
    """
    if workload.weights_mirror is None:
        raise InputError(
            f"workloads.{workload.name}.weightsMirror: missing; set it to the S3 folder to copy to, such as s3://my-models/glm"
        )
    repository = workload.checkpoint.repository
    target = f"{workload.weights_mirror.rstrip('/')}/{repository}/{workload.revision}"
    folder = f"models--{repository.replace('/', '--')}/snapshots/{workload.revision}"
    return "\n".join(
        [
            "set -euo pipefail",
            f"export MODEL={quote(repository)} REVISION={quote(workload.revision)} HF_HUB_CACHE={quote(cache)}",
            f"(cd {_PROGRAMS} && python3 -m weights)",
            # Links are followed: the cache's files are links to their blobs.
            f'aws s3 sync --follow-symlinks --no-progress "$HF_HUB_CACHE"/{quote(folder)} {quote(target)}',
            f"(cd {_PROGRAMS} && python3 -m weights.manifest) | aws s3 cp --no-progress - {quote(target + '/manifest.json')}",
            "",
        ]
    )
