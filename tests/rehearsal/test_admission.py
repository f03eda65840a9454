"""Admission policies on the real API server: every write that could bring a bad pod, and those that must never fail."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from rehearsal.control_plane import ControlPlane
from rehearsal.run import render
from tests.fixtures.manifests import in_kind
from tests.fixtures.rule_cases import UNKNOWN_IMAGE, image, on_b200, on_h200
from tests.fixtures.stacks import EXAMPLES
from tests.rehearsal.admission import Object, Server, policies_of

KINDS = (
    "Pod",
    "ReplicationController",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "LeaderWorkerSet",
)
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)

NODE_DISK = {"name": "node-disk", "hostPath": {"path": "/mnt/k8s-disks/0", "type": "Directory"}}


def pod(command: tuple[str, ...] = on_h200(), **container: Any) -> Object:
    """A pod spec that every policy admits, unless its container is told otherwise."""
    engine = {
        "name": "vllm",
        "image": image("0.31.0"),
        "command": list(command),
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
        **container,
    }
    return {
        "automountServiceAccountToken": False,
        "nodeSelector": {"accelerator.nvidia.com/class": "h200-8gpu"},
        "containers": [engine],
        "volumes": [NODE_DISK],
    }


BAD: Mapping[str, Object] = {
    "image-digest": pod(image="vllm/vllm-openai:v0.31.0"),
    "model-revision": pod(on_h200(revision="main")),
    "bf16-one-node": pod(on_h200("zai-org/GLM-5.2")),
    "dev-mode": pod(env=[{"name": "VLLM_SERVER_DEV_MODE", "value": "1"}]),
    "host-path": {**pod(), "volumes": [{"name": "root", "hostPath": {"path": "/var/lib/models", "type": "Directory"}}]},
}
EVERY_RULE = pytest.mark.parametrize("rule", BAD)

# Known to no API server by itself; the policies name its group all the same.
LEADER_WORKER_SETS: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "leaderworkersets.leaderworkerset.x-k8s.io"},
    "spec": {
        "group": "leaderworkerset.x-k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "leaderworkersets", "singular": "leaderworkerset", "kind": "LeaderWorkerSet"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                    }
                },
            }
        ],
    },
}


# What was there before the policies, all of it refused now: one of each kind for each test.
SCALABLE = ("Deployment", "ReplicaSet", "StatefulSet")
OLDER = (
    ("Pod", "debugged"),
    ("Pod", "relabelled"),
    ("Deployment", "relabelled"),
    ("Deployment", "changed"),
    *((kind, "scaled") for kind in SCALABLE),
    *((kind, "deleted") for kind in ("Pod", *SCALABLE)),
)


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which bad objects were there before the policies were."""
    server = Server(control_plane, tmp_path_factory.mktemp("server"))
    for kind, name in OLDER:
        server.cluster.create(server.placed({**in_kind(kind, BAD["image-digest"]), "metadata": {"name": name}}))
    # Installed before the kind exists: a policy that names an API nobody serves must not break.
    production = policies_of("dev")
    server.install({row.rule: row for row in production}, production[0].binding["spec"]["matchResources"])
    server.cluster.apply(LEADER_WORKER_SETS, "the LeaderWorkerSet API")
    server.cluster.wait(
        lambda: served(server, "leaderworkerset.x-k8s.io", "v1"), "the LeaderWorkerSet API is not served"
    )
    yield server
    server.cluster.delete(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", LEADER_WORKER_SETS["metadata"]["name"], None, ""
    )
    server.close()


def served(server: Server, group: str, version: str) -> bool:
    try:
        return bool(client.CustomObjectsApi(server.client).get_api_resources(group, version).resources)
    except ApiException:
        return False


def said(rule: str, refusal: str | None, server: Server) -> str:
    """What a refusal says, which must be the rule's policy's."""
    assert refusal is not None
    start = f"ValidatingAdmissionPolicy '{rule}.{server.namespace}' with binding '{rule}.{server.namespace}' denied request: "
    assert start in refusal, refusal
    return refusal.partition(start)[2]


# --- what is refused -------------------------------------------------------------------------------------------------


@EVERY_KIND
def test_a_good_pod_is_admitted_in_every_kind(server: Server, kind: str) -> None:
    assert server.refusal(in_kind(kind, pod())) is None


