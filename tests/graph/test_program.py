"""The program itself, `__main__.py`: what each stack registers and exports, and how it refuses.

What is registered is kept in golden files, so that a change's effect shows in its diff. Renew them with
`python -m tests.graph.test_program` and read what changed.
"""

from __future__ import annotations

import io
import json
import re
import runpy
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from difflib import unified_diff
from functools import cache
from pathlib import Path
from typing import Any, cast

import pulumi
import pytest
import yaml
from pulumi.output import Unknown
from pulumi.runtime import set_all_config
from pulumi.runtime.settings import get_root_resource

from components.pod_programs import pod_programs
from components.stack_config import load_plan
from rehearsal.__main__ import main
from rehearsal.aws import AwsStandIn
from rehearsal.engine import InProcessEngine
from rehearsal.rendering import RenderedWorld, as_yaml
from rehearsal.resource import Created, RehearsalError, Resource, World
from rehearsal.run import ROOT
from serving.admission.reading import READING
from serving.config import parse
from serving.plan import Plan, build
from serving.report import as_json
from serving.stack_file import read, stack_file
from tests.fixtures.stacks import load_documents
from tests.graph.harness import UNKNOWN, Run, run

GOLDEN = Path(__file__).parent / "golden"
RENEW = "python -m tests.graph.test_program"
STACKS = ("dev", "prod", "h200-bf16-two-nodes")
REPLICAS = {"dev": "glm-deployment", "prod": "glm-deployment", "h200-bf16-two-nodes": "glm-leader-worker-set"}
EVERY_STACK = pytest.mark.parametrize("stack", STACKS)

Settings = Mapping[str, Any]


@cache
def settings_of(stack: str) -> Settings:
    return read(stack_file(stack, ROOT))


def plan_of(settings: Settings, stack: str) -> Plan:
    return build(parse(settings), stack)


class UnknowingWorld(World):
    """Where nothing exists yet: AWS judges what it can, and nobody says what will come out."""

    def __init__(self) -> None:
        self.asked: list[Resource] = []
        self._aws = AwsStandIn("us-east-1")

    def create(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        assert preview
        self.asked.append(resource)
        if resource.type.startswith("aws:"):
            return self._aws.create(resource.type, resource.name, resource.inputs, preview=True)
        return None, dict(resource.inputs)

    def delete(self, created: Created) -> None:
        raise AssertionError(f"{created.resource.label}: a preview deletes nothing")


@dataclass(frozen=True)
class Updated:
    """What an update made, by URN without the stack's part with what it needs, and what it exported."""

    urns: list[str]
    needs: Mapping[str, frozenset[str]]
    exports: Mapping[str, Any]
    resources: list[Resource]

    def all_needs(self, name: str) -> set[str]:
        """Return the names of all that exists before a resource, and until it is gone."""
        found: set[str] = set()
        waiting = [urn for urn in self.needs if urn.endswith(f"::{name}")]
        while waiting:
            new = self.needs.get(waiting.pop(), frozenset[str]()) - found
            found |= new
            waiting.extend(new)
        return {urn.rpartition("::")[2] for urn in found}


_CONTENT_HASH = re.compile(r"(?<=-)[0-9a-f]{10}$")


def _urns(resources: Iterator[Resource], stack: str) -> list[str]:
    """Return URNs without the stack, sorted; the hash of a ConfigMap's content in its name is the word HASH."""
    prefix = f"urn:pulumi:{stack}::glm-on-gpus::"
    return sorted(_CONTENT_HASH.sub("HASH", resource.urn.removeprefix(prefix)) for resource in resources)


def update(settings: Settings, stack: str) -> Updated:
    engine = InProcessEngine(ROOT, stack, settings, RenderedWorld("us-east-1"))
    exports = engine.up()
    resources = [created.resource for created in engine.created]
    return Updated(_urns(iter(resources), stack), {row.urn: row.needs for row in resources}, exports, resources)


@cache
def updated(stack: str) -> Updated:
    return update(settings_of(stack), stack)


def preview(settings: Settings, stack: str) -> tuple[list[str], UnknowingWorld]:
    world = UnknowingWorld()
    resources = [step.resource for step in InProcessEngine(ROOT, stack, settings, world).preview()]
    return _urns(iter(resources), stack), world


def test_a_preview_says_when_a_capacity_block_starts_and_what_to_do_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pulumi, "info", said.append)
    preview(settings_of("h200-capacity-block"), "h200-capacity-block")
    assert said == [
        "nodePools.h200: Capacity Block cr-0123456789abcdef0 starts at 2026-12-01 11:30 UTC; no machine and no replica runs "
        "before. Once it has started: pulumi config set --path 'glm-on-gpus:nodePools.h200.capacity.phase' active and pulumi up, "
        "which asks EKS for 1 machine and starts the replicas on them"
    ]


