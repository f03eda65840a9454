"""An upgrade of a stack that serves: a good one goes through, a bad one stops at its first pod, and clients notice neither."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehearsal.groups.names import WORKER_INDEX
from rehearsal.resource import NotReadyError, RehearsalError, Step
from rehearsal.run import ROOT, Rehearsal, load, opened, policy_pack, started, tell_plan
from rehearsal.timeline import Timeline
from rehearsal.vllm.faults import FAULTS, Fault
from serving.plan import Plan, WorkloadPlan
from serving.report import rollout
from serving.spelling import InputError, listed

if TYPE_CHECKING:
    from rehearsal.client import Tally

_Settings = Mapping[str, Any]

_WORDS = 300  # of a failure in the verdict; the timeline has them all


def rehearse_upgrade(
    stack: str, changes: Sequence[str], *, fault: Fault | None = None, timeline: Timeline | None = None
) -> None:
    """Rehearse a stack, its upgrade to changed settings, and with a fault the way back; raise `RehearsalError` if it fails.

    Without changes every workload gets an image of another digest. A fault belongs to the new image.
    """
    from rehearsal.kubelet.programs import StandIns  # noqa: PLC0415 (after the first line)

    timeline = timeline or Timeline()
    before, settings = load(stack, (), ROOT)
    changes = list(changes) or [f"workloads.{name}.image={_other_image(row)}" for name, row in before.workloads.items()]
    after, new_settings = load(stack, changes, ROOT)
    servers = StandIns()
    if fault is not None:
        servers.faults |= dict.fromkeys(_new_images(before, after, fault), fault)
    tell_plan(before, timeline)
    timeline.tell("upgrade", f"will be: {', '.join(changes)}")
    with (
        started(timeline) as plane,
        opened(before, settings, plane, timeline, servers, pack=policy_pack(before, plane, timeline)) as rehearsal,
    ):
        rehearsal.preview()
        rehearsal.update()
        upgrade = Upgrade(rehearsal, timeline)
        with upgrade.watched():
            if fault is None:
                upgrade.go_through(after, new_settings)
            else:
                timeline.tell("upgrade", f"the new image has the fault {fault.value}: {FAULTS[fault].effect}")
                upgrade.stop_and_go_back(fault, after, new_settings, before, settings)
        rehearsal.tear_down()
    how = "stopped at its first pod and went back" if fault else "went through"
    timeline.verdict(f"the upgrade of stack {stack} {how}", passed=True, rows=rehearsal.proof)


def _other_image(row: WorkloadPlan) -> str:
    """Return an image that nobody has built: the engine's repository at another digest."""
    digest = hashlib.sha256(row.image.encode()).hexdigest()
    return f"{row.image.partition('@')[0]}@sha256:{digest}"


def _new_images(before: Plan, after: Plan, fault: Fault) -> list[str]:
    old = {row.image for row in before.workloads.values()}
    new = [row.image for row in after.workloads.values() if row.image not in old]
    if not new:
        name = next(iter(after.workloads), "NAME")
        raise InputError(
            f"--serving-fault {fault.value}: a fault belongs to an image, and the upgrade changes none; leave --set out, or add "
            f"--set workloads.{name}.image=REPOSITORY@sha256:DIGEST"
        )
    return new


