"""Which requests the policies judge: those that bring a new pod, or a new template of pods, that may run vLLM."""

from __future__ import annotations

from dataclasses import dataclass

from serving.plan import GPU_RESOURCE

VLLM = "vllm"
GPU_PREFIX = f"{GPU_RESOURCE.partition('/')[0]}/"
"""Beginning of the names of NVIDIA's resources: whole GPUs, and parts of one (nvidia.com/mig-…)."""


@dataclass(frozen=True)
class Resources:
    """Resources of one API group; a `*` version stands for all: requests are judged in the version they come in."""

    group: str
    version: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """A CEL expression that a request must meet to be judged."""

    name: str
    expression: str


# Not here: the scale subresources. A request there shows a number and no pod; the pods that it makes are judged themselves.
RESOURCES = (
    Resources("", "v1", ("pods", "pods/ephemeralcontainers", "replicationcontrollers")),
    Resources("apps", "v1", ("deployments", "statefulsets", "daemonsets", "replicasets")),
    Resources("batch", "v1", ("jobs", "cronjobs")),
    Resources("leaderworkerset.x-k8s.io", "*", ("leaderworkersets",)),
)

# Deletion is not here either: nothing that exists may be kept from going.
OPERATIONS = ("CREATE", "UPDATE")

POD_TEMPLATES = """(object.kind == "Pod" ? [object] : [
  ?object.spec.?template,
  ?object.spec.?jobTemplate.?spec.?template,
  ?object.spec.?leaderWorkerTemplate.?leaderTemplate,
  ?object.spec.?leaderWorkerTemplate.?workerTemplate
]).filter(t, has(t.spec))"""
"""What an object makes pods of: one template, or two of a LeaderWorkerSet whose leader differs from its workers."""

CONTAINERS_OF_POD = """p.?initContainers.orValue([]) + p.?containers.orValue([]) + p.?ephemeralContainers.orValue([])"""
"""All containers of the pod spec `p`."""

WORDS_OF_CONTAINER = """c.?command.orValue([]) + c.?args.orValue([])"""
"""The words of the container `c` as they are written."""


def _templates(of: str) -> str:
    return (
        f'({of}.kind == "Pod" ? [{of}.spec] : '
        f"[?{of}.spec.?template, ?{of}.spec.?jobTemplate, ?{of}.spec.?leaderWorkerTemplate])"
    )


CONDITIONS = (
    # What only scales, relabels or finalises an object is not judged: controllers must be able to take down what was there
    # before the policies.
    Condition(
        "pods-are-new", f'request.operation == "CREATE" ||\n{_templates("object")} !=\n{_templates("oldObject")}'
    ),
    # Whatever a policy thinks of it, a pod that has nothing to do with vLLM or GPUs costs the API server no more than this.
    Condition(
        "may-run-vllm",
        f"""{POD_TEMPLATES}.map(t, t.spec).exists(p, ({CONTAINERS_OF_POD}).exists(c,
  c.?image.orValue("").contains("{VLLM}") ||
  ({WORDS_OF_CONTAINER}).exists(w, w.contains("{VLLM}")) ||
  c.?env.orValue([]).exists(e, e.?value.orValue("").contains("{VLLM}")) ||
  c.?resources.?limits.orValue({{}}).exists(r, r.startsWith("{GPU_PREFIX}"))))""",
    ),
)