# --- golden files ----------------------------------------------------------------------------------------------------


def golden_urns(stack: str) -> str:
    return "".join(f"{urn}\n" for urn in updated(stack).urns)


@cache
def rendered(stack: str) -> str:
    """What `python -m rehearsal render` writes."""
    written = io.StringIO()
    with _signals_as_they_are(), redirect_stdout(written):
        assert main(["render", "--stack", stack]) == 0
    return written.getvalue()


def golden_manifests(stack: str) -> str:
    """The rendering, with references instead of what lies elsewhere: pods' programs, their hash, and how policies read a pod."""
    documents: list[dict[str, Any]] = load_documents(rendered(stack).replace(pod_programs().digest, "HASH"))
    read = {row.name: "(an expression of serving/admission/reading.py)" for row in READING}
    for document in documents:
        if document["kind"] == "ConfigMap" and "-programs-" in document["metadata"]["name"]:
            document["data"] = dict.fromkeys(document["data"], "(a program of components/pod or of gate)")
        elif document["kind"] == "ConfigMap":
            document["data"] = {name: json.loads(text) for name, text in document["data"].items()}
        elif document["kind"] == "LeaderWorkerSet":
            for template in ("leaderTemplate", "workerTemplate"):
                metadata = document["spec"]["leaderWorkerTemplate"][template]["metadata"]
                metadata["annotations"]["glm-on-gpus/template"] = "(a digest of both templates)"
        elif document["kind"] == "ValidatingAdmissionPolicy":
            for variable in document["spec"]["variables"]:
                variable["expression"] = read.get(variable["name"], variable["expression"])
    return as_yaml(documents)


