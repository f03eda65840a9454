"""Reads serving facts back from any Kubernetes object that holds pods: one reading for each container that runs vLLM.

Never raises: what cannot be known is said in `WorkloadFacts.unknown`, and a rule that depends on it refuses. Texts name
variables, flags and containers, never the values of variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from serving import argv, catalogue
from serving.argv import Arguments
from serving.catalogue import InstanceType
from serving.facts import HostPath, WorkloadFacts
from serving.launch import Program, is_python, programs, python_words
from serving.plan import RELEASE_LABEL, accelerator_class
from serving.reading import Surroundings, from_arguments
from serving.spelling import InputError, listed
from serving.unknowns import Shape, Unknowns

UNKNOWN = "\U000fffff"
"""Stands in a manifest for a value that is not known yet, such as an output in a preview."""

_NOT_YET = "a value of it is known only after the update"
_CONTAINERS = {
    "initContainers": "init container",
    "containers": "container",
    "ephemeralContainers": "ephemeral container",
}
# Kinds that hold pods; of any other one it is not known whether an unknown `spec` does.
_KINDS = frozenset(
    {
        *("Pod", "PodTemplate", "ReplicationController", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"),
        *("Job", "CronJob", "LeaderWorkerSet"),
    }
)
_TEMPLATES = frozenset({"template", "jobTemplate", "leaderWorkerTemplate", "leaderTemplate", "workerTemplate"})
_GPU = "nvidia.com/"
_VOID = frozenset({"", "void", "none"})
_INSTANCE_LABELS = frozenset({"node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"})
_CLASS_LABEL = "accelerator.nvidia.com/class"
_SECRET_WORDS = frozenset({"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS", "APIKEY"})
_PLAIN_FIELDS = re.compile(r"status\.(podIPs?|hostIPs?)|metadata\.(name|namespace|uid|labels.*)|spec\.\w+")
_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T|)")
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True)
class Reading:
    """A container that runs vLLM, or may: its facts. `unreadable` is why its command as a whole is not known, if it is not."""

    facts: WorkloadFacts
    unreadable: str | None = None


@dataclass(frozen=True)
class _Pod:
    where: str
    spec: Mapping[str, object]
    labels: Mapping[str, object]
    group_size: int | None


def read(manifest: object) -> list[Reading]:
    """Return the readings of an object as Kubernetes or Pulumi has it, with `UNKNOWN` where a value is not known yet."""
    try:
        return [reading for pod in _pods(_mapping(manifest), "", None) for reading in _pod(pod)]
    except RecursionError:
        return [nothing_known("the object", "it is nested too deeply to be read")]


# --- pods of an object ----------------------------------------------------------------------------------------------


def _pods(node: Mapping[str, object], where: str, size: int | None) -> Iterator[_Pod]:
    """Yield every pod specification below a node: whatever has a list of containers, in objects of any kind."""
    if node.get("containers") == UNKNOWN or isinstance(node.get("containers"), list):
        yield _Pod(where, node, {}, size)
        return
    group = node.get("size")
    size = int(group) if isinstance(group, int | float) and 1 <= group < 1000 else size
    for key in sorted(node):  # a leader before its workers, in whatever order they come
        value = node[key]
        if value == UNKNOWN and (key in _TEMPLATES or (key == "spec" and node.get("kind", "Pod") in _KINDS)):
            yield _Pod(where, {"containers": UNKNOWN}, {}, size)
        part = {"leaderTemplate": "leader ", "workerTemplate": "worker "}.get(key, where)
        labels = _mapping(_mapping(node.get("metadata")).get("labels"))
        for child in _list(value) or [value]:
            for pod in _pods(_mapping(child), part, size):
                yield pod if key != "spec" else _Pod(pod.where, pod.spec, pod.labels or labels, pod.group_size)


def _pod(pod: _Pod) -> Iterator[Reading]:
    for key, kind in _CONTAINERS.items():
        containers = pod.spec.get(key)
        if containers == UNKNOWN:
            yield nothing_known(f"{pod.where}{kind}s", _NOT_YET)
        for container in _list(containers):
            if container == UNKNOWN:
                yield nothing_known(f"{pod.where}{kind}", _NOT_YET)
            else:
                yield from _container(pod, _mapping(container), kind)


def nothing_known(where: str, why: str) -> Reading:
    """Return the reading of what may run vLLM, and of which no more is known."""
    fields = ("instance", "image", "env", "shared_memory_gib", "memory_limited", "host_paths", "gated")
    around = Surroundings(None, unknown=dict.fromkeys(fields, why))
    return Reading(from_arguments(where, Arguments(None, {}, why), {}, "", around), why)


# --- a container ----------------------------------------------------------------------------------------------------


def _container(pod: _Pod, container: Mapping[str, object], kind: str) -> Iterator[Reading]:
    where = f"{pod.where}{kind} {_text(container.get('name'))}"
    unknowns = Unknowns()
    image = _text(container.get("image"))
    env, others = _environment(pod, container, unknowns)
    words = [
        unknowns.mark(_NOT_YET) if word == UNKNOWN else _expanded(_text(word), env, others, unknowns)
        for word in _words(container, image)
    ]
    if UNKNOWN in (container.get("command"), container.get("args")):
        words = [unknowns.mark(_NOT_YET, Shape.WORDS)]
    elif not container.get("command") and not _is_vllm(image):
        why = "it has no command, and what its image starts is not in the manifest"
        words = [unknowns.mark(why, Shape.WORDS), *words]
    started = programs(words, env, unknowns)
    serving = [program for program in started if program.serves]
    hidden = [program for program in started if program.unreadable] if _has_gpu(container, image, env) else []
    for program in serving or hidden[:1]:
        yield _reading(pod, container, program, where=where, image=image, others=others, unknowns=unknowns)


def _reading(
    pod: _Pod,
    container: Mapping[str, object],
    program: Program,
    *,
    where: str,
    image: str,
    others: str | None,
    unknowns: Unknowns,
) -> Reading:
    try:
        given = Arguments(None, {}, program.unreadable) if program.unreadable else argv.read(program.words, unknowns)
    except InputError as error:
        given = Arguments(None, {}, str(error))
    unknown = {f"env.{name}": why for name, value in program.env.items() if (why := unknowns.why(value))}
    why_others = others or (program.unreadable if program.serves else None)
    unknown |= {"env": why_others} if why_others else {}
    unknown |= {"image": _NOT_YET} if UNKNOWN in image else {}
    around = _surroundings(pod, container, unknown)
    known = {name: value for name, value in program.env.items() if f"env.{name}" not in unknown}
    return Reading(from_arguments(where, given, known, image, around), given.doubt)


def _words(container: Mapping[str, object], image: str) -> list[object]:
    """Return command and arguments as Kubernetes joins them; without a command the image's entry point comes first."""
    start: list[object] = _list(container.get("command"))
    rest: list[object] = _list(container.get("args"))
    # The images of vLLM have ENTRYPOINT ["vllm", "serve"] (docker/Dockerfile, 0.23 to 0.33).
    return [*(start or (["vllm", "serve"] if _is_vllm(image) else [])), *rest]