@EVERY_RULE
@EVERY_KIND
def test_a_bad_pod_is_refused_in_every_kind(server: Server, kind: str, rule: str) -> None:
    culprit = "hostPath /var/lib/models" if rule == "host-path" else "container vllm:"
    assert said(rule, server.refusal(in_kind(kind, BAD[rule])), server).startswith(f"{rule}: {culprit} ")


@EVERY_RULE
def test_a_bad_leader_is_refused_beside_good_workers(server: Server, rule: str) -> None:
    group = in_kind("LeaderWorkerSet", pod())
    group["spec"]["leaderWorkerTemplate"]["leaderTemplate"] = {"spec": BAD[rule]}
    said(rule, server.refusal(group), server)


MESSAGES = {
    "image-digest": "image-digest: container vllm: image 'vllm/vllm-openai:v0.31.0' is not pinned by digest "
    "(repository@sha256: and 64 hexadecimal digits). To do: name the image as repository@sha256:….",
    "bf16-one-node": "bf16-one-node: container vllm: BF16 needs 178.8 GiB of weights on each GPU of one 8xH200 node; "
    "at gpu_memory_utilization 0.92 vLLM has 128.6 of 139.8 GiB: 50.1 GiB short before at least 7.1 GiB of overhead and any KV "
    "cache. To do: use precision fp8 or nvfp4, 16 GPUs on two nodes, or an 8xB300 pool.",
}


@pytest.mark.parametrize("rule", MESSAGES)
def test_a_refusal_says_why_and_what_to_do(server: Server, rule: str) -> None:
    assert said(rule, server.refusal(in_kind("Deployment", BAD[rule])), server) == MESSAGES[rule]


def test_a_refusal_is_one_of_permission_in_one_line(server: Server) -> None:
    with pytest.raises(ApiException) as refused:
        server.apps.create_namespaced_deployment(server.namespace, in_kind("Deployment", BAD["model-revision"]))
    assert refused.value.status == 403
    assert "\\n" not in str(refused.value.body)


def test_every_bad_container_is_named(server: Server) -> None:
    spec = pod(on_h200(revision="main"))
    spec["initContainers"] = [{**spec["containers"][0], "name": "first", "command": list(on_h200(revision=None))}]
    message = said("model-revision", server.refusal(in_kind("Pod", spec)), server)
    assert "container first: no revision is given for" in message
    assert "; container vllm: revision 'main' is not a commit for" in message


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        ({"app.kubernetes.io/version": "0.31.0"}, True),
        ({"app.kubernetes.io/version": "9.9.9"}, False),
        ({"app.kubernetes.io/version": ""}, False),
        ({"version": "0.31.0"}, False),
    ],
)
@EVERY_KIND
def test_an_image_of_ones_own_is_judged_by_the_release_that_its_pod_states(
    server: Server, kind: str, labels: Object, known: bool
) -> None:
    spec = pod(on_b200("zai-org/GLM-5.2"), image=UNKNOWN_IMAGE)
    spec["nodeSelector"] = {"accelerator.nvidia.com/class": "b300-8gpu"}
    refusal = server.refusal(in_kind(kind, spec, labels))
    if known:
        assert refusal is None
    else:
        why = f"container vllm: the catalogue does not know the vLLM release behind image {UNKNOWN_IMAGE}. To do: "
        assert said("bf16-one-node", refusal, server).startswith(f"bf16-one-node: {why}")


def test_the_labels_of_an_object_say_nothing_of_the_pods_that_it_makes(server: Server) -> None:
    spec = pod(on_b200("zai-org/GLM-5.2"), image=UNKNOWN_IMAGE)
    spec["nodeSelector"] = {"accelerator.nvidia.com/class": "b300-8gpu"}
    body = in_kind("Deployment", spec)
    body["metadata"]["labels"] = {"app.kubernetes.io/version": "0.31.0"}
    said("bf16-one-node", server.refusal(body), server)


# --- updates ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def deployment(server: Server) -> Iterator[Object]:
    """A good Deployment that exists, with no replica."""
    body = server.placed({**in_kind("Deployment", pod()), "metadata": {"name": "updated"}})
    yield server.cluster.apply(body, "updated")
    server.cluster.delete("apps/v1", "Deployment", "updated", server.namespace, "updated")


def unpinned(body: Object) -> Object:
    body = copy.deepcopy(body)
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "vllm/vllm-openai:latest"
    return body


def replace(server: Server, body: Object) -> None:
    body["metadata"].pop("resourceVersion")  # the controller writes to it meanwhile
    server.apps.replace_namespaced_deployment("updated", server.namespace, body)


