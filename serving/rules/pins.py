"""Rules about what is pinned, what is exposed, and where files lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from posixpath import normpath

from serving.facts import IMAGE_DIGEST, MODEL_REVISION, WorkloadFacts, short_digest
from serving.rules.rule import Outcome, Parameter, Rule, passed, refused
from serving.spelling import allowed

NODE_DISK = "/mnt/k8s-disks/0"
"""The node's RAID0 array. It exists only where the array is mounted, so a pod that names it cannot land on root EBS."""

# Where engines and their kernels keep compiled code. A folder shared between images or engines has served garbage.
CACHE_VARIABLES = (
    "VLLM_CACHE_ROOT",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "FLASHINFER_WORKSPACE_BASE",
    "DG_JIT_CACHE_DIR",
    "CUDA_CACHE_PATH",
    "XDG_CACHE_HOME",
)


# A tag may stand before the digest and decides nothing; a colon before a slash is a registry's port.
_IMAGE_TAG = re.compile(r":[^/]*$")

# The kubelet looks whether such a path is there. Types that end in OrCreate make it, and without a type nobody looks.
CHECKED_TYPES = ("Directory", "File")


def image_problem(image: str) -> str | None:
    """Return why an image reference is not pinned by digest, or None. Used for every container of the stack."""
    if IMAGE_DIGEST.fullmatch(image):
        return None
    return f"image {image!r} is not pinned by digest (repository@sha256: and 64 hexadecimal digits)"


def _image_digest(facts: WorkloadFacts, repositories: Sequence[str] | None = None) -> Outcome:
    problem = image_problem(facts.image)
    if problem:
        return refused(problem)
    repository = _IMAGE_TAG.sub("", facts.image.partition("@")[0])
    if repositories is not None and repository not in repositories:
        return refused(f"image {facts.image!r} is from another repository; {allowed(repositories)}")
    return passed(f"the image is {facts.image}")


def _model_revision(facts: WorkloadFacts) -> Outcome:
    if facts.revision is not None and MODEL_REVISION.fullmatch(facts.revision):
        return passed(f"the revision is {facts.revision}")
    given = "no revision is given" if facts.revision is None else f"revision {facts.revision!r} is not a commit"
    return refused(f"{given} for {facts.model}; expected 40 hexadecimal digits")


def _dev_mode(facts: WorkloadFacts) -> Outcome:
    value = facts.variable("VLLM_SERVER_DEV_MODE")
    if value in {None, "", "0"}:
        return passed("VLLM_SERVER_DEV_MODE is off")
    return refused(f"VLLM_SERVER_DEV_MODE={value} opens /sleep, /pause and other administration to every client")


def _stale_cache(facts: WorkloadFacts) -> Outcome:
    digest = short_digest(facts.image)
    if digest is None:
        return passed("not judged: the image has no digest, see image-digest")
    for name in CACHE_VARIABLES:
        path = facts.variable(name)
        if path is not None and digest not in path.split("/"):
            return refused(f"{name}={path} is not a folder of this image's own (no part of the path is {digest})")
    return passed(f"every cache variable names a folder of {digest}, or none is set")


def _host_path(facts: WorkloadFacts) -> Outcome:
    for volume in facts.host_paths:
        if not f"{normpath(volume.path)}/".startswith(f"{NODE_DISK}/"):
            return refused(f"hostPath {volume.path} is not on the node's NVMe array, {NODE_DISK}")
        if volume.type not in CHECKED_TYPES:
            given = f"type {volume.type}" if volume.type else "no type"
            return refused(
                f"hostPath {volume.path} has {given}: where the array is not mounted it fills the root volume"
            )
    return passed("every hostPath is on the node's NVMe array, and none is made where it is missing")


RULES: tuple[Rule, ...] = (
    Rule(
        "image-digest",
        "The image is pinned by digest",
        "another image under the same tag, at the next restart",
        "name the image as repository@sha256:…",
        "cookbook; peers pin none",
        _image_digest,
        locked=True,
        parameters=(
            Parameter(
                "repositories",
                "repositories",
                "the only repositories that vLLM's image may come from, such as a mirror",
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ),
        ),
    ),
    Rule(
        "model-revision",
        "The model is pinned by revision",
        "other weights under the same name, at the next fetch",
        "set revision to a commit of the model's repository, or leave it out for the catalogue's",
        "cookbook",
        _model_revision,
        locked=True,
    ),
    Rule(
        "dev-mode",
        "vLLM's development endpoints are off",
        "anybody may stop or reset the engine",
        "take VLLM_SERVER_DEV_MODE out of env",
        "vLLM docs/usage/security.md",
        _dev_mode,
    ),
    Rule(
        "stale-cache",
        "Compile caches belong to one image and one pod",
        "garbage until the cache is cleared",
        "leave the cache variables out of env",
        "vllm#46367, edutelligence#579, rllm#490, measured on an H200",
        _stale_cache,
    ),
    Rule(
        "host-path",
        "Folders of the host are on its NVMe array",
        "the weights fill the root volume, or the pod reads what is not its own",
        f"use a folder below {NODE_DISK} with type Directory",
        "EKS user guide, ml-inference-fast-model-loading",
        _host_path,
    ),
)