@dataclass
class Upgrade:
    """The upgrade of a rehearsal that is up, with a client for each workload."""

    rehearsal: Rehearsal
    timeline: Timeline
    _tallies: dict[str, Tally] = field(default_factory=dict)

    @contextmanager
    def watched(self) -> Generator[None]:
        """Let clients ask all the time; at the end none of their requests may have failed."""
        from rehearsal.client import Client  # noqa: PLC0415 (loads the gate's prompts)

        world, kubelet = self.rehearsal.world, self.rehearsal.kubelet
        before = self.rehearsal.plan
        with ExitStack() as clients:
            for name, row in self.rehearsal.plan.workloads.items():
                client = Client(
                    world.cluster,
                    kubelet.reach,
                    namespace=row.namespace,
                    service=row.name,
                    model=row.checkpoint.served_name,
                )
                self._tallies[name] = clients.enter_context(client.asking())
                self.timeline.tell("client", f"asks the ready pods of Service {row.namespace}/{row.name} from here on")
            yield
        for name, tally in self._tallies.items():
            self.timeline.tell("client", f"{name}: {tally}")
            self._check(before.workloads[name], self.rehearsal.plan.workloads[name], tally)
            self.rehearsal.proof.append((f"client of {name}", str(tally)))

    def go_through(self, after: Plan, settings: _Settings) -> None:
        """Upgrade."""
        self._begin(after, settings)
        started = self.timeline.seconds
        self.rehearsal.engine.up()
        took = self.timeline.seconds - started
        self.timeline.tell("upgrade", f"done in {took:.1f} s")
        self.rehearsal.proof.append(("upgrade", "every new pod passed its gate, and no old one is left"))

    def stop_and_go_back(
        self, fault: Fault, after: Plan, settings: _Settings, before: Plan, old_settings: _Settings
    ) -> None:
        """Upgrade, see it fail by the fault at the first pod of each workload while the others serve, and go back."""
        self._begin(after, settings)
        try:
            self.rehearsal.engine.up()
        except NotReadyError as error:
            words = str(error)
        else:
            raise RehearsalError("the upgrade went through: the gate has let the fault pass")
        self.timeline.tell("upgrade", f"fails: {words}")
        if not _is_named(fault, words):
            raise RehearsalError(f"the upgrade failed, and not by {listed(FAULTS[fault].caught_by)}: {words}")
        self.rehearsal.proof.append(("upgrade", f"failed as it should: {_shortened(words, _WORDS)}"))
        for row in after.workloads.values():
            self._check_stopped(row)
        self._begin(before, old_settings)
        self.rehearsal.engine.up()
        self.timeline.tell("upgrade", "is undone, the stack is as it was")
        self.rehearsal.proof.append(("way back", "the old settings were applied again, every pod is ready"))

    def _begin(self, plan: Plan, settings: _Settings) -> None:
        before = self.rehearsal.plan.workloads
        steps = self.rehearsal.change(plan, settings)
        if not steps:
            raise RehearsalError("the upgrade changes nothing")
        self.timeline.tell("upgrade", f"{_counted(steps)}: {', '.join(step.resource.name for step in steps)}")
        for name, row in plan.workloads.items():
            how = rollout(row) if before[name].replicas else "has no pod to replace"
            self.timeline.tell("upgrade", f"{name}: {how}")

    def _check_stopped(self, row: WorkloadPlan) -> None:
        """Raise if more than one pod of the new image was begun, or fewer pods serve than the rollout allows."""
        pods = self.rehearsal.world.cluster.list(
            "v1", "Pod", row.namespace, label_selector=f"app.kubernetes.io/instance={row.name}"
        )
        if row.kind == "LeaderWorkerSet":  # a group counts by its first pod
            pods = [pod for pod in pods if pod["metadata"]["labels"].get(WORKER_INDEX) == "0"]
        new = [pod for pod in pods if any(container["image"] == row.image for container in pod["spec"]["containers"])]
        ready = [pod for pod in pods if _is_ready(pod)]
        least = row.replicas - row.rollout.max_unavailable
        if len(new) > 1 or len(ready) < least:
            raise RehearsalError(
                f"workload {row.name}: the rollout stopped with {len(new)} new pods and {len(ready)} that serve; expected one "
                f"and at least {least}"
            )

    def _check(self, before: WorkloadPlan, row: WorkloadPlan, tally: Tally) -> None:
        """Raise if users would have noticed more than the plan says."""
        if tally.failed:
            raise RehearsalError(f"workload {row.name}: {tally}: {'; '.join(tally.failures)}")
        serves_throughout = before.replicas and row.replicas and not row.rollout.stops_serving_seconds
        if tally.unserved and serves_throughout:
            raise RehearsalError(f"workload {row.name}: {tally}, though the plan says that some replica always serves")


def _is_named(fault: Fault, words: str) -> bool:
    """Whether a failure's words name a check that is there to catch the fault, if one is."""
    checks = FAULTS[fault].caught_by
    return not checks or any(f" {check} failed: " in words for check in checks)


def _counted(steps: Sequence[Step]) -> str:
    counts = {name: sum(step.operation == name for step in steps) for name in ("create", "update", "delete")}
    return ", ".join(f"{count} to {name}" for name, count in counts.items() if count)


def _shortened(text: str, length: int) -> str:
    """Return a text's beginning."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)