def apply(server: Server, body: Object) -> None:
    body["metadata"] = {key: body["metadata"][key] for key in ("name", "namespace")}
    server.cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", **body}, "updated")


def patch(content_type: str, make: Callable[[str], Any]) -> Callable[[Server, Object], None]:
    """A patch of the image, as `kubectl patch` and `kubectl set image` send it."""

    def send(server: Server, body: Object) -> None:
        image = body["spec"]["template"]["spec"]["containers"][0]["image"]
        server.apps.patch_namespaced_deployment("updated", server.namespace, make(image), _content_type=content_type)

    return send


def image_of_container(image: str) -> Object:
    return {"spec": {"template": {"spec": {"containers": [{"name": "vllm", "image": image}]}}}}


UPDATES: Mapping[str, Callable[[Server, Object], None]] = {
    "replace": replace,
    "apply": apply,
    "strategic-patch": patch("application/strategic-merge-patch+json", image_of_container),
    "merge-patch": patch(
        "application/merge-patch+json",
        lambda image: {"spec": {"template": {"spec": {"containers": [{**pod()["containers"][0], "image": image}]}}}},
    ),
    "json-patch": patch(
        "application/json-patch+json",
        lambda image: [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}],
    ),
}


@pytest.mark.parametrize("way", UPDATES)
def test_an_update_of_the_template_is_judged(server: Server, deployment: Object, way: str) -> None:
    deployment["metadata"].pop("managedFields", None)
    UPDATES[way](server, copy.deepcopy(deployment))
    with pytest.raises(Exception, match="is not pinned by digest"):
        UPDATES[way](server, unpinned(deployment))


def test_an_image_of_a_pod_is_judged(server: Server) -> None:
    server.cluster.create(server.placed({**in_kind("Pod", pod()), "metadata": {"name": "patched"}}))
    with pytest.raises(ApiException, match="is not pinned by digest"):
        server.core.patch_namespaced_pod(
            "patched", server.namespace, {"spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai"}]}}
        )
    server.core.delete_namespaced_pod("patched", server.namespace, grace_period_seconds=0)


# --- ephemeral containers --------------------------------------------------------------------------------------------


def debug(server: Server, name: str, **container: Any) -> None:
    """What `kubectl debug` sends."""
    body = {"spec": {"ephemeralContainers": [{"name": "debug", **container}]}}
    server.core.patch_namespaced_pod_ephemeralcontainers(name, server.namespace, body, dry_run="All")


@pytest.fixture
def serving(server: Server) -> Iterator[str]:
    server.cluster.create(server.placed({**in_kind("Pod", pod()), "metadata": {"name": "serving"}}))
    yield "serving"
    server.core.delete_namespaced_pod("serving", server.namespace, grace_period_seconds=0)


def test_vllm_in_an_ephemeral_container_is_judged(server: Server, serving: str) -> None:
    debug(server, serving, image=image("0.31.0"), command=list(on_h200()))
    with pytest.raises(ApiException, match=r"BF16 needs 178\.8 GiB of weights"):
        debug(server, serving, image=image("0.31.0"), command=list(on_h200("zai-org/GLM-5.2")))
    with pytest.raises(ApiException, match="container debug: image 'vllm/vllm-openai' is not pinned by digest"):
        debug(server, serving, image="vllm/vllm-openai", args=list(on_h200()[2:]))


def test_a_pod_can_be_debugged_whatever_it_is(server: Server, serving: str) -> None:
    for name in (serving, "debugged"):
        debug(server, name, image="busybox", command=["sh"])


# --- what was there before -------------------------------------------------------------------------------------------


def test_what_was_there_before_can_be_relabelled_and_finalised(server: Server) -> None:
    for metadata in ({"labels": {"team": "a"}}, {"finalizers": ["example.com/hold"]}, {"finalizers": None}):
        server.core.patch_namespaced_pod("relabelled", server.namespace, {"metadata": metadata})
        server.apps.patch_namespaced_deployment("relabelled", server.namespace, {"metadata": metadata})


def test_a_template_that_was_there_before_is_judged_when_it_changes(server: Server) -> None:

    def change(container: Object) -> None:
        body = {"spec": {"template": {"spec": {"containers": [{"name": "vllm", **container}]}}}}
        server.apps.patch_namespaced_deployment("changed", server.namespace, body, dry_run="All")

    with pytest.raises(ApiException, match="is not pinned by digest"):
        change({"tty": True})
    change({"image": image("0.31.0")})