def _is_vllm(image: str) -> bool:
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return name == "vllm-openai" or catalogue.engine_of_image(image) is not None


def _has_gpu(container: Mapping[str, object], image: str, env: Mapping[str, str]) -> bool:
    """Whether a container gets GPUs: asks for them, or lets the node's runtime give it all that there are."""
    resources = _mapping(container.get("resources"))
    asked = [*_mapping(resources.get("limits")), *_mapping(resources.get("requests"))]
    if UNKNOWN in (container.get("resources"), *resources.values()):
        return True
    if any(name.startswith(_GPU) for name in asked) or resources.get("claims"):
        return True
    return env.get("NVIDIA_VISIBLE_DEVICES", "all" if _is_vllm(image) else "void") not in _VOID


def _environment(pod: _Pod, container: Mapping[str, object], unknowns: Unknowns) -> tuple[dict[str, str], str | None]:
    """Return the variables, unknown ones as marks, and why there may be others, or None."""
    env = {"HOSTNAME": unknowns.mark("HOSTNAME is the pod's name", Shape.WORD)}
    if pod.group_size is not None:
        env["LWS_GROUP_SIZE"] = str(pod.group_size)
        for name in ("LWS_LEADER_ADDRESS", "LWS_WORKER_INDEX"):
            env[name] = unknowns.mark(f"{name} is another one in each pod", Shape.WORD)
    sources = container.get("envFrom")
    others = f"a variable may come from {_sources(sources)}" if sources else None
    rows = container.get("env")
    if rows == UNKNOWN:
        return env, f"env: {_NOT_YET}"
    for row in map(_mapping, _list(rows)):
        name = _text(row.get("name"))
        env[name] = _variable(name, row, env, others, unknowns)
    return env, others


