"""Serving facts read back from Kubernetes objects: disguises of one command, what nobody can decide, and garbage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.run import ROOT
from serving.manifest import UNKNOWN, read
from serving.rules import judge, violations
from tests.fixtures.manifests import KINDS
from tests.fixtures.manifests import manifest as manifest_of
from tests.fixtures.one_node import DISGUISES, MODEL, container, deployment
from tests.fixtures.rule_cases import CASES, P5EN, P6_B200, P6_B300, REVISION, RuleCase, on_h200
from tests.fixtures.stacks import load_documents


def refused(manifest: object) -> dict[str, str]:
    found = [violation for reading in read(manifest) for violation in violations(judge(reading.facts))]
    return {violation.rule: violation.message for violation in found}


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize(("machine", "shape"), [(P5EN, "8xH200"), (P6_B200, "8xB200")])
@pytest.mark.parametrize("key", ["containers", "initContainers", "ephemeralContainers"])
def test_bf16_on_one_node_is_refused_however_it_is_written(name: str, machine: str, shape: str, key: str) -> None:
    manifest = deployment(machine=machine, **{key: [DISGUISES[name]]})
    message = refused(manifest)["bf16-one-node"]
    assert re.match(rf"BF16 needs 176\.\d GiB of weights on each GPU of one {shape} node;", message)


def test_bf16_fits_on_b300() -> None:
    words = (
        "vllm",
        "serve",
        MODEL,
        "-tp",
        "8",
        "--max-model-len",
        "131072",
        "--max-num-seqs",
        "32",
        "--revision",
        REVISION,
    )
    assert not {"bf16-one-node", "fit"} & set(refused(deployment(container(*words), machine=P6_B300)))


def test_bf16_fits_two_nodes_of_a_group() -> None:
    words = (
        "--nnodes",
        "$(LWS_GROUP_SIZE)",
        "--node-rank",
        "$(LWS_WORKER_INDEX)",
        "--master-addr",
        "$(LWS_LEADER_ADDRESS)",
    )
    serve = ("vllm", "serve", MODEL, "-tp", "16", "--max-model-len", "131072", "--max-num-seqs", "32", *words)
    template = deployment(container(*serve))["spec"]["template"]
    group = {"size": 2, "leaderTemplate": template, "workerTemplate": template}
    manifest = {"kind": "LeaderWorkerSet", "spec": {"leaderWorkerTemplate": group}}
    backwards = dict(reversed(group.items()))
    assert read(manifest) == read({**manifest, "spec": {"leaderWorkerTemplate": backwards}})
    readings = read(manifest)
    assert [reading.facts.workload for reading in readings] == ["leader container vllm", "worker container vllm"]
    assert {reading.facts.nodes_per_replica for reading in readings} == {2}
    assert not {"bf16-one-node", "fit"} & set(refused(manifest))


SERVE = ("vllm", "serve", "zai-org/GLM-5.2-FP8")
POD_IP = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


LAUNCHED = "it starts vLLM through a program that may change its flags and variables"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (container("python", "serve.py"), "it runs a program that may start vLLM with flags of its own"),
        (container("bash", "/opt/start.sh"), "it runs a shell whose script is not in the manifest"),
        (container("sh", "-c", ". /env; vllm serve m"), "the shell script has another file"),
        (container(image="acme/vllm:1"), "it has no command, and what its image starts is not in the manifest"),
        (
            container(image="acme/vllm:1", args=[*SERVE, "-tp", "8"]),
            "it has no command, and what its image starts is not in the manifest",
        ),
        (container("vllm", "run-batch"), "it runs a part of vLLM whose flags are not read"),
        (container(*SERVE, "-tp"), "vLLM would not read the command: -tp/--tensor-parallel-size lacks its value"),
        ({**container(), "command": UNKNOWN}, "a value of it is known only after the update"),
        (container("env", UNKNOWN, *SERVE), "a value of it is known only after the update"),
        (container(*SERVE, UNKNOWN), "a value of it is known only after the update"),
        (container("/launch", *SERVE), LAUNCHED),
        (container("/launch", "sh", "-c", "vllm serve m"), LAUNCHED),
        (container("nohup", "/launch", *SERVE), LAUNCHED),
        (container("env", "-S", "/launch A=1", *SERVE), LAUNCHED),
        (container("/start", resources=UNKNOWN), "it runs a program that may start vLLM with flags of its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(changed: Mapping[str, Any], why: str) -> None:
    (reading,) = read(deployment(changed))
    assert reading.unreadable is not None
    assert reading.unreadable.replace("--tensor-parallel-size/-tp", "-tp/--tensor-parallel-size") == why
    assert {"bf16-one-node", "fit"} <= set(refused(deployment(changed)))


def test_one_unknown_value_is_refused_where_it_counts() -> None:
    row = {"name": "LEN", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}
    found = refused(deployment(container(*SERVE, "-tp", "8", "--max-model-len", "$(LEN)", env=[row])))
    assert found["fit"] == "cannot be judged: LEN comes from a ConfigMap"
    assert "nvfp4-hopper" not in found


def test_a_value_that_is_not_known_yet_is_refused_where_it_counts() -> None:
    assert refused(deployment(container(*SERVE, "-tp", "8", "--max-model-len", UNKNOWN)))["fit"] == (
        "cannot be judged: a value of it is known only after the update"
    )
    words = (*on_h200(), "--api-key", UNKNOWN)
    assert not {"fit", "bf16-one-node", "model-revision"} & set(refused(deployment(container(*words))))


@pytest.mark.parametrize("volume", [UNKNOWN, {"name": "disk", "hostPath": UNKNOWN}, {"hostPath": {"path": UNKNOWN}}])
def test_a_volume_that_is_not_known_yet_is_refused(volume: object) -> None:
    volumes = UNKNOWN if volume == UNKNOWN else [volume]
    assert refused(deployment(container(*on_h200()), volumes=volumes))["host-path"] == (
        "cannot be judged: volumes: a value of it is known only after the update"
    )


@pytest.mark.parametrize(
    ("manifest", "readings"),
    [
        ({"kind": "Pod", "spec": UNKNOWN}, 1),
        ({"kind": "Deployment", "spec": {"template": UNKNOWN}}, 1),
        ({"kind": "CronJob", "spec": {"jobTemplate": {"spec": UNKNOWN}}}, 1),
        ({"kind": "LeaderWorkerSet", "spec": {"leaderWorkerTemplate": {"leaderTemplate": UNKNOWN}}}, 1),
        ({"kind": "Service", "spec": UNKNOWN}, 0),
        ({"kind": "ConfigMap", "data": UNKNOWN}, 0),
    ],
)
def test_what_holds_pods_is_refused_where_they_are_not_known_yet(manifest: object, readings: int) -> None:
    assert len(read(manifest)) == readings
    assert ("bf16-one-node" in refused(manifest)) is (readings > 0)


@pytest.mark.parametrize(
    ("field", "plain"),
    [
        ("metadata.name", True),
        ("metadata.namespace", True),
        ("metadata.uid", True),
        ("metadata.labels['tier']", True),
        ("spec.nodeName", True),
        ("status.podIP", True),
        ("status.podIPs", True),
        ("status.hostIP", True),
        ("status.hostIPs", True),
        ("metadata.annotations['note']", False),
        ("metadata.annotations", False),
        ("spec.nodeName;x", False),
    ],
)
def test_only_a_field_whose_text_is_plain_leaves_a_shells_words_where_they_are(field: str, plain: bool) -> None:
    row = {"name": "FIELD", "valueFrom": {"fieldRef": {"fieldPath": field}}}
    words = ("sh", "-c", f"{' '.join(SERVE)} -tp 8 --host $(FIELD)")
    (reading,) = read(deployment(container(*words, env=[row])))
    assert (reading.unreadable is None) is plain
    if plain:
        assert reading.facts.tensor_parallel_size == 8


@pytest.mark.parametrize(
    "front",
    [
        ("env", "-i", "-u", "A", "B=/c d", "exec", "nohup"),
        ("numactl", "-N", "0", "--membind=0,1"),
        ("/usr/bin/tini", "-s", "--"),
        ("timeout", "-k", "5", "1h"),
        ("taskset", "-c", "0-31,64-95"),
    ],
)
def test_a_wrapper_that_runs_what_stands_behind_it_is_seen_through(front: tuple[str, ...]) -> None:
    (reading,) = read(deployment(container(*front, *SERVE, "-tp", "8")))
    assert reading.unreadable is None
    assert reading.facts.tensor_parallel_size == 8


def test_a_variable_set_in_front_of_the_command_may_have_a_value_that_nobody_knows() -> None:
    (reading,) = read(deployment(container("env", "VLLM_HOST_IP=$(IP)", *SERVE, env=[POD_IP])))
    assert reading.unreadable is None
    assert reading.facts.variable("VLLM_SERVER_DEV_MODE") is None


GATE = {
    "name": "gate",
    "command": ["python3", "-m", "gate", "--serve", "0.0.0.0:8090"],
    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8090}},
}


@pytest.mark.parametrize(
    ("beside", "gated"),
    [
        ({"containers": [GATE]}, True),
        ({"containers": [{**GATE, "command": ["python3"], "args": ["-m", "gate"]}]}, True),
        ({}, False),
        ({"containers": [{**GATE, "command": ["echo", "gate"]}]}, False),
        ({"containers": [{**GATE, "command": ["python3", "-m", "other", "gate"]}]}, False),
        ({"containers": [{key: value for key, value in GATE.items() if key != "readinessProbe"}]}, False),
        ({"initContainers": [GATE]}, False),
        ({"ephemeralContainers": [GATE]}, False),
    ],
)
def test_a_gate_counts_where_the_pods_readiness_is_its_answer(beside: dict[str, list[Any]], gated: bool) -> None:
    containers = [container(*on_h200()), *beside.get("containers", [])]
    others: dict[str, Any] = {key: rows for key, rows in beside.items() if key != "containers"}
    manifest = deployment(*containers, **others)
    (reading,) = read(manifest)
    assert reading.facts.gated is gated


def test_a_machine_that_is_not_named_is_unknown() -> None:
    assert refused(deployment(container(*SERVE, "-tp", "8"), machine=None))["fit"].startswith(
        "cannot be judged: the pod does not say which machine it runs on"
    )


@pytest.mark.parametrize("command", [("nvidia-smi",), ("sleep", "infinity"), ("sh", "-c", "nvidia-smi && sleep 1")])
def test_what_readably_runs_something_else_is_no_serving_container(command: tuple[str, ...]) -> None:
    assert read(deployment(container(*command))) == []


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_stacks_own_objects_pass(stack: str) -> None:
    objects = load_documents((ROOT / "tests" / "graph" / "golden" / f"{stack}.yaml").read_text(encoding="utf-8"))
    readings = [reading for item in objects for reading in read(item)]
    assert [reading.facts.workload for reading in readings] == ["container vllm"]
    assert all(reading.facts.gated for reading in readings)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_a_workload_is_read_from_an_object_as_it_is(case: RuleCase) -> None:
    kind = KINDS[CASES.index(case) % len(KINDS)]
    (reading,) = read(manifest_of(case, kind))
    assert [verdict.outcome for verdict in judge(reading.facts)] == [verdict.outcome for verdict in judge(case.facts)]


def test_secrets_stay_out_of_every_text() -> None:
    rows = [{"name": name, "value": "hunter2"} for name in ("HF_TOKEN", "API_KEY", "LEN", "EXTRA")]
    words = ("--api-key", "$(API_KEY)", "--max-model-len", "$(LEN)", "--revision", "$(HF_TOKEN)", "$(EXTRA)")
    for count in range(len(words) + 1):
        manifest = deployment(container(*SERVE, *words[:count], env=rows))
        texts = [*refused(manifest).values(), *(str(reading.unreadable) for reading in read(manifest))]
        assert texts
        assert not [text for text in texts if "hunter2" in text]


KEYS = (
    *("spec", "template", "containers", "command", "args", "env", "name", "value", "valueFrom", "image", "size"),
    *("resources", "limits", "volumes", "emptyDir", "nodeSelector", "affinity", "leaderWorkerTemplate"),
)
WORDS = (UNKNOWN, "vllm", "serve", "-tp", "sh", "-c")
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@given(JSON)
def test_any_object_is_read(manifest: object) -> None:
    for reading in read({"spec": manifest}):
        assert judge(reading.facts)
