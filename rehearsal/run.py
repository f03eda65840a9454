"""One rehearsal from plan to proof: preview, update, verdict, teardown."""

from __future__ import annotations

import base64
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rehearsal.engine import InProcessEngine
from rehearsal.resource import RehearsalError, Step
from rehearsal.timeline import Timeline
from serving import catalogue
from serving.admission import admission
from serving.capacity_block import phase_notes
from serving.config import ExistingClusterConfig, parse
from serving.plan import Plan, WorkloadPlan, build
from serving.report import refusal
from serving.stack_file import read, stack_file
from serving.timing import Timing

if TYPE_CHECKING:
    from rehearsal.aws.world import BlockState
    from rehearsal.control_plane import ControlPlane
    from rehearsal.existing_cluster import StandInCluster
    from rehearsal.kubelet.kubelet import Kubelet
    from rehearsal.kubelet.programs import Servers
    from rehearsal.policy_pack import PolicyPack
    from rehearsal.rendering import RenderedWorld
    from rehearsal.world import RehearsedWorld

ROOT = Path(__file__).parent.parent

Serving = Literal["stand-in", "vllm"]
"""What runs in serving pods: the stand-in of vLLM, or the real one on the CPU with a tiny model."""

# How long anything may take to come or go; on an idle machine a few seconds. Starting a server comes on top.
_WAIT_SECONDS = 180.0


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
    stack: str,
    overrides: Sequence[str] = (),
    *,
    serving: Serving = "stand-in",
    keep: bool = False,
    timeline: Timeline | None = None,
) -> None:
    """Rehearse a stack; raise `RehearsalError` with the resource, the field and the reason if it fails."""
    timeline = timeline or Timeline()
    plan, settings = load(stack, overrides, ROOT)
    tell_plan(plan, timeline)
    with (
        started(timeline) as control_plane,
        opened(
            plan,
            settings,
            control_plane,
            timeline,
            servers_for(serving, plan, control_plane, timeline),
            pack=policy_pack(plan, control_plane, timeline),
        ) as rehearsal,
    ):
        rehearsal.preview()
        rehearsal.update()
        if keep:
            rehearsal.kubelet.stop(keep=True)
            rehearsal.say_kept(control_plane.keep())
            return
        rehearsal.tear_down()
    timeline.verdict(f"stack {stack} is rehearsed", passed=True, rows=rehearsal.proof)


@contextmanager
def started(timeline: Timeline) -> Generator[ControlPlane]:
    """Start a control plane, building it first if need be; on the way out it must leave no process and no file."""
    # Imported here: a new machine should see a line before it sees a second of imports.
    from rehearsal.control_plane import ControlPlane, build_programs  # noqa: PLC0415

    with ControlPlane(build_programs(lambda line: timeline.tell("setup", line))) as control_plane:
        timeline.tell("setup", "Kubernetes answers: etcd, API server, controllers, scheduler, KWOK")
        yield control_plane
        kept = control_plane.kept
    left = [] if kept else control_plane.leftovers()
    if left:
        raise RehearsalError(f"the control plane left behind: {', '.join(left)}")


def servers_for(serving: Serving, plan: Plan, control_plane: ControlPlane, timeline: Timeline) -> Servers:
    """Return what stands for the engines of a plan's pods; the real vLLM is imported in a process beside the control plane."""
    if serving == "stand-in":
        from rehearsal.kubelet.programs import StandIns  # noqa: PLC0415

        return StandIns()
    from rehearsal.vllm_cpu.servers import CpuServers  # noqa: PLC0415 (with this option only)

    # What vLLM reads while it is imported, as HF_HUB_OFFLINE, is the same for all workloads.
    env = next(iter(plan.workloads.values())).env
    return CpuServers.started(control_plane, env, lambda line: timeline.tell("setup", line))


def policy_pack(plan: Plan, control_plane: ControlPlane, timeline: Timeline) -> PolicyPack:
    """Return the policy pack, which starts beside the control plane."""
    from rehearsal.policy_pack import PolicyPack  # noqa: PLC0415 (loads gRPC)

    return PolicyPack.started(control_plane, plan.stack, lambda line: timeline.tell("setup", line))