def _sources(sources: object) -> str:
    kinds = {"configMapRef": "a ConfigMap", "secretRef": "a Secret"}
    rows = [_mapping(row) for row in cast("list[object]", sources)] if isinstance(sources, list) else []
    return listed(sorted({text for row in rows for kind, text in kinds.items() if kind in row})) or "envFrom"


def _variable(
    name: str, row: Mapping[str, object], env: Mapping[str, str], others: str | None, unknowns: Unknowns
) -> str:
    if set(name.upper().split("_")) & _SECRET_WORDS:
        return unknowns.mark(f"{name} is named like a secret, and its value is not read")
    if "valueFrom" in row:
        source = _mapping(row["valueFrom"])
        field = _text(_mapping(source.get("fieldRef")).get("fieldPath"))
        shape = Shape.WORD if _PLAIN_FIELDS.fullmatch(field) or "resourceFieldRef" in source else Shape.TEXT
        kind = {"secretKeyRef": "a Secret", "configMapKeyRef": "a ConfigMap"}
        origin = next((text for key, text in kind.items() if key in source), "the cluster")
        return unknowns.mark(f"{name} comes from {origin}", shape)
    value = row.get("value")
    if value == UNKNOWN:
        return unknowns.mark(f"{name} is known only after the update")
    return _expanded(_text(value), env, others, unknowns)