def test_a_scale_request_shows_no_pod_and_its_pods_are_refused(server: Server) -> None:
    scales = (
        server.apps.patch_namespaced_deployment_scale,
        server.apps.patch_namespaced_replica_set_scale,
        server.apps.patch_namespaced_stateful_set_scale,
    )
    for scale in scales:
        scale("scaled", server.namespace, {"spec": {"replicas": 1}})

    def failure() -> str:
        body = server.apps.read_namespaced_replica_set("scaled", server.namespace)
        return next((row.message for row in body.status.conditions or [] if row.type == "ReplicaFailure"), "")

    server.cluster.wait(lambda: "is not pinned by digest" in failure(), lambda: f"no refusal, but {failure()!r}")
    pods = server.core.list_namespaced_pod(server.namespace).items
    assert [row.metadata.name for row in pods if row.metadata.owner_references] == []
    for scale in scales:
        scale("scaled", server.namespace, {"spec": {"replicas": 0}})


def test_deletion_is_never_refused(server: Server) -> None:
    for kind in SCALABLE:
        # In the foreground: the object is updated, with a finalizer, before it goes.
        server.cluster.delete("apps/v1", kind, "deleted", server.namespace, kind)
    server.core.delete_namespaced_pod("deleted", server.namespace, grace_period_seconds=0)
    server.cluster.wait(lambda: server.cluster.get("v1", "Pod", "deleted", server.namespace) is None, "the pod stays")


# --- what is none of their business ----------------------------------------------------------------------------------


def in_namespace(body: Object, namespace: str) -> Object:
    return {**body, "metadata": {**body["metadata"], "namespace": namespace}}


def test_kube_system_is_left_alone(server: Server) -> None:
    bad = in_kind("DaemonSet", BAD["image-digest"])
    assert server.cluster.refusal(in_namespace(bad, "kube-system")) is None
    said("image-digest", server.cluster.refusal(in_namespace(bad, "default")), server)


# The stack on several nodes needs a kind that no bare API server has: its own test rehearses it.
@pytest.mark.parametrize("stack", ["dev", "prod", *sorted({*EXAMPLES} - {"h200-bf16-two-nodes"})])
def test_a_stack_is_admitted_by_its_own_policies(server: Server, stack: str) -> None:
    for body in render(stack, (), pytest.fail):
        namespaced = "namespace" in body["metadata"]
        refusal = server.cluster.refusal(in_namespace(dict(body), server.namespace) if namespaced else dict(body))
        assert refusal is None, f"{body['kind']} {body['metadata']['name']}"


OTHERS: Mapping[str, Object] = {
    "a-node-exporter": {
        "containers": [{"name": "exporter", "image": "prom/node-exporter:v1", "args": ["--path.rootfs=/host"]}],
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
    },
    "a-client-of-vllm": {
        "containers": [{"name": "curl", "image": "curl:8", "command": ["curl", "http://vllm:8000/health"]}]
    },
    "a-long-script": {
        "containers": [{"name": "script", "image": "bash:5", "command": ["bash", "-c", "true\n" * 100_000]}]
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_pods_of_others_are_not_judged(server: Server, name: str) -> None:
    assert server.refusal(in_kind("Pod", {"automountServiceAccountToken": False, **OTHERS[name]})) is None


def test_a_rehearsal_would_find_a_policy_that_is_left(server: Server) -> None:
    left = server.cluster.everything()
    for rule in BAD:
        assert f"ValidatingAdmissionPolicy {rule}.{server.namespace}" in left
        assert f"ValidatingAdmissionPolicyBinding {rule}.{server.namespace}" in left


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_line_too_long_to_read_is_refused(server: Server) -> None:
    spec = pod(command=("bash", "-c", "vllm serve zai-org/GLM-5.2-FP8 " + "x " * 5_000))
    refusal = server.refusal(in_kind("Pod", spec))
    assert refusal is not None
    assert "cannot be judged: the command is not vllm serve" in refusal


def test_what_is_of_no_expected_type_is_refused(server: Server) -> None:
    # The API server checks the types of its own kinds before; a custom resource may say anything.
    spec = pod()
    spec["containers"][0]["command"] = [8]
    refusal = server.refusal(in_kind("LeaderWorkerSet", spec))
    assert refusal is not None
    assert "no such overload" in refusal