@contextmanager
def opened(
    plan: Plan,
    settings: Mapping[str, Any],
    control_plane: ControlPlane,
    timeline: Timeline,
    servers: Servers | None = None,
    *,
    pack: PolicyPack | None = None,
) -> Generator[Rehearsal]:
    """Connect a rehearsal to a running control plane; on the way out every wait and every pod's process ends.

    `pack` judges whatever a preview registers; without it only the program's own rules do.
    """
    from rehearsal.aws import AwsStandIn  # noqa: PLC0415 (loads botocore)
    from rehearsal.cluster import Cluster  # noqa: PLC0415 (loads the Kubernetes client)
    from rehearsal.existing_cluster import StandInCluster  # noqa: PLC0415
    from rehearsal.groups.controller import GroupController  # noqa: PLC0415
    from rehearsal.groups.program import build_controller  # noqa: PLC0415
    from rehearsal.kubelet.kubelet import Kubelet  # noqa: PLC0415
    from rehearsal.kubelet.programs import StandIns  # noqa: PLC0415
    from rehearsal.nodes import SimulatedNodes  # noqa: PLC0415
    from rehearsal.world import RehearsedWorld  # noqa: PLC0415

    authority = base64.b64encode(control_plane.certificate_authority).decode()
    # On an existing cluster the stack asks nothing of AWS, and may say no region.
    region = plan.region or next(iter(catalogue.regions()))
    aws = AwsStandIn(
        region,
        cluster_endpoint=control_plane.server,
        cluster_ca=authority,
        capacity_blocks=capacity_blocks(plan),
    )
    servers = servers or StandIns()
    if plan.has_groups:  # nobody else waits for it, and whoever does should not do so in mid-update
        build_controller(lambda line: timeline.tell("setup", line))

    def check() -> None:
        control_plane.check()
        groups.check()

    with ExitStack() as cleanup:
        if pack is not None:
            cleanup.callback(pack.stop)
        scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="rehearsal-")))
        cluster = Cluster(control_plane.kubeconfig, scratch, check, _WAIT_SECONDS + servers.start_seconds)
        cleanup.callback(cluster.close)
        nodes = SimulatedNodes(cluster, timeline.tell)
        cleanup.callback(nodes.stop)
        nodes.start()
        kubelet = Kubelet(
            cluster,
            control_plane,
            servers,
            timings=timings_of(plan),
            folder=control_plane.directory / "pods",
            tell=timeline.tell,
        )
        cleanup.callback(kubelet.stop)
        kubelet.start()
        groups = GroupController(cluster, control_plane, timeline.tell)
        world = RehearsedWorld(aws, cluster, nodes, groups, region, timeline.tell)
        stand_in = StandInCluster(control_plane.kubeconfig, scratch)
        engine = InProcessEngine(ROOT, plan.stack, stand_in.settings(plan, settings), world)
        yield Rehearsal(plan, engine, world, kubelet, timeline, existing_cluster=stand_in, pack=pack)


def timings_of(plan: Plan) -> dict[str, Timing]:
    """Return how long each workload's pods take, by workload."""
    return {name: row.timing for name, row in plan.workloads.items()}


_BLOCK_STATES: Mapping[str, BlockState] = {"scheduled": "scheduled", "active": "active", "ended": "expired"}


def capacity_blocks(plan: Plan) -> dict[str, BlockState]:
    """Return the states of a plan's Capacity Blocks, by id: in a rehearsal a block is where the stack file says it is."""
    blocks = (pool.block for pool in plan.node_pools.values() if pool.block)
    return {block.reservation_id: _BLOCK_STATES[block.phase] for block in blocks}


