from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.existing_cluster import ExistingCluster
from serving.config import ExistingClusterConfig
from tests.graph.harness import Run, run

DOCUMENT: Mapping[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {},
    "current-context": "staging",
    "clusters": [
        {"name": "gpu", "cluster": {"server": "https://gpu.example:6443", "certificate-authority": "pki/ca.crt"}},
        {"name": "other", "cluster": {"server": "https://other.example:6443"}},
    ],
    "users": [
        {"name": "admin", "user": {"client-certificate": "pki/admin.crt", "client-key-data": "a2V5"}},
        {"name": "guest", "user": {"token": "guest-token"}},
    ],
    "contexts": [
        {"name": "gpu-prod", "context": {"cluster": "gpu", "user": "admin", "namespace": "serving"}},
        {"name": "staging", "context": {"cluster": "other", "user": "guest"}},
        {"name": "half", "context": {"cluster": "gpus", "user": "admin"}},
        {"name": "nobody", "context": {"cluster": "other", "user": "gast"}},
    ],
}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "ca.crt").write_bytes(b"authority")
    (tmp_path / "pki" / "admin.crt").write_bytes(b"certificate")
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(dict(DOCUMENT)))
    return file


def existing(file: Path | str, context: str, *, preview: bool = False) -> Run:
    config = ExistingClusterConfig.model_validate({"kind": "existing", "context": context, "kubeconfig": str(file)})

    def program() -> dict[str, pulumi.Output[str]]:
        return {"kubeconfig": ExistingCluster("existing", config).kubeconfig}

    return run(program, preview=preview)


def refusal(file: Path | str, context: str) -> str:
    with pytest.raises(pulumi.RunError) as refused:
        existing(file, context)
    return str(refused.value)


def test_urns(kubeconfig: Path) -> None:
    made = "glm-on-gpus:existing_cluster:ExistingCluster"
    assert existing(kubeconfig, "staging").urns == [
        f"{made}$pulumi:providers:kubernetes::existing-provider",
        f"pulumi:pulumi:Stack${made}::existing",
    ]


def test_the_chosen_context_and_no_other(kubeconfig: Path) -> None:
    result = existing(kubeconfig, "gpu-prod")
    exported = result.exports["kubeconfig"]
    assert exported.secret
    assert yaml.safe_load(exported.value) == {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "gpu",
                "cluster": {
                    "server": "https://gpu.example:6443",
                    "certificate-authority-data": base64.b64encode(b"authority").decode(),
                },
            }
        ],
        "users": [
            {
                "name": "admin",
                "user": {
                    "client-certificate-data": base64.b64encode(b"certificate").decode(),
                    "client-key-data": "a2V5",
                },
            }
        ],
        "contexts": [{"name": "gpu-prod", "context": {"cluster": "gpu", "user": "admin", "namespace": "serving"}}],
        "current-context": "gpu-prod",
    }
    assert "guest-token" not in exported.value


@pytest.mark.parametrize("preview", [False, True])
def test_the_provider(kubeconfig: Path, preview: bool) -> None:
    result = existing(kubeconfig, "staging", preview=preview)
    provider = result.one("pulumi:providers:kubernetes")
    assert provider.name == "existing-provider"
    assert provider.secret_inputs == {"kubeconfig"}
    assert provider.inputs == {
        "kubeconfig": result.exports["kubeconfig"].value,
        "clusterIdentifier": "https://other.example:6443",
        "enableServerSideApply": "true",
    }
    component = result.one("glm-on-gpus:existing_cluster:ExistingCluster")
    assert component.inputs == {"context": "staging", "kubeconfigPath": str(kubeconfig)}
    assert set(result.component_outputs[component.urn]) == {"kubeconfig", "server"}


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            "gpu-prd",
            "cluster.context: there is no context 'gpu-prd' in {file}; it has gpu-prod, staging, half or nobody; "
            "did you mean gpu-prod?",
        ),
        (
            "half",
            "cluster.kubeconfig: context 'half' in {file} refers to the cluster 'gpus', which is not there; did you mean gpu?",
        ),
        (
            "nobody",
            "cluster.kubeconfig: context 'nobody' in {file} refers to the user 'gast', which is not there; did you mean guest?",
        ),
    ],
)
def test_contexts_that_cannot_be_used(kubeconfig: Path, context: str, message: str) -> None:
    assert refusal(kubeconfig, context) == message.format(file=kubeconfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("contexts: [", "cluster.kubeconfig: {file} is not YAML (line 1)"),
        ("- a\n- b\n", "cluster.kubeconfig: {file} is not a kubeconfig; expected a map with contexts in it"),
        ("", "cluster.kubeconfig: {file} is not a kubeconfig; expected a map with contexts in it"),
        ("contexts: 7\n", "cluster.context: there is no context 'gpu-prod' in {file}; it has none"),
        ("contexts: [{name: gpu-prod}]\n", "cluster.kubeconfig: context 'gpu-prod' in {file} is empty"),
        (
            "contexts: [{name: gpu-prod, context: {cluster: a, user: b}}]\n"
            "clusters: [{name: a, cluster: {proxy-url: http://p}}]\nusers: [{name: b, user: {token: t}}]\n",
            "cluster.kubeconfig: cluster 'a' in {file} names no server",
        ),
    ],
)
def test_files_that_are_no_kubeconfig(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "config"
    file.write_text(content)
    assert refusal(file, "gpu-prod") == message.format(file=file)


def test_files_that_cannot_be_read(tmp_path: Path, kubeconfig: Path) -> None:
    missing = tmp_path / "nowhere"
    assert refusal(missing, "x") == (
        f"cluster.kubeconfig: there is no file {missing}; name the kubeconfig that holds the cluster's context"
    )
    assert refusal(tmp_path, "x") == f"cluster.kubeconfig: {tmp_path} cannot be read (Is a directory)"
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    assert refusal(binary, "x") == f"cluster.kubeconfig: {binary} cannot be read (it is not text)"
    (tmp_path / "pki" / "ca.crt").unlink()
    assert refusal(kubeconfig, "gpu-prod") == (
        f"cluster.kubeconfig: certificate-authority names {tmp_path / 'pki' / 'ca.crt'}, which cannot be read "
        "(No such file or directory)"
    )


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"tokenFile": "run/token"}, {"tokenFile": "{folder}/run/token"}),
        ({"tokenFile": "/run/token"}, {"tokenFile": "/run/token"}),
        (
            {"exec": {"command": "./bin/login", "args": ["a/b"]}},
            {"exec": {"command": "{folder}/bin/login", "args": ["a/b"]}},
        ),
        ({"exec": {"command": "aws"}}, {"exec": {"command": "aws"}}),
    ],
)
def test_paths_lead_to_the_same_place_from_everywhere(
    tmp_path: Path, user: dict[str, Any], expected: dict[str, Any]
) -> None:
    file = tmp_path / "config"
    file.write_text(
        yaml.safe_dump(
            {
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": "https://k.example"}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    exported = yaml.safe_load(existing(file, "c").exports["kubeconfig"].value)
    assert exported["users"][0]["user"] == json.loads(json.dumps(expected).replace("{folder}", str(tmp_path)))


def test_a_path_may_begin_with_the_home_folder(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(kubeconfig.parent))
    assert existing("~/config", "staging").exports["kubeconfig"].value
