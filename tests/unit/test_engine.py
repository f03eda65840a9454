"""The in-process engine: what it creates when, what it hands to the world, how it fails, in which order it deletes.

The programs are real ones, in a folder; the world is one that refuses what the real one would: a resource before what it
uses, and the deletion of what is still used.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pulumi.output import Unknown

from rehearsal.engine import InProcessEngine
from rehearsal.resource import Created, NotReadyError, RehearsalError, Resource, Updated, World

# `Thing` has an output that only the world knows. `uses` names what must be there in the world; Pulumi is not told by it.
PRELUDE = """
import pulumi


class Thing(pulumi.CustomResource):
    made: pulumi.Output[str]

    def __init__(self, name, opts=None, uses=(), **inputs):
        super().__init__("test:index:Thing", name, {"uses": list(uses), **inputs, "made": None}, opts)


class Group(pulumi.ComponentResource):
    def __init__(self, name, opts=None):
        super().__init__("test:index:Group", name, {}, opts)


class Provider(pulumi.ProviderResource):
    def __init__(self, name, opts=None):
        super().__init__("test", name, {"uses": []}, opts)


def after(*resources, **options):
    return pulumi.ResourceOptions(depends_on=list(resources), **options)

"""


@dataclass
class RecordingWorld:
    """Knows what exists, by name; `refuses` names what cannot be created or deleted."""

    refuses: dict[str, str] = field(default_factory=dict[str, str])
    seen: list[Resource] = field(default_factory=list[Resource])
    exists: dict[str, Resource] = field(default_factory=dict[str, Resource])
    deleted: list[str] = field(default_factory=list[str])
    updated: list[str] = field(default_factory=list[str])
    on_create: Callable[[str], None] = lambda _: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        with self._lock:
            self.seen.append(resource)
        if preview:
            return None, dict(resource.inputs)
        self.on_create(resource.name)
        with self._lock:
            if resource.name in self.refuses:
                raise RehearsalError(f"{resource.label}: {self.refuses[resource.name]}")
            lacking = set(resource.inputs["uses"]) - self.exists.keys()
            if lacking:
                raise RehearsalError(f"{resource.label}: uses {sorted(lacking)}, which do not exist")
            self.exists[resource.name] = resource
        return f"{resource.name}-id", {**resource.inputs, "made": f"{resource.name} was made"}

    def update(self, created: Created, resource: Resource, *, preview: bool) -> Updated:
        """Change a thing in place, or, if its `anew` has changed, make a new one beside it."""
        name, outputs = resource.name, {**resource.inputs, "made": f"{resource.name} was updated"}
        if preview:
            return Updated(created.id, outputs)
        with self._lock:
            self.seen.append(resource)
            if name in self.refuses:
                raise NotReadyError(f"{resource.label}: {self.refuses[name]}", created.id, outputs)
            self.updated.append(name)
            self.exists[name] = resource
        moved = created.resource.inputs.get("anew") != resource.inputs.get("anew")
        return Updated(created.id, outputs, replaced=created if moved else None)

    def delete(self, created: Created) -> None:
        name = created.resource.name
        with self._lock:
            if name in self.refuses:
                raise RehearsalError(f"{created.resource.label}: {self.refuses[name]}")
            self.deleted.append(name)
            if created.resource.inputs.get("anew") != self.exists[name].inputs.get(
                "anew"
            ):  # another has taken its place
                return
            users = sorted(other.name for other in self.exists.values() if name in other.inputs["uses"])
            if users:
                raise RehearsalError(f"{created.resource.label}: is still used by {users}")
            assert created.id == f"{name}-id"
            assert created.outputs.get("made") == f"{name} was {'updated' if name in self.updated else 'made'}"
            del self.exists[name]

    @property
    def names(self) -> list[str]:
        return [resource.name for resource in self.seen]

    def inputs(self, name: str) -> Mapping[str, Any]:
        """The inputs of a resource as this world got them."""
        return next(resource.inputs for resource in self.seen if resource.name == name)


@pytest.fixture
def world() -> RecordingWorld:
    return RecordingWorld()


@pytest.fixture
def engine(tmp_path: Path, world: RecordingWorld) -> Callable[..., InProcessEngine]:
    """A function that writes a program and returns an engine for it."""

    def make(program: str, **options: Any) -> InProcessEngine:
        (tmp_path / "__main__.py").write_text(PRELUDE + dedent(program))
        return InProcessEngine(tmp_path, "test", {"aws:region": "us-east-1"}, world, **options)

    return make


Make = Callable[..., InProcessEngine]

# Every way in which one resource can need another, each with what the world needs of it.
CHAIN = """
    provider = Provider("provider")
    network = Thing("network", uses=["provider"], opts=pulumi.ResourceOptions(provider=provider))
    cluster = Thing("cluster", uses=["network"], network=network.made)
    group = Group("group", after(cluster))
    inside = Thing("inside", uses=["cluster"], opts=pulumi.ResourceOptions(parent=group))
    first = Thing("first", uses=["inside"], opts=after(inside))
    second = Thing("second", uses=["inside"], opts=after(inside))
    last = Thing("last", uses=["first", "second"], text=pulumi.Output.concat(first.made, " and ", second.made))
    whole = Thing("whole", uses=["inside"], opts=after(group))