def _expanded(text: str, env: Mapping[str, str], others: str | None, unknowns: Unknowns) -> str:
    """Replace `$(NAME)` as Kubernetes does: `$$` is a dollar sign, and an unknown name stays as it is."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match[1] not in env and others is not None:
            return unknowns.mark(others)
        return env.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


# --- the pod around it ----------------------------------------------------------------------------------------------


def _surroundings(pod: _Pod, container: Mapping[str, object], unknown: dict[str, str]) -> Surroundings:
    machine = _machine(pod.spec)
    if isinstance(machine, str):
        unknown["instance"] = machine
    volumes = pod.spec.get("volumes")
    rows = [_mapping(row) for row in cast("list[object]", volumes)] if isinstance(volumes, list) else []
    if volumes == UNKNOWN or any(UNKNOWN in (*row.values(), *_mapping(row.get("hostPath")).values()) for row in rows):
        unknown["host_paths"] = unknown["shared_memory_gib"] = f"volumes: {_NOT_YET}"
    shared = _shared_memory(pod.spec, container, rows)
    if isinstance(shared, str):
        unknown["shared_memory_gib"] = shared
    hosts = [_mapping(row["hostPath"]) for row in rows if "hostPath" in row]
    release = _text(pod.labels.get(RELEASE_LABEL))
    image = _text(container.get("image"))
    return Surroundings(
        machine if isinstance(machine, InstanceType) else None,
        catalogue.engine_of_image(image) or catalogue.engines().get(release),
        pod.group_size,
        shared if isinstance(shared, float) else None,
        "memory" in _mapping(_mapping(container.get("resources")).get("limits")),
        tuple(HostPath(_text(host.get("path")), _text(host.get("type"))) for host in hosts),
        _gated(pod.spec),
        unknown,
    )


def _machine(spec: Mapping[str, object]) -> InstanceType | str:
    """Return the machine that the node selector or the required affinity names, or why none is known."""
    terms = [{key: {_text(value)} for key, value in _mapping(spec.get("nodeSelector")).items()}]
    affinity = _mapping(_mapping(spec.get("affinity")).get("nodeAffinity"))
    required = _mapping(affinity.get("requiredDuringSchedulingIgnoredDuringExecution")).get("nodeSelectorTerms")
    alternatives = (
        [_term(_mapping(term)) for term in cast("list[object]", required)] if isinstance(required, list) else []
    )
    found = {row.name: row for term in alternatives or [{}] for row in _machines([*terms, term])}
    if len({row.gpu.name for row in found.values()}) == 1:
        return next(iter(found.values()))
    if len(found) < len(catalogue.instance_types()) and found:
        return f"it may run on {listed(sorted(found))}, which differ"
    return (
        "the pod does not say which machine it runs on: select one by node.kubernetes.io/instance-type "
        f"or {_CLASS_LABEL} in nodeSelector"
    )


def _term(term: Mapping[str, object]) -> dict[str, set[str]]:
    rows = term.get("matchExpressions")
    expressions = [_mapping(row) for row in cast("list[object]", rows)] if isinstance(rows, list) else []
    return {
        _text(row.get("key")): {_text(value) for value in cast("list[object]", row["values"])}
        for row in expressions
        if row.get("operator") == "In" and isinstance(row.get("values"), list)
    }


def _machines(terms: Sequence[Mapping[str, set[str]]]) -> list[InstanceType]:
    """Return the machines of the catalogue that fit every term; a name that it does not know fits none."""

    def fits(row: InstanceType, key: str, values: set[str]) -> bool:
        if key in _INSTANCE_LABELS:
            return row.name in values
        return key != _CLASS_LABEL or accelerator_class(row) in values

    rows = catalogue.instance_types().values()
    return [row for row in rows if all(fits(row, key, values) for term in terms for key, values in term.items())]


def _shared_memory(
    spec: Mapping[str, object], container: Mapping[str, object], volumes: Sequence[Mapping[str, object]]
) -> float | str | None:
    """Return the GiB of /dev/shm, None for the runtime's default, or why it is not known."""
    if spec.get("hostIPC"):
        return "/dev/shm is the host's"
    mounts = container.get("volumeMounts")
    rows = [_mapping(row) for row in cast("list[object]", mounts)] if isinstance(mounts, list) else []
    names = [row.get("name") for row in rows if _text(row.get("mountPath")).rstrip("/") == "/dev/shm"]
    if not names:
        return f"volumeMounts: {_NOT_YET}" if mounts == UNKNOWN else None
    sizes = [_mapping(row.get("emptyDir")).get("sizeLimit") for row in volumes if row.get("name") == names[-1]]
    size = _SIZE.fullmatch(_text(sizes[0])) if sizes else None
    return float(size[1]) * _BYTES[size[2]] / 2**30 if size else "/dev/shm is a volume without a sizeLimit"


def _gated(spec: Mapping[str, object]) -> bool:
    """Whether a container beside the engine runs the gate, and the pod is ready only when that says so."""
    rows = map(_mapping, _list(spec.get("containers")))
    return any("readinessProbe" in row and _runs_gate([_text(word) for word in _words(row, "")]) for row in rows)


def _runs_gate(command: list[str]) -> bool:
    return is_python(command) and python_words(command)[:1] == ["gate"]


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    """Return a scalar as text; a number of a manifest may be a float that is whole."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else ""
