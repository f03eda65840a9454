"""The policy pack under the real Pulumi CLI: previews of a stack on an existing cluster with something hand-written beside it.

Skipped, with the reason in the summary, where the Kubernetes provider's plugin is not on PATH.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from rehearsal.policy_environment import policy_environment
from tests.engine.conftest import Project

pytestmark = pytest.mark.skipif(
    shutil.which("pulumi-resource-kubernetes") is None, reason="no pulumi-resource-kubernetes on PATH"
)

STACK = "mine"
PREVIEW = ("preview", "--stack", STACK, "--policy-pack", "policy")

BY_HAND = """

import pulumi_kubernetes as k8s

k8s.apps.v1.Deployment(
    "by-hand",
    metadata={"name": "by-hand", "namespace": "default"},
    spec={
        "selector": {"match_labels": {"app": "by-hand"}},
        "template": {
            "metadata": {"labels": {"app": "by-hand"}},
            "spec": {
                "node_selector": {"node.kubernetes.io/instance-type": "p5en.48xlarge"},
                "containers": [
                    {
                        "name": "vllm",
                        "image": "vllm/vllm-openai@DIGEST",
                        "command": ["vllm", "serve", "zai-org/GLM-5.2", "--tensor-parallel-size", "8"],
                        "env": [{"name": "SETTING", "value": VALUE}],
                        "resources": {"limits": {"nvidia.com/gpu": "8"}},
                    }
                ],
            },
        },
    },
    opts=pulumi.ResourceOptions(provider=k8s.Provider("by-hand", render_yaml_to_directory="rendered")),
)
"""
DIGEST = "sha256:c1c9f6fd5c109ba7f0546a59f5b2f15fb87f64c77782e90a27b648b42a8e67c3"
AT_LEAST = "fit: minFullLengthRequests: Must be greater than or equal to"
ARITHMETIC = (
    "container vllm: BF16 needs 176.2 GiB of weights on each GPU of one 8xH200 node; at gpu_memory_utilization 0.92 vLLM has "
    "128.6 of 139.8 GiB: 47.6 GiB short before 9.7 GiB of overhead and any KV cache. To do: use precision fp8 or nvfp4, "
    "16 GPUs on two nodes, or an 8xB300 pool"
)


@pytest.fixture
def stack(project: Project) -> Project:
    """The project with a stack on a cluster that does not answer, which a preview does not ask."""
    context = {"name": "mine", "context": {"cluster": "c", "user": "u"}}
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": users}
    file = project.folder.parent / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig), encoding="utf-8")
    config = {
        "glm-on-gpus:cluster": {"kind": "existing", "context": "mine", "kubeconfig": str(file)},
        "glm-on-gpus:nodePools": {"h200": {"instanceType": "p5en.48xlarge", "nodes": 1}},
        "glm-on-gpus:workloads": {
            "glm": {"nodePool": "h200", "precision": "fp8", "replicas": 1, "maxModelLen": 131072}
        },
    }
    (project.folder / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": config}), encoding="utf-8")
    project.succeed("stack", "init", STACK)
    return project


@pytest.fixture
def installed(stack: Project, progress: Callable[[str], None]) -> Project:
    """The stack, and what `make policy` installs."""
    (stack.folder / "policy" / ".venv").symlink_to(policy_environment(progress))
    return stack


def write_by_hand(project: Project, value: str) -> None:
    program = project.folder / "__main__.py"
    text = BY_HAND.replace("DIGEST", DIGEST).replace("VALUE", value)
    program.write_text(program.read_text(encoding="utf-8") + text, encoding="utf-8")


def configured(folder: Path, config: Mapping[str, object]) -> str:
    file = folder / "policy-config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return str(file)


def test_the_stack_itself_passes(installed: Project) -> None:
    said = installed.succeed(*PREVIEW)
    assert "✅ glm-on-gpus@v0.1.0" in said
    assert "[mandatory]" not in said


def test_what_is_written_by_hand_is_refused_with_the_arithmetic(installed: Project) -> None:
    write_by_hand(installed, "'x'")
    assert "by-hand" in installed.succeed("preview", "--stack", STACK)  # nothing else refuses it
    result = installed.pulumi(*PREVIEW)
    assert result.returncode != 0
    assert "[mandatory] [severity: critical]  bf16-one-node  (kubernetes:apps/v1:Deployment: by-hand)" in result.stdout
    assert ARITHMETIC in result.stdout
    assert "[mandatory] [severity: critical]  model-revision" in result.stdout


@pytest.mark.parametrize("level", ["disabled", "advisory"])
def test_what_is_locked_is_refused_whatever_is_configured(installed: Project, level: str) -> None:
    write_by_hand(installed, "'x'")
    config = configured(installed.folder, {"all": level, "bf16-one-node": level})
    result = installed.pulumi(*PREVIEW, "--policy-pack-config", config)
    assert result.returncode != 0
    assert ARITHMETIC in result.stdout
    assert ("[advisory] [severity: high]  h200-len" in result.stdout) is (level == "advisory")
    assert "[mandatory] [severity: high]" not in result.stdout


def test_a_secret_is_not_told(installed: Project) -> None:
    write_by_hand(installed, "pulumi.Output.secret('hunter2')")
    result = installed.pulumi(*PREVIEW)
    assert result.returncode != 0
    assert "bf16-one-node" in result.stdout
    assert "the object holds a secret value" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


def test_the_cli_installs_the_pack_itself(stack: Project) -> None:
    stack.succeed("install", "--cwd", "policy")
    assert "✅ glm-on-gpus@v0.1.0" in stack.succeed(*PREVIEW)


def test_a_stricter_parameter_refuses_what_the_table_passes(installed: Project) -> None:
    config = configured(installed.folder, {"fit": {"minFullLengthRequests": 5}})
    result = installed.pulumi(*PREVIEW, "--policy-pack-config", config)
    assert result.returncode != 0
    assert "[mandatory] [severity: high]  fit  (glm-on-gpus:vllm_workload:VllmWorkload: glm)" in result.stdout
    assert "each of 5 requests of 131,072 tokens needs 6.68 GiB of KV cache on each GPU" in result.stdout


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        pytest.param({"fit": {"minFullLengthRequests": 0}}, f"{AT_LEAST} 1", id="fewer-than-the-table"),
        pytest.param(
            {"mnbt-h200": {"maxNumBatchedTokens": 20000}},
            "mnbt-h200: maxNumBatchedTokens: Must be less than or equal to 16384",
            id="more-than-the-table",
        ),
        pytest.param(
            {"fit": {"minFullLengthRequests": "two"}},
            "fit: minFullLengthRequests: Invalid type. Expected: integer, given: string",
            id="type",
        ),
        pytest.param(
            {"engine-too-old": {"minRelease": "latest"}},
            "engine-too-old: minRelease: Does not match pattern",
            id="release",
        ),
        pytest.param(
            {"fit": {"requests": 2}},
            "fit: no parameter 'requests'; allowed are enforcementLevel or minFullLengthRequests",
            id="parameter-that-does-not-exist",
        ),
        pytest.param({"fitt": "mandatory"}, "has no policy 'fitt'; did you mean fit?", id="policy-that-does-not-exist"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(installed: Project, config: dict[str, object], sentence: str) -> None:
    result = installed.pulumi(*PREVIEW, "--policy-pack-config", configured(installed.folder, config))
    assert result.returncode != 0
    assert sentence in result.stdout + result.stderr