@contextmanager
def _signals_as_they_are() -> Generator[None]:
    """Undo that a command line takes SIGTERM for an interrupt."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


GOLDEN_FILES: Mapping[str, Callable[[str], str]] = {"urns.txt": golden_urns, "yaml": golden_manifests}


@EVERY_STACK
@pytest.mark.parametrize("suffix", GOLDEN_FILES)
def test_golden(stack: str, suffix: str) -> None:
    path = GOLDEN / f"{stack}.{suffix}"
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    now = GOLDEN_FILES[suffix](stack)
    if now != kept:
        name = str(path.relative_to(ROOT))
        diff = "".join(unified_diff(kept.splitlines(True), now.splitlines(True), f"{name} (kept)", "registered now"))
        pytest.fail(f"{diff}\n{name} is not what stack {stack} registers. If you meant it: {RENEW}", pytrace=False)


def renew() -> None:
    """Write every golden file as the program is now."""
    for suffix, make in GOLDEN_FILES.items():
        for stack in STACKS:
            (GOLDEN / f"{stack}.{suffix}").write_text(make(stack), encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {
        f"{stack}.{suffix}" for stack in STACKS for suffix in GOLDEN_FILES
    }


# --- previews --------------------------------------------------------------------------------------------------------


@EVERY_STACK
def test_a_preview_registers_what_an_update_registers(stack: str) -> None:
    urns, world = preview(settings_of(stack), stack)
    assert urns == updated(stack).urns
    # It was a preview in earnest: what AWS would say was not known.
    provider = next(row for row in world.asked if row.type == "pulumi:providers:kubernetes")
    assert isinstance(provider.inputs["kubeconfig"], Unknown)


# --- an existing cluster ---------------------------------------------------------------------------------------------

KUBECONFIG = {
    "clusters": [{"name": "gpu", "cluster": {"server": "https://gpu.example:6443"}}],
    "users": [{"name": "admin", "user": {"token": "hunter2"}}],
    "contexts": [{"name": "gpu-prod", "context": {"cluster": "gpu", "user": "admin"}}],
}


def existing(folder: Path, **installs: bool) -> Settings:
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(KUBECONFIG))
    return {
        "glm-on-gpus:cluster": {
            "kind": "existing",
            "context": "gpu-prod",
            "kubeconfig": str(file),
            **installs,
        },
        "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5en.48xlarge", "nodes": 2}},
        "glm-on-gpus:workloads": {
            "glm": {"nodePool": "h200", "precision": "fp8", "replicas": 2, "maxModelLen": 131072},
        },
    }


WORKLOAD_URNS = [
    "glm-on-gpus:vllm_workload:VllmWorkload$kubernetes:apps/v1:Deployment::glm-deployment",
    "glm-on-gpus:vllm_workload:VllmWorkload$kubernetes:core/v1:ConfigMap::glm-expectations-HASH",
    "glm-on-gpus:vllm_workload:VllmWorkload$kubernetes:core/v1:ConfigMap::glm-programs-HASH",
    "glm-on-gpus:vllm_workload:VllmWorkload$kubernetes:core/v1:Namespace::glm-namespace",
    "glm-on-gpus:vllm_workload:VllmWorkload$kubernetes:core/v1:Service::glm-service",
    "glm-on-gpus:vllm_workload:VllmWorkload$kubernetes:core/v1:ServiceAccount::glm-service-account",
    "glm-on-gpus:vllm_workload:VllmWorkload$kubernetes:policy/v1:PodDisruptionBudget::glm-disruption-budget",
    "pulumi:pulumi:Stack$glm-on-gpus:vllm_workload:VllmWorkload::glm",
]
CLUSTER_URNS = [
    "glm-on-gpus:existing_cluster:ExistingCluster$pulumi:providers:kubernetes::cluster-provider",
    "pulumi:pulumi:Stack$glm-on-gpus:existing_cluster:ExistingCluster::cluster",
]
PLUGIN_URNS = [
    "glm-on-gpus:device_plugin:DevicePlugin$kubernetes:apps/v1:DaemonSet::device-plugin-daemonset",
    "glm-on-gpus:device_plugin:DevicePlugin$kubernetes:core/v1:Namespace::device-plugin-namespace",
    "pulumi:pulumi:Stack$glm-on-gpus:device_plugin:DevicePlugin::device-plugin",
]
POLICY_URNS = [
    "pulumi:pulumi:Stack$glm-on-gpus:admission_policies:AdmissionPolicies::admission",
    *(
        f"glm-on-gpus:admission_policies:AdmissionPolicies$kubernetes:admissionregistration.k8s.io/v1:{kind}::admission-{name}"
        for rule in ("image-digest", "model-revision", "bf16-one-node", "dev-mode", "host-path")
        for kind, name in (
            ("ValidatingAdmissionPolicy", rule),
            ("ValidatingAdmissionPolicyBinding", f"{rule}-binding"),
        )
    ),
]


@pytest.mark.parametrize(
    ("installs", "around"),
    [
        ({}, POLICY_URNS),
        ({"installDevicePlugin": True}, [*POLICY_URNS, *PLUGIN_URNS]),
        ({"installAdmissionPolicies": False}, []),
    ],
)
def test_an_existing_cluster_gets_the_workload_and_what_it_asks_for(
    tmp_path: Path, installs: Mapping[str, bool], around: list[str]
) -> None:
    settings = existing(tmp_path, **installs)
    expected = sorted([*WORKLOAD_URNS, *CLUSTER_URNS, *around])
    plan = plan_of(settings, "test")
    made = update(settings, "test")
    assert made.urns == expected
    assert preview(settings, "test")[0] == expected
    assert made.exports == {
        "endpoints": {"glm": "http://glm.glm.svc.cluster.local:8000/v1"},
        "plan": as_json(plan),
        "hourlyUsd": plan.cost.hourly_usd,
        "kubeconfig": made.exports["kubeconfig"],
    }
    assert yaml.safe_load(made.exports["kubeconfig"])["users"] == KUBECONFIG["users"]


# --- exports ---------------------------------------------------------------------------------------------------------


@EVERY_STACK
def test_exports(stack: str) -> None:
    plan = plan_of(settings_of(stack), stack)
    exports = updated(stack).exports
    assert exports == {
        "endpoints": {"glm": "http://glm.glm.svc.cluster.local:8000/v1"},
        "plan": as_json(plan),
        "hourlyUsd": plan.cost.hourly_usd,
        "kubeconfig": exports["kubeconfig"],
    }
    assert isinstance(exports["hourlyUsd"], float)
    assert exports["hourlyUsd"] > 0
    kubeconfig = yaml.safe_load(exports["kubeconfig"])
    assert kubeconfig["current-context"] == f"glm-on-gpus-{stack}"
    assert kubeconfig["users"][0]["user"]["exec"]["command"] == "aws"  # a way to a token, and no token


def program(settings: Settings) -> Mapping[str, pulumi.Output[Any]]:
    """Run `__main__.py` with settings as the CLI hands them over, inside the harness; return what it exports."""
    set_all_config({key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()})
    exports = cast("dict[str, Any]", cast("Any", get_root_resource()).outputs)
    exports.clear()
    runpy.run_path(str(ROOT / "__main__.py"), run_name="__pulumi_program__")
    return {name: pulumi.Output.from_input(value) for name, value in exports.items()}


def in_harness(settings: Settings, *, preview: bool = False) -> Run:
    return run(lambda: program(settings), preview=preview)


def test_the_kubeconfig_is_secret_also_while_it_is_unknown(tmp_path: Path) -> None:
    secrets = {"endpoints": False, "plan": False, "hourlyUsd": False, "kubeconfig": True}
    for result in (in_harness(settings_of("dev")), in_harness(existing(tmp_path))):
        assert {name: exported.secret for name, exported in result.exports.items()} == secrets
        assert result.one("pulumi:providers:kubernetes").secret_inputs == {"kubeconfig"}
    unknown = in_harness(settings_of("dev"), preview=True).exports["kubeconfig"]
    assert (unknown.value, unknown.secret) == (UNKNOWN, True)


@pytest.mark.parametrize(("stack", "machines"), [("dev", "h200-nodes"), ("prod", "b200-nodes")])
def test_workloads_wait_for_machines_and_their_gpus(stack: str, machines: str) -> None:
    made = updated(stack)
    assert {machines, "device-plugin-daemonset", "cluster-cluster"} <= made.all_needs("glm-namespace")
    assert {machines, "cluster-cluster"} <= made.all_needs("device-plugin-daemonset")


@EVERY_STACK
def test_workloads_come_after_the_admission_policies_and_go_before_them(stack: str) -> None:
    made = updated(stack)
    assert {"admission-image-digest", "admission-image-digest-binding"} <= made.all_needs(REPLICAS[stack])
    assert "cluster-provider" in made.all_needs("admission-image-digest")


def test_a_group_waits_for_what_its_pods_and_it_itself_need() -> None:
    needed = {"device-plugin-daemonset", "efa-plugin-daemonset", "leader-worker-sets-release"}
    assert needed <= updated("h200-bf16-two-nodes").all_needs("glm-namespace")


# --- refusals --------------------------------------------------------------------------------------------------------


def dev_with(changes: Mapping[str, Any]) -> Settings:
    """The dev stack's settings with keys replaced, left out where None."""
    return {key: value for key, value in {**settings_of("dev"), **changes}.items() if value is not None}


