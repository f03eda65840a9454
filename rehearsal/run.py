"""One rehearsal from plan to proof: preview, update, verdict, teardown."""

from __future__ import annotations

import base64
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rehearsal.engine import InProcessEngine, RehearsalError, Resource
from rehearsal.timeline import Timeline
from serving.config import parse
from serving.plan import Plan, build
from serving.report import refusal
from serving.stack_file import read, stack_file

ROOT = Path(__file__).parent.parent


class PlanRefusedError(Exception):
    """The plan is refused by a rule: nothing was started."""


def load(stack: str, overrides: Sequence[str], folder: Path) -> tuple[Plan, Mapping[str, Any]]:
    """Return a stack's plan and settings; raise `InputError` or `PlanRefusedError`."""
    path = stack_file(stack, folder)
    settings = read(path, overrides)
    plan = build(parse(settings, path.name), stack)
    if plan.violations:
        raise PlanRefusedError(refusal(plan))
    return plan, settings


def rehearse(
    stack: str, overrides: Sequence[str] = (), *, keep: bool = False, timeline: Timeline | None = None
) -> None:
    """Rehearse a stack; raise `RehearsalError` with the resource, the field and the reason if it fails."""
    timeline = timeline or Timeline()
    plan, settings = load(stack, overrides, ROOT)
    timeline.tell("plan", f"stack {stack} is accepted: {_summary(plan)}")
    _Rehearsal(plan, settings, timeline).run(keep=keep)


class _Rehearsal:
    """The parts of one rehearsal and their order."""

    def __init__(self, plan: Plan, settings: Mapping[str, Any], timeline: Timeline) -> None:
        self.plan = plan
        self.settings = settings
        self.timeline = timeline
        self.proof: list[tuple[str, str]] = []

    def run(self, *, keep: bool) -> None:
        # Imported here: building the control plane on a new machine should begin with a line, not with a second of imports.
        from rehearsal.cluster import Cluster  # noqa: PLC0415
        from rehearsal.control_plane import ControlPlane, build_programs  # noqa: PLC0415
        from rehearsal.nodes import SimulatedNodes  # noqa: PLC0415
        from rehearsal.world import RehearsedWorld  # noqa: PLC0415

        tell = self.timeline.tell
        programs = build_programs(lambda line: tell("setup", line))
        control_plane = ControlPlane(programs)
        with ExitStack() as cleanup:
            scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="rehearsal-")))
            cleanup.callback(control_plane.stop)
            control_plane.start()
            tell("setup", f"Kubernetes {_version(programs)} answers: etcd, API server, controllers, scheduler, KWOK")
            cluster = Cluster(control_plane.kubeconfig, scratch, control_plane.check)
            cleanup.callback(cluster.close)
            nodes = SimulatedNodes(cluster, {name: row.timing for name, row in self.plan.workloads.items()}, tell)
            cleanup.callback(nodes.stop)
            nodes.start()
            world = RehearsedWorld(self._aws(control_plane), cluster, nodes, self.plan.region or "", tell)
            engine = InProcessEngine(ROOT, self.plan.stack, self.settings, world)
            before = cluster.everything()
            self._preview(engine)
            outputs = self._update(engine)
            if keep:
                path = control_plane.keep()
                self._say_kept(path, outputs)
                return
            self._tear_down(engine, world, before)
        self._prove_nothing_runs(control_plane.leftovers())
        self.timeline.verdict(f"stack {self.plan.stack} is rehearsed", passed=True, rows=self.proof)

    def _aws(self, control_plane: Any) -> Any:
        from rehearsal.aws import AwsStandIn  # noqa: PLC0415 (loads botocore)

        authority = base64.b64encode(control_plane.certificate_authority).decode()
        return AwsStandIn(self.plan.region or "", cluster_endpoint=control_plane.server, cluster_ca=authority)

    def _preview(self, engine: InProcessEngine) -> None:
        resources = engine.preview()
        self.timeline.tell("preview", f"{_counted(resources)} to create")
        self.proof.append(("preview", "every AWS request is valid, with outputs unknown as on a new stack"))

    def _update(self, engine: InProcessEngine) -> Mapping[str, Any]:
        started = self.timeline.seconds
        outputs = engine.up()
        took = self.timeline.seconds - started
        number = _number(engine)
        self.timeline.tell("update", f"{number} resources created in {took:.1f} s")
        self.proof.append(("update", f"{number} resources created in dependency order"))
        for name, row in self.plan.workloads.items():
            ready = f"{row.replicas} of {row.replicas} replicas ready at {outputs.get('endpoints', {}).get(name)}"
            self.proof.append((f"workload {name}", ready))
        return outputs

    def _tear_down(self, engine: InProcessEngine, world: Any, before: set[str]) -> None:
        number = _number(engine)
        for resource in world.aws.lift_deletion_protection():
            self.timeline.tell("teardown", f"deletion protection of {resource} is switched off, as before any destroy")
        engine.destroy()
        left = [*world.aws.remaining(), *sorted(world.cluster.everything() - before)]
        if left:
            raise RehearsalError(f"teardown left {len(left)} behind: {', '.join(left[:5])}")
        self.timeline.tell("teardown", f"{number} resources deleted in reverse order, nothing is left")
        self.proof.append(
            ("teardown", f"{number} resources deleted; AWS, the cluster and this machine hold nothing of them")
        )

    def _prove_nothing_runs(self, left: list[str]) -> None:
        if left:
            raise RehearsalError(f"the control plane left behind: {', '.join(left)}")

    def _say_kept(self, kubeconfig: Path, outputs: Mapping[str, Any]) -> None:
        rows = [
            *self.proof,
            ("endpoints", ", ".join(map(str, outputs.get("endpoints", {}).values()))),
            ("use it", f"export KUBECONFIG={kubeconfig}"),
            ("end it", "python -m rehearsal down"),
        ]
        self.timeline.verdict(f"stack {self.plan.stack} is rehearsed and kept", passed=True, rows=rows)


def render(stack: str, overrides: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield every Kubernetes object of a stack as the API server would get it."""
    from rehearsal.rendering import RenderedWorld  # noqa: PLC0415

    plan, settings = load(stack, overrides, ROOT)
    world = RenderedWorld(plan.region or "")
    InProcessEngine(ROOT, stack, settings, world).up()
    yield from world.objects


def _version(programs: Any) -> str:
    return str(getattr(programs, "kubernetes_version", "1.36"))


def _summary(plan: Plan) -> str:
    pools = ", ".join(f"{pool.nodes} x {pool.instance.name}" for pool in plan.node_pools.values())
    cost = plan.cost.hourly_usd
    price = "price unknown" if cost is None else f"{cost:,.2f} USD an hour on demand"
    contexts = ", ".join(
        f"{row.name} {row.memory.full_length_requests:.2f} x {row.max_model_len:,} tokens"
        for row in plan.workloads.values()
    )
    return f"{pools} ({price}); {contexts}"


def _number(engine: InProcessEngine) -> int:
    return sum(not created.resource.component for created in engine.created)


def _counted(resources: Sequence[Resource]) -> str:
    kinds = Counter(resource.type.partition(":")[0] for resource in resources if not resource.component)
    components = sum(resource.component for resource in resources)
    parts = ", ".join(f"{number} {_PACKAGES.get(kind, kind)}" for kind, number in kinds.most_common())
    return f"{kinds.total()} resources in {components} components ({parts})"


_PACKAGES = {"aws": "AWS", "kubernetes": "Kubernetes", "pulumi": "provider"}