"""
CHAIN_NAMES = ["provider", "network", "cluster", "inside", "first", "second", "last", "whole"]


# --- creating --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side_by_side", [1, 16])
def test_everything_is_created_after_what_it_needs(engine: Make, world: RecordingWorld, side_by_side: int) -> None:
    runs = engine(CHAIN, side_by_side=side_by_side)
    runs.up()
    assert sorted(world.exists) == sorted(CHAIN_NAMES)
    assert sorted(world.names) == sorted(CHAIN_NAMES)  # each once, and no component
    assert sorted(created.resource.name for created in runs.created) == sorted([*CHAIN_NAMES, "group"])
    assert world.inputs("last")["text"] == "first was made and second was made"


def test_one_at_a_time_is_in_the_programs_order(engine: Make, world: RecordingWorld) -> None:
    engine(CHAIN, side_by_side=1).up()
    assert world.names == ["provider", "network", "cluster", "inside", "first", "second", "whole", "last"]


def test_independent_resources_are_created_side_by_side(engine: Make, world: RecordingWorld) -> None:
    together = threading.Barrier(4, timeout=30)  # breaks unless all four are in the world at once

    def on_create(_: str) -> None:
        together.wait()

    world.on_create = on_create
    engine("for number in range(4): Thing(f'thing-{number}')").up()
    assert len(world.exists) == 4


def test_what_a_resource_looks_like(engine: Make, world: RecordingWorld) -> None:
    engine(CHAIN).up()
    rows = {row.name: row for row in world.seen}
    prefix = "urn:pulumi:test::glm-on-gpus::"
    group = f"{prefix}pulumi:pulumi:Stack$test:index:Group::group"
    inside = rows["inside"]
    assert inside.urn == f"{prefix}test:index:Group$test:index:Thing::inside"
    assert (inside.type, inside.parent, inside.component) == ("test:index:Thing", group, False)
    assert inside.label == "test:index:Thing inside"
    assert inside.needs == {group}
    assert rows["last"].needs == {rows[name].urn for name in ("first", "second")} | {rows["last"].parent}
    assert rows["network"].needs == {rows["provider"].urn, rows["network"].parent}


def test_outputs_of_the_stack(engine: Make) -> None:
    runs = engine("""
        thing = Thing("thing")
        pulumi.export("made", thing.made)
        pulumi.export("id", thing.id)
        pulumi.export("nested", {"secret": pulumi.Output.secret({"list": [thing.made, 1]})})
    """)
    assert runs.up() == {
        "made": "thing was made",
        "id": "thing-id",
        "nested": {"secret": {"list": ["thing was made", 1]}},
    }


def test_a_run_does_not_inherit_the_outputs_of_the_last_one(engine: Make) -> None:
    assert engine("pulumi.export('first', 1)").up() == {"first": 1}
    assert engine("pulumi.export('second', 2)").up() == {"second": 2}


def test_secrets_reach_the_world_in_the_clear(engine: Make, world: RecordingWorld) -> None:
    runs = engine("""
        Thing("thing", token=pulumi.Output.secret("hunter2"), deep={"list": [pulumi.Output.secret(7)]})
    """)
    runs.up()
    assert world.inputs("thing") == {"uses": [], "token": "hunter2", "deep": {"list": [7]}}


def test_settings_as_pulumi_hands_them_over(tmp_path: Path, world: RecordingWorld) -> None:
    (tmp_path / "__main__.py").write_text(
        PRELUDE
        + dedent("""
            config = pulumi.Config("glm-on-gpus")
            assert pulumi.get_stack() == "test" and pulumi.get_project() == "glm-on-gpus"
            pulumi.export("pool", config.require_object("nodePools")["gpu"])
            pulumi.export("on", config.require_bool("on"))
            pulumi.export("region", pulumi.Config("aws").require("region"))
        """)
    )
    settings = {
        "aws:region": "us-east-1",
        "glm-on-gpus:on": True,
        "glm-on-gpus:nodePools": {"gpu": {"nodes": 2, "zones": ["use1-az6"]}},
    }
    assert InProcessEngine(tmp_path, "test", settings, world).up() == {
        "pool": {"nodes": 2, "zones": ["use1-az6"]},
        "on": True,
        "region": "us-east-1",
    }


# --- previews --------------------------------------------------------------------------------------------------------


def test_a_preview_creates_nothing_and_knows_nothing(engine: Make, world: RecordingWorld) -> None:
    runs = engine(
        CHAIN
        + """
    first.made.apply(lambda _: Thing("only-when-known"))
    pulumi.export("made", last.made)
    """
    )
    resources = [step.resource for step in runs.preview()]
    assert (runs.created, world.exists) == ([], {})
    assert sorted(row.name for row in resources if not row.component) == sorted(CHAIN_NAMES)
    assert [row.name for row in resources if row.component] == ["group"]
    assert isinstance(world.inputs("cluster")["network"], Unknown)
    assert isinstance(world.inputs("last")["text"], Unknown)
    assert world.inputs("first") == {"uses": ["inside"]}


def test_a_preview_registers_what_an_update_registers(engine: Make) -> None:
    runs = engine(CHAIN)
    previewed = {step.resource.urn: step.resource.needs for step in runs.preview()}
    runs.up()
    assert {created.resource.urn: created.resource.needs for created in runs.created} == previewed


def test_secrets_that_are_not_known_yet(engine: Make, world: RecordingWorld) -> None:
    runs = engine("""
        thing = Thing("thing")
        Thing("next", token=pulumi.Output.secret(thing.made), known=pulumi.Output.secret("hunter2"))
    """)
    runs.preview()
    assert isinstance(world.inputs("next")["token"], Unknown)
    assert world.inputs("next")["known"] == "hunter2"


# --- failures --------------------------------------------------------------------------------------------------------


def test_the_first_failure_ends_the_run_and_is_raised_once(
    engine: Make, world: RecordingWorld, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    world.refuses["cluster"] = "subnetIds: two availability zones are needed"
    runs = engine(CHAIN, side_by_side=1)
    with pytest.raises(RehearsalError) as failed:
        runs.up()
    assert str(failed.value) == "test:index:Thing cluster: subnetIds: two availability zones are needed"
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__
    assert world.names == ["provider", "network", "cluster"]
    assert [created.resource.name for created in runs.created] == ["provider", "network"]
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_nothing_begins_after_a_failure_even_if_it_needs_nothing(engine: Make, world: RecordingWorld) -> None:
    world.refuses["refused"] = "no"
    runs = engine("for name in ('before', 'refused', 'after', 'later'): Thing(name)", side_by_side=1)
    with pytest.raises(RehearsalError, match=r"^test:index:Thing refused: no$"):
        runs.up()
    assert world.names == ["before", "refused"]


def test_what_runs_beside_a_failure_is_known_to_exist(engine: Make, world: RecordingWorld) -> None:
    world.refuses["refused"] = "no"
    together = threading.Barrier(2, timeout=30)
    refused = threading.Event()

    def on_create(name: str) -> None:
        together.wait()
        if name == "slow":
            refused.wait(30)
        else:
            refused.set()

    world.on_create = on_create
    runs = engine("Thing('refused'); Thing('slow')")
    with pytest.raises(RehearsalError, match="refused: no"):
        runs.up()
    assert [created.resource.name for created in runs.created] == ["slow"]
    runs.destroy()
    assert (runs.created, world.exists, world.deleted) == ([], {}, ["slow"])


def test_a_failure_in_a_preview(engine: Make, world: RecordingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
        assert preview
        raise RehearsalError(f"{resource.label}: no such field")

    monkeypatch.setattr(world, "create", refuse)
    with pytest.raises(RehearsalError, match=r"^test:index:Thing thing: no such field$"):
        engine("Thing('thing')").preview()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise pulumi.RunError('Pulumi.test.yaml: one sentence')", "Pulumi.test.yaml: one sentence"),
        ("1 / 0", "the program failed: ZeroDivisionError: division by zero"),
        (
            "Thing('thing').made.apply(lambda made: made.no_such_method())",
            "the program failed: AttributeError: 'str' object has no attribute 'no_such_method'",
        ),
        (
            "pulumi.runtime.invoke('aws:index/getRegion:getRegion', {})",
            "the program calls aws:index/getRegion:getRegion: it must not, a preview would depend on the account",
        ),
        (
            "Thing('thing', opts=pulumi.ResourceOptions(id='i-0'))",
            "test:index:Thing thing: reads an existing resource, which a rehearsal does not have",
        ),
    ],
    ids=["run-error", "exception", "exception-in-apply", "invoke", "read"],
)
def test_a_program_that_fails(engine: Make, program: str, message: str) -> None:
    with pytest.raises(RehearsalError) as failed:
        engine(program).up()
    assert str(failed.value) == message


def test_an_interrupt_does_not_wait_for_what_is_being_created(engine: Make, world: RecordingWorld) -> None:
    stopped_further_up = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def interrupted(_: str) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        stopped_further_up.wait()

    world.on_create = interrupted
    runs = engine("Thing('waits-for-the-cluster')")
    with pytest.raises(KeyboardInterrupt):
        runs.up()
    assert runs.created == []  # it still waits, and nobody waited for it
    stopped_further_up.set()
    for thread in threading.enumerate():
        if thread.name == "program":
            thread.join()


# --- updating --------------------------------------------------------------------------------------------------------


def steps(runs: InProcessEngine) -> dict[str, list[str]]:
    """What a run would do, the names by operation."""
    found: dict[str, list[str]] = {}
    for step in runs.preview():
        found.setdefault(step.operation, []).append(step.resource.name)
    return {operation: sorted(names) for operation, names in found.items()}


def test_a_second_run_of_the_same_program_does_nothing(engine: Make, world: RecordingWorld) -> None:
    runs = engine(CHAIN)
    runs.up()
    assert steps(runs) == {"same": sorted([*CHAIN_NAMES, "group"])}
    before = {created.resource.urn: created for created in runs.created}
    world.seen.clear()
    runs.up()
    assert (world.seen, world.updated, world.deleted) == ([], [], [])
    assert {created.resource.urn: created for created in runs.created} == before


def test_only_what_changes_is_updated_and_its_users_see_the_new_outputs(engine: Make, world: RecordingWorld) -> None:
    program = """
        first = Thing("first", size={size})
        second = Thing("second", uses=["first"], text=first.made)
        third = Thing("third", uses=["first"], opts=after(first))
        pulumi.export("text", second.made)
    """
    runs = engine(program.format(size=1))
    runs.up()
    runs = changed(runs, program.format(size=2))
    assert steps(runs) == {"same": ["third"], "update": ["first", "second"]}
    assert world.updated == []
    assert runs.up() == {"text": "second was updated"}
    assert world.updated == ["first", "second"]
    assert world.exists["second"].inputs["text"] == "first was updated"


def changed(runs: InProcessEngine, program: str) -> InProcessEngine:
    """Put another program in the place of an engine's."""
    (runs.folder / "__main__.py").write_text(PRELUDE + dedent(program))
    return runs


