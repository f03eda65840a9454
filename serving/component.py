"""What the program's component says of a workload to whoever looks at it, such as a policy, and how that is read back.

The names are a contract: packs of other people may rest on them. What is judged is what reaches vLLM, not what describes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from serving import argv, catalogue
from serving.facts import HostPath
from serving.manifest import UNKNOWN, Reading, nothing_known
from serving.plan import WorkloadPlan
from serving.reading import Surroundings, from_arguments
from serving.spelling import InputError

TYPE = "glm-on-gpus:vllm_workload:VllmWorkload"
"""The component's type; it never changes, because it is part of every child's URN."""

_WHERE = "component"


class _Workload(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",  # another release of the component may say more
        alias_generator=to_camel,
        populate_by_name=True,
    )

    checkpoint: str
    precision: str
    revision: str
    engine_version: str
    replicas: int
    tensor_parallel_size: int
    max_model_len: int
    instance_type: str
    nodes_per_replica: int
    image: str
    command: tuple[str, ...]
    env: dict[str, str]
    shared_memory_gib: float | None = None  # Pulumi leaves out what is None
    memory_limited: bool
    host_paths: tuple[HostPath, ...]
    gated: bool


def properties(plan: WorkloadPlan) -> dict[str, object]:
    """Return the component's properties."""
    facts = plan.facts
    return _Workload(
        checkpoint=plan.checkpoint.repository,
        precision=plan.checkpoint.precision,
        revision=plan.revision,
        engine_version=plan.engine_version,
        replicas=plan.replicas,
        tensor_parallel_size=plan.tensor_parallel_size,
        max_model_len=plan.max_model_len,
        instance_type=facts.instance.name,
        nodes_per_replica=plan.nodes_per_replica,
        image=plan.image,
        command=plan.command,
        env=dict(plan.env),
        shared_memory_gib=facts.shared_memory_gib,
        memory_limited=facts.memory_limited,
        host_paths=facts.host_paths,
        gated=facts.gated,
    ).model_dump(mode="json", by_alias=True)


def read(given: Mapping[str, object]) -> Reading:
    """Return the reading of a component's properties, with `UNKNOWN` where a value is not known yet. Never raises.

    A property that is missing or that nobody knows makes all of it unreadable: the component has every one at hand.
    """
    if UNKNOWN in json.dumps(given, ensure_ascii=False):
        return nothing_known(_WHERE, "a property is known only after the update")
    try:
        row = _Workload.model_validate(given)
    except ValidationError as error:
        return nothing_known(
            _WHERE, f"{'.'.join(map(str, error.errors()[0]['loc']))} is not what the component says of itself"
        )
    instance = catalogue.instance_types().get(row.instance_type)
    if instance is None:
        return nothing_known(_WHERE, f"the catalogue does not know the machine {row.instance_type}")
    around = Surroundings(
        instance,
        catalogue.engines().get(row.engine_version),
        row.nodes_per_replica,
        row.shared_memory_gib,
        row.memory_limited,
        row.host_paths,
        row.gated,
    )
    try:
        arguments = argv.read(row.command)
    except InputError as error:
        return nothing_known(_WHERE, str(error))
    return Reading(from_arguments(_WHERE, arguments, row.env, row.image, around))