class Rehearsal:
    """One rehearsal on a running control plane: preview, update, teardown; `proof` collects what the verdict rests on."""

    def __init__(
        self,
        plan: Plan,
        engine: InProcessEngine,
        world: RehearsedWorld,
        kubelet: Kubelet,
        timeline: Timeline,
        *,
        existing_cluster: StandInCluster,
        pack: PolicyPack | None = None,
    ) -> None:
        self.engine = engine
        self.world = world
        self.kubelet = kubelet
        self.proof: list[tuple[str, str]] = []
        self.plan = plan
        self._existing_cluster = existing_cluster
        self._pack = pack
        self._timeline = timeline
        self._outputs: Mapping[str, Any] = {}
        self._existing_machines: list[str] = []
        self._existing_groups = False
        self._before = world.cluster.everything()

    def preview(self) -> None:
        """Run the program with unknown outputs; AWS judges every request it could send."""
        steps = self.engine.preview()
        self._timeline.tell("preview", f"{_counted(steps)} to create")
        asks = any(step.resource.type.startswith("aws:") for step in steps)
        judged = "every AWS request is valid" if asks else "nothing is asked of AWS"
        self.proof.append(("preview", f"{judged}, with outputs unknown as on a new stack"))
        if said := self._judge(steps):
            self.proof.append(("policy pack", said))

    def _judge(self, steps: Sequence[Step]) -> str | None:
        """Have the policy pack judge what a preview registers; return what it says. Raise `RehearsalError` if it refuses."""
        if self._pack is None:
            return None
        resources = [step.resource for step in steps if step.operation != "delete"]
        policies, advice = self._pack.judge(resources)
        for row in advice:
            self._timeline.tell("policy", f"advises: {row}")
        said = f"none of {len(resources)} resources is refused by any of {policies} policies"
        self._timeline.tell("policy", said)
        return said

    def update(self) -> None:
        """Create everything; workloads are ready when this returns."""
        from rehearsal.groups.proof import placed_groups  # noqa: PLC0415 (loads the Kubernetes client)

        self.join_existing_machines()
        started = self._timeline.seconds
        self._outputs = self.engine.up()
        took = self._timeline.seconds - started
        number = _number(self.engine)
        self._timeline.tell("update", f"{number} resources created in {took:.1f} s")
        self.proof.append(("update", f"{number} resources created in dependency order"))
        for name, row in self.plan.workloads.items():
            self.proof.append((f"workload {name}", self._served(row)))
            self.proof += [("group", line) for line in placed_groups(self.world.cluster, row)]
            self._try_admission(row)
        if self.world.groups.installed:
            self.proof.append(
                (
                    "controller",
                    "LeaderWorkerSet's own program of the chart's release ran here; the chart was not installed",
                )
            )

    def _served(self, row: WorkloadPlan) -> str:
        if not row.replicas:
            return f"declared without replicas: the Capacity Block of pool {row.node_pool} is not active"
        endpoint = self._outputs.get("endpoints", {}).get(row.name)
        return f"{row.replicas} of {row.replicas} replicas ready at {endpoint}"

    def _try_admission(self, row: WorkloadPlan) -> None:
        """Show what `kubectl` gets to hear for a pod that breaks a rule; the pod as it is must be admitted."""
        from rehearsal.admission import refusals  # noqa: PLC0415 (loads the Kubernetes client)

        rules = admission(self.plan)
        if rules is None:
            return
        for rule, said in refusals(self.world.cluster, rules, row):
            if rule == "bf16-one-node":  # the one with numbers
                self._timeline.tell("kubectl", f"is refused by the API server: {said}")
        names = ", ".join(policy.rule for policy in rules.policies)
        self.proof.append(
            ("kubectl", f"the API server refuses pods of {row.name} that break {names}, and admits them as they are")
        )

    def change(self, plan: Plan, settings: Mapping[str, Any]) -> list[Step]:
        """Aim at another plan of the same stack; return what an update will do. Raise `RehearsalError` if it is not rehearsed."""
        self.plan = plan
        self.world.aws.tell_capacity_blocks(capacity_blocks(plan))
        self.engine.settings = self._existing_cluster.settings(plan, settings)
        self.kubelet.timings = timings_of(plan)
        steps = self.engine.preview()
        self._judge(steps)
        return [step for step in steps if step.operation != "same"]

    def tear_down(self) -> None:
        """Delete everything and prove that neither AWS nor the cluster holds anything of it."""
        number = _number(self.engine)
        for resource in self.world.aws.lift_deletion_protection():
            self._timeline.tell(
                "teardown",
                f"deletion protection of {resource.rpartition('::')[2]} is switched off, as before any destroy",
            )
        self.engine.destroy()
        self.leave_existing_machines()
        left = self.left()
        if left:
            raise RehearsalError(f"teardown left {len(left)} behind: {', '.join(left[:5])}")
        self._timeline.tell("teardown", f"{number} resources deleted, what is needed by others last; nothing is left")
        self.proof.append(
            ("teardown", f"{number} resources deleted; AWS, the cluster and this machine hold nothing of them")
        )

    def join_existing_machines(self) -> None:
        """Let the machines of an existing cluster be there, as the plan's pools describe them, and its controller of groups."""
        from rehearsal.nodes import MachineGroup  # noqa: PLC0415

        if not isinstance(self.plan.cluster, ExistingClusterConfig):
            return
        said = f"context {self.plan.cluster.context} leads to this rehearsal's control plane; your own cluster is not asked"
        self._timeline.tell("cluster", said)
        self.proof.append(("played", f"the existing cluster: {said}"))
        for name, pool in self.plan.node_pools.items():
            group = MachineGroup(
                name=name,
                instance_type=pool.instance.name,
                count=pool.nodes,
                labels=pool.labels,
                taints=((*pool.taint, "NoSchedule"),),
                zone_ids=pool.instance.availability_zone_ids[:1],
                region=self.world.region,
                efa_interfaces=len(pool.efa_slots),
                offers_devices=not self.plan.installs_device_plugin,
            )
            self.world.nodes.scale(group)
            self._existing_machines.append(name)
        if self.plan.has_groups and not self.plan.installs_leader_worker_set:
            self.world.groups.install("the existing cluster", catalogue.image("lws").version or "")
            self._existing_groups = True

    def leave_existing_machines(self) -> None:
        """Take the machines of an existing cluster, and its controller of groups, away again."""
        for group in self._existing_machines:
            self.world.nodes.leave(group)
        self._existing_machines.clear()
        if self._existing_groups:
            self.world.groups.uninstall("the existing cluster")
            self._existing_groups = False

    def left(self) -> list[str]:
        """Return what exists now, in AWS and in the cluster, and did not before the rehearsal."""
        return [*self.world.aws.remaining(), *sorted(self.world.cluster.everything() - self._before)]

    def say_kept(self, kubeconfig: Path) -> None:
        """Print the verdict of a rehearsal whose cluster stays up, with the lines to use and to end it."""
        rows = [
            *self.proof,
            ("use it", f"export KUBECONFIG={kubeconfig}"),
            ("end it", "python -m rehearsal down"),
        ]
        self._timeline.verdict(f"stack {self.plan.stack} is rehearsed and kept", passed=True, rows=rows)