def test_what_is_not_registered_any_more_is_deleted_last(engine: Make, world: RecordingWorld) -> None:
    runs = engine("""
        old = Thing("old")
        Thing("user", uses=["old"], opts=after(old))
        Thing("kept", on="old")
    """)
    runs.up()
    changed(runs, "Thing('new'); Thing('kept', on='new')")
    assert steps(runs) == {"create": ["new"], "update": ["kept"], "delete": ["old", "user"]}
    on_create: list[list[str]] = []
    world.on_create = lambda _: on_create.append(sorted(world.exists))
    runs.up()
    assert on_create == [["kept", "old", "user"]]  # they are there while the new one is made
    assert world.deleted == ["user", "old"]
    assert sorted(world.exists) == ["kept", "new"]


def test_what_is_replaced_lives_until_everything_else_is_done(engine: Make, world: RecordingWorld) -> None:
    program = "thing = Thing('thing', anew={anew}); Thing('user', uses=['thing'], of=thing.made)"
    runs = engine(program.format(anew=1))
    runs.up()
    changed(runs, program.format(anew=2)).up()
    assert world.updated == ["thing", "user"]
    assert world.deleted == ["thing"]
    assert [created.resource.name for created in runs.created] == ["thing", "user"]


def test_a_failed_update_deletes_nothing_and_is_tried_again(engine: Make, world: RecordingWorld) -> None:
    runs = engine("Thing('old'); Thing('thing', size=1)", side_by_side=1)
    runs.up()
    world.refuses["thing"] = "the rollout stopped"
    changed(runs, "Thing('new'); Thing('thing', size=2)")
    with pytest.raises(NotReadyError, match=r"^test:index:Thing thing: the rollout stopped$"):
        runs.up()
    assert (sorted(world.exists), world.deleted) == (["new", "old", "thing"], [])
    assert [created.resource.inputs["size"] for created in runs.created if created.resource.name == "thing"] == [2]
    world.refuses.clear()
    assert steps(runs) == {"same": ["new"], "update": ["thing"], "delete": ["old"]}  # the same inputs, but not ready


