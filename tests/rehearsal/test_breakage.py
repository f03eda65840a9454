"""Break one line of a component, rehearse, and read the message: it must name the resource, the field and the reason.

Each case replaces one piece of a component's source, which must be there exactly once, and runs the real program on the
real control plane.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehearsal.control_plane import ControlPlane
from rehearsal.resource import RehearsalError
from rehearsal.run import ROOT, load, opened
from rehearsal.timeline import Timeline


@dataclass(frozen=True)
class Case:
    name: str
    module: str
    line: str
    broken: str
    message: str
    words: str = ""
    stack: str = "dev"
    overrides: tuple[str, ...] = ()


CASES = [
    Case(
        "gpu-toleration",
        "components.pod_spec",
        '        "tolerations": _tolerations(plan),\n',
        "",
        "kubernetes:apps/v1:Deployment glm-deployment: cannot be scheduled: spec.template.spec.tolerations: the taint "
        "nvidia.com/gpu=present:NoSchedule of node h200-nodes",
    ),
    Case(
        "device-plugin-toleration",
        "components.device_plugin",
        '            {"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"},\n',
        "",
        "kubernetes:apps/v1:DaemonSet device-plugin-daemonset: runs on none of 3 nodes: spec.template.spec.tolerations: "
        "the taint nvidia.com/gpu=present:NoSchedule of node h200-nodes",
    ),
    Case(
        "node-label-of-the-accelerator",
        "components.gpu_node_pool",
        "            labels=dict(pool.labels),\n",
        '            labels={"nvidia.com/gpu.present": "true"},\n',
        "kubernetes:apps/v1:Deployment glm-deployment: cannot be scheduled: spec.template.spec.nodeSelector: asks for "
        "accelerator.nvidia.com/class=h200-8gpu, node h200-nodes",
    ),
    Case(
        "node-label-of-the-plugin",
        "components.gpu_node_pool",
        "            labels=dict(pool.labels),\n",
        '            labels={k: v for k, v in pool.labels.items() if k != "nvidia.com/gpu.present"},\n',
        "kubernetes:apps/v1:DaemonSet device-plugin-daemonset: runs on none of 3 nodes: spec.template.spec.nodeSelector: asks "
        "for nvidia.com/gpu.present=true, node h200-nodes",
    ),
    Case(
        "memory-request",
        "components.pod_spec",
        '"memory": memory, **devices},\n            # A release',
        '"memory": "1900Gi", **devices},\n            # A release',
        # The limit is below the request, which the API server itself refuses with the field.
        "kubernetes:apps/v1:Deployment glm-deployment: spec.template.spec.containers[0].resources.requests: "
        'Invalid value: "1900Gi": must be less than or equal to memory limit of 1702Gi',
    ),
    Case(
        "memory-request-larger-than-the-node",
        "components.pod_spec",
        "    memory = mebibytes(plan.resources.memory_mib)\n",
        '    memory = "2000000Mi"\n',
        "kubernetes:apps/v1:Deployment glm-deployment: cannot be scheduled: "
        "spec.template.spec.containers[].resources.requests.memory: asks for 2000000Mi, node h200-nodes",
    ),
    Case(
        "namespace",
        "components.vllm_workload",
        "        place = namespace.metadata.name\n",
        '        place = "glm-serving"\n',
        'metadata.namespace: namespaces "glm-serving" not found',
    ),
    Case(
        "market-type",
        "components.gpu_node_pool",
        "            instance_market_options=self._market_options(),\n",
        "",
        "aws:ec2/launchTemplate:LaunchTemplate::b200-template: instanceMarketOptions.marketType: not given: market type "
        "(purchasing) option is not valid",
        stack="prod",
    ),
    Case(
        "one-efa-interface-too-many",
        "components.gpu_node_pool",
        "                for slot in self._pool.efa_slots\n            ),\n",
        '                for slot in self._pool.efa_slots\n            ),\n            _interface("efa-only", 1, 1, efa_groups),'
        "\n",
        "aws:ec2/launchTemplate:LaunchTemplate::b200-template: networkInterfaces",
        stack="prod",
        overrides=("nodePools.b200.efa=true", f"cluster.efaPluginImage=plugins.example/efa@sha256:{'e' * 64}"),
    ),
    Case(
        "flag-that-vllm-refuses",
        "components.pod_spec",
        '        "command": list(command),\n',
        '        "command": [word.replace("glm47", "glm99") for word in command],\n',
        "kubernetes:apps/v1:Deployment glm-deployment: pod glm-",
        words="container vllm: KeyError: 'invalid tool call parser: glm99 (chose from { dots,",
    ),
    Case(
        "flag-that-is-left-out",
        "components.pod_spec",
        '        "command": list(command),\n',
        '        "command": [word for word in command if word not in {"--reasoning-parser", "glm45"}],\n',
        "kubernetes:apps/v1:Deployment glm-deployment: pod glm-",
        words="container gate: thinking-on failed: content holds </think>; usual cause: --reasoning-parser is missing",
    ),
    Case(
        "programs-that-are-not-there",
        "components.pod_spec",
        '{"name": "programs", "config_map": {"name": needs.programs, "items": needs.program_files}}',
        '{"name": "programs", "config_map": {"name": "programs", "items": needs.program_files}}',
        'MountVolume.SetUp failed for volume "programs": configmap "programs" not found',
    ),
    Case(
        "tag-instead-of-digest",
        "components.pod_spec",
        '        "name": "vllm",\n        "image": plan.image,\n',
        '        "name": "vllm",\n        "image": "vllm/vllm-openai:v0.31.0",\n',
        "kubernetes:apps/v1:Deployment glm-deployment: spec.template.spec.containers[0].image: rule image-digest: image "
        "'vllm/vllm-openai:v0.31.0' is not pinned by digest",
    ),
]


_IMPORTERS = (
    "components.cluster",
    "components.gpu_node_pool",
    "components.prerequisites",
    "components.replicas",
    "components.vllm_workload",
)  # hold on to what they import


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Case]:
    """Put a broken copy of a component's module where the program will import it."""
    case: Case = request.param
    path = ROOT / Path(*case.module.split(".")).with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    assert source.count(case.line) == 1, f"{case.line!r} is {source.count(case.line)} times in {path.name}"
    spec = importlib.util.spec_from_loader(case.module, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    for name in _IMPORTERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, case.module, module)
    exec(compile(source.replace(case.line, case.broken), str(path), "exec"), module.__dict__)
    yield case
    for name in _IMPORTERS:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("broken", [pytest.param(case, id=case.name) for case in CASES], indirect=True)
def test_a_broken_component_is_named(broken: Case, control_plane: ControlPlane) -> None:
    plan, settings = load(broken.stack, broken.overrides, ROOT)
    with opened(plan, settings, control_plane, Timeline()) as rehearsal:
        try:
            with pytest.raises(RehearsalError) as caught:
                rehearsal.preview()
                rehearsal.update()
        finally:
            rehearsal.world.aws.lift_deletion_protection()
            rehearsal.engine.destroy()
        assert broken.message in str(caught.value)
        assert broken.words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert rehearsal.left() == []