def _workload(**changes: Any) -> dict[str, Any]:
    return {"glm": {**settings_of("dev")["glm-on-gpus:workloads"]["glm"], **changes}}


WHERE = "Pulumi.test.yaml"
WORKLOADS = "glm-on-gpus:workloads"
A_CLUSTER = "expected a map that begins with kind: eks or kind: existing"
TOP_LEVEL = "allowed are cluster, nodePools or workloads"

REFUSALS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "misspelt-key": (
        {WORKLOADS: _workload(maxModelLength=131072)},
        f"{WHERE}: workloads.glm.maxModelLength: unknown key; allowed are nodePool, model, precision, revision, "
        "vllmVersion, image, replicas, nodesPerReplica, pipelineParallelSize, decodeContextParallelSize, maxModelLen, "
        "maxNumSeqs, maxNumBatchedTokens, gpuMemoryUtilization, kvCacheDtype, speculativeTokens, toolCalling, reasoning, "
        "weightsMirror, kvOffloadGiB, loadFormat, env or gate; did you mean maxModelLen?",
    ),
    "misspelt-top-level-key": (
        {"glm-on-gpus:workload": _workload(), WORKLOADS: None},
        f"{WHERE}: glm-on-gpus:workload: unknown key; {TOP_LEVEL}; did you mean workloads?",
    ),
    "misspelt-top-level-key-beside-the-right-one": (
        {"glm-on-gpus:nodePool": {}},
        f"{WHERE}: glm-on-gpus:nodePool: unknown key; {TOP_LEVEL}; did you mean nodePools?",
    ),
    "misspelt-namespace": (
        {"glm-on-gpu:workloads": _workload(), WORKLOADS: None},
        f"{WHERE}: glm-on-gpu:workloads: unknown namespace 'glm-on-gpu'; allowed are aws, kubernetes, pulumi or glm-on-gpus; "
        "did you mean glm-on-gpus?",
    ),
    "text-for-a-map": (
        {"glm-on-gpus:cluster": "eks"},
        f"{WHERE}: cluster: 'eks' is not allowed; {A_CLUSTER}",
    ),
    "number-for-a-map": (
        {"glm-on-gpus:nodePools": 8},
        f"{WHERE}: nodePools: 8 is not allowed; expected a map from a pool's name to its settings, with at least one pool",
    ),
    "section-left-out": (
        {"glm-on-gpus:cluster": None},
        f"{WHERE}: cluster: missing; {A_CLUSTER}",
    ),
    "two-mistakes": (
        {WORKLOADS: _workload(replicas=0, precision="fp16")},
        f"{WHERE}: workloads.glm.precision: 'fp16' is not allowed; expected fp8, bf16 or nvfp4; did you mean bf16?\n"
        f"{WHERE}: workloads.glm.replicas: 0 is not allowed; "
        "expected a whole number of replicas from 1 to 64; each takes nodesPerReplica whole nodes",
    ),
    "refused-by-a-rule": (
        {WORKLOADS: _workload(precision="bf16")},
        "stack test is refused:\n"
        "  workloads.glm: bf16-one-node: BF16 needs 178.8 GiB of weights on each GPU of one 8xH200 node; at "
        "gpu_memory_utilization 0.92 vLLM has 128.6 of 139.8 GiB: 50.1 GiB short before 8.0 GiB of overhead and any KV "
        "cache. To do: use precision fp8 or nvfp4, 16 GPUs on two nodes, or an 8xB300 pool.",
    ),
    "no-such-kubeconfig": (
        {
            "glm-on-gpus:cluster": {"kind": "existing", "context": "gpu", "kubeconfig": "nowhere/config"},
            "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5en.48xlarge", "nodes": 1}},
        },
        "cluster.kubeconfig: there is no file nowhere/config; name the kubeconfig that holds the cluster's context",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_comes_before_anything_is_registered(name: str) -> None:
    changes, message = REFUSALS[name]
    settings = dev_with(changes)
    # As the CLI sees it: an error that it prints as it is, without a traceback.
    with pytest.raises(pulumi.RunError) as refused:
        in_harness(settings)
    assert str(refused.value) == message
    # As the rehearsal sees it.
    world = UnknowingWorld()
    engine = InProcessEngine(ROOT, "test", settings, world)
    with pytest.raises(RehearsalError) as rehearsed:
        engine.preview()
    assert str(rehearsed.value) == message
    assert (world.asked, engine.created) == ([], [])


# --- configuration ---------------------------------------------------------------------------------------------------


def test_configuration_as_the_cli_hands_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one variable of the environment, structured values as JSON in text."""
    settings = settings_of("dev")
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    plans: list[Plan] = []

    def loads() -> None:
        set_all_config({})
        monkeypatch.setenv("PULUMI_CONFIG", json.dumps(text))
        plans.append(load_plan())

    run(loads)
    assert plans == [plan_of(settings, "test")]


def test_the_program_only_composes() -> None:
    assert len((ROOT / "__main__.py").read_text().splitlines()) <= 35


if __name__ == "__main__":
    renew()