def test_the_way_back_after_a_failed_update(engine: Make, world: RecordingWorld) -> None:
    before, after = "Thing('old'); Thing('thing', size=1)", "Thing('new'); Thing('thing', size=2)"
    runs = engine(before, side_by_side=1)
    runs.up()
    world.refuses["thing"] = "the rollout stopped"
    with pytest.raises(NotReadyError):
        changed(runs, after).up()
    world.refuses.clear()
    changed(runs, before).up()
    assert (sorted(world.exists), world.deleted) == (["old", "thing"], ["new"])
    assert world.exists["thing"].inputs["size"] == 1
    runs.destroy()
    assert (runs.created, world.exists) == ([], {})


def test_a_world_that_knows_no_updates_says_so() -> None:
    class Unchanging(World):
        def create(self, resource: Resource, *, preview: bool) -> tuple[str | None, dict[str, Any]]:
            raise AssertionError((resource, preview))

        def delete(self, created: Created) -> None:
            raise AssertionError(created)

    thing = Resource("urn", "test:index:Thing", "thing", {}, frozenset(), "", frozenset(), component=False)
    with pytest.raises(
        RehearsalError, match=r"^test:index:Thing thing: nothing is updated here \(id-1, preview: False\)$"
    ):
        Unchanging().update(Created(thing, "id-1", {}), thing, preview=False)