def render(stack: str, overrides: Sequence[str], say: Callable[[str], None]) -> Iterator[Mapping[str, Any]]:
    """Yield every Kubernetes object of a stack as the API server would get it, always in the same order.

    `say` gets a line for each chart, whose objects are in no rendering, and for each object of which only a part is known.
    """
    world, _ = _rendered(stack, overrides)
    for chart in world.charts:
        say(f"not rendered: the objects of chart {chart}")
    for patched in world.patched:
        say(f"not rendered: what is patched of {patched}, which is made in the cluster")
    yield from world.objects


def resources(stack: str, overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return every resource of a stack by URN: its type, its name, and its inputs without what is secret."""
    _, engine = _rendered(stack, overrides)
    registered = (created.resource for created in engine.created if not created.resource.component)
    return {
        resource.urn: {
            "type": resource.type,
            "name": resource.name,
            "inputs": {**resource.inputs, **dict.fromkeys(resource.secret_inputs, "[secret]")},
        }
        for resource in registered
    }


def _rendered(stack: str, overrides: Sequence[str]) -> tuple[RenderedWorld, InProcessEngine]:
    from rehearsal.existing_cluster import NOWHERE, StandInCluster  # noqa: PLC0415
    from rehearsal.rendering import RenderedWorld  # noqa: PLC0415

    plan, settings = load(stack, overrides, ROOT)
    world = RenderedWorld(plan.region or next(iter(catalogue.regions())))
    with tempfile.TemporaryDirectory(prefix="rendering-") as folder:
        settings = StandInCluster(NOWHERE, Path(folder)).settings(plan, settings)
        engine = InProcessEngine(ROOT, stack, settings, world, side_by_side=1)
        engine.up()
    return world, engine


def tell_plan(plan: Plan, timeline: Timeline) -> None:
    """Say what a stack is and costs."""
    for line in _summary(plan):
        timeline.tell("plan", line)


def _summary(plan: Plan) -> Iterator[str]:
    pools = ", ".join(f"{pool.desired_nodes} x {pool.instance.name}" for pool in plan.node_pools.values())
    cost = plan.cost.hourly_usd
    price = "price unknown" if cost is None else f"{cost:,.2f} USD an hour at list price"
    yield f"stack {plan.stack} is accepted: {pools}, {price}"
    yield from phase_notes(plan)
    for row in plan.workloads.values():
        memory = row.memory
        fits = f"{memory.full_length_requests:.2f} requests of {row.max_model_len:,} tokens"
        yield f"{row.name}: {row.checkpoint.repository}, {memory.kv_pool_tokens:,} tokens of KV cache, {fits} for each replica"


def _number(engine: InProcessEngine) -> int:
    return sum(not created.resource.component for created in engine.created)


def _counted(steps: Sequence[Step]) -> str:
    resources = [step.resource for step in steps]
    kinds = Counter(resource.type.partition(":")[0] for resource in resources if not resource.component)
    components = sum(resource.component for resource in resources)
    parts = ", ".join(f"{number} {_PACKAGES.get(kind, kind)}" for kind, number in kinds.most_common())
    return f"{kinds.total()} resources in {components} components ({parts})"


_PACKAGES = {"aws": "AWS", "kubernetes": "Kubernetes", "pulumi": "provider"}