# --- deleting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side_by_side", [1, 16])
def test_everything_is_deleted_before_what_it_needs(engine: Make, world: RecordingWorld, side_by_side: int) -> None:
    runs = engine(CHAIN, side_by_side=side_by_side)
    runs.up()
    runs.destroy()  # the world refuses whatever is out of order
    assert (runs.created, world.exists) == ([], {})
    assert sorted(world.deleted) == sorted(CHAIN_NAMES)
    assert world.deleted[-3:] == ["cluster", "network", "provider"]


def test_a_dependency_that_the_program_does_not_declare_shows(engine: Make, world: RecordingWorld) -> None:
    runs = engine("network = Thing('network'); Thing('node', uses=['network'])", side_by_side=1)
    runs.up()
    network_asked = threading.Event()
    delete = world.delete

    def node_last(created: Created) -> None:
        """Both go at once for the engine; here the network is asked for first."""
        if created.resource.name == "node":
            network_asked.wait(30)
        try:
            delete(created)
        finally:
            network_asked.set()

    world.delete = node_last
    with pytest.raises(RehearsalError, match=r"^test:index:Thing network: is still used by \['node'\]$"):
        runs.destroy()


def test_a_deletion_that_fails_keeps_what_is_left(engine: Make, world: RecordingWorld) -> None:
    runs = engine(CHAIN)
    runs.up()
    world.refuses["cluster"] = "deletion protection is on"
    with pytest.raises(RehearsalError, match=r"^test:index:Thing cluster: deletion protection is on$"):
        runs.destroy()
    left = ["cluster", "network", "provider"]
    assert sorted(world.exists) == left
    assert sorted(created.resource.name for created in runs.created) == left
    world.refuses.clear()
    runs.destroy()
    assert (runs.created, world.exists) == ([], {})


def test_independent_resources_are_deleted_side_by_side(engine: Make, world: RecordingWorld) -> None:
    runs = engine("for number in range(4): Thing(f'thing-{number}')")
    runs.up()
    together = threading.Barrier(4, timeout=30)
    delete = world.delete

    def at_once(created: Created) -> None:
        together.wait()
        delete(created)

    world.delete = at_once
    runs.destroy()
    assert world.exists == {}


def test_nothing_to_destroy(engine: Make, world: RecordingWorld) -> None:
    engine("").destroy()
    assert world.deleted == []
