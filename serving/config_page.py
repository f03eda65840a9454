"""The reference page of the configuration, docs/config.md: every key with its type, limits, default and an example.

Types, limits and defaults come from the models, allowed names from the catalogue; what a key is for, how a value that is left out
is derived, and the examples stand here. A test holds keys and examples against the models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serving import catalogue
from serving.config import (
    PROJECT,
    CapacityBlock,
    EksClusterConfig,
    ExistingClusterConfig,
    GateConfig,
    NodePoolConfig,
    OnDemand,
    Reservation,
    WorkloadConfig,
)
from serving.rules import DECODE_SCRATCH_LIMIT_GIB

_TYPES: Mapping[object, str] = {
    **{str: "text", Literal: "word", int: "whole number", float: "fraction", bool: "switch", datetime: "time"},
    **{tuple: "list of texts", dict: "map of texts"},
}


@dataclass(frozen=True)
class Words:
    """What a key is for, an example as YAML, and what is done where an optional key is left out."""

    purpose: str
    example: str
    derived: str | None = None


_EFA_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/efa@sha256:" + "0" * 64

_EKS = {
    "kind": Words("the stack creates an EKS cluster", "eks"),
    "kubernetesVersion": Words("version of control plane and nodes", '"1.36"'),
    "availabilityZoneIds": Words("zones of the network's subnets", "[use1-az6, use1-az2]"),
    "vpcCidr": Words("addresses of the VPC; another value replaces the network and all in it", "10.20.0.0/16"),
    "publicAccessCidrs": Words("who reaches the Kubernetes API from outside the VPC", "[203.0.113.0/24]"),
    "adminRoleArns": Words(
        "who administers the cluster besides the role that created it",
        "{oncall: 'arn:aws:iam::123456789012:role/oncall'}",
    ),
    "systemInstanceType": Words("machines for CoreDNS and the like", "m7i.xlarge"),
    "systemNodes": Words("how many of them", "3"),
    "addonVersions": Words("pins add-ons of EKS", "{vpc-cni: v1.23.1-eksbuild.1}"),
    "efaPluginImage": Words(
        "the image that hands out EFA interfaces", _EFA_IMAGE, "the catalogue's, if a pool has EFA"
    ),
    "deletionProtection": Words("EKS refuses to delete the cluster while it is on", "true"),
}
_EXISTING = {
    "kind": Words("the stack installs into a cluster that is there", "existing"),
    "context": Words("which cluster", "my-cluster"),
    "kubeconfig": Words("where the context stands", "~/.kube/config"),
    "installDevicePlugin": Words("the stack brings NVIDIA's device plugin, and EFA's", "true"),
    "installLeaderWorkerSet": Words("the stack brings the controller of replicas on several nodes", "true"),
    "installAdmissionPolicies": Words("the API server refuses what [the rules](admission.md) refuse", "false"),
    "efaPluginImage": Words(
        "the image that hands out EFA interfaces", _EFA_IMAGE, "the catalogue's, if a pool has EFA"
    ),
}
_NODE_POOL = {
    "instanceType": Words("the machine, and with it the GPU", "p5en.48xlarge"),
    "nodes": Words("how many machines, each with one replica at most", "2"),
    "availabilityZoneId": Words(
        "where they stand: one zone that offers them", "use1-az6", "needed with `eks`, left out with `existing`"
    ),
    "capacity": Words("how they are bought", "{kind: onDemand}", "needed with `eks`, left out with `existing`"),
    "efa": Words("adds EFA interfaces", "true"),
    "rootVolumeGiB": Words("root disk of each node, for the system alone", "300"),
    "amiReleaseVersion": Words(
        "pins the machine image, and with it the NVIDIA driver",
        "1.36.2-20260714",
        "the catalogue's for the Kubernetes version",
    ),
}
_ON_DEMAND = {"kind": Words("on demand", "onDemand")}
_RESERVATION = {
    "kind": Words("an on-demand capacity reservation", "reservation"),
    "reservationId": Words("which one", "cr-0123456789abcdef0"),
}
_CAPACITY_BLOCK = {
    "kind": Words("a Capacity Block that you have bought", "capacityBlock"),
    "reservationId": Words("which one", "cr-0123456789abcdef0"),
    "phase": Words("where the block is in its life; [what each phase does](#capacity-blocks)", "ended"),
    "startsAt": Words("when it starts; a plan says it", '"2026-12-01T11:30:00Z"', "none; needed in phase `scheduled`"),
    "endsAt": Words("when it ends; a plan says when its machines go", '"2026-12-08T11:30:00Z"', "none"),
}
_WORKLOAD = {
    "nodePool": Words("where it runs", "h200"),
    "model": Words("what is served", "glm-5.2"),
    "precision": Words("which published checkpoint of it", "fp8"),
    "revision": Words("which commit of the checkpoint", "31cba24fb749908a485082bdeed6eb1ac6cffc2f", "the catalogue's"),
    "vllmVersion": Words("which release serves it; rules and memory model go by it", '"0.31.0"'),
    "image": Words(
        "another image of that release, such as a copy in your registry",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/vllm@sha256:"
        "c1c9f6fd5c109ba7f0546a59f5b2f15fb87f64c77782e90a27b648b42a8e67c3",
        "the release's public image by digest",
    ),
    "replicas": Words("how many, each on a node of its own", "1"),
    "nodesPerReplica": Words("nodes that serve one model together ([several nodes](several-nodes.md))", "2"),
    "pipelineParallelSize": Words("stages of layers; the GPUs of one share its layers by tensor parallelism", "2"),
    "decodeContextParallelSize": Words("GPUs that share out the KV cache of a request, instead of a copy on each", "8"),
    "maxModelLen": Words("longest request with its answer", "262144"),
    "maxNumSeqs": Words(
        "how many requests run at once in a replica",
        "64",
        "as many as keep a decode step inside vLLM's largest CUDA graph and its indexer's logits within "
        f"{DECODE_SCRATCH_LIMIT_GIB:g} GiB",
    ),
    "maxNumBatchedTokens": Words("tokens that are prefilled in one step", "16384"),
    "gpuMemoryUtilization": Words("vLLM's share of each GPU's memory", "0.9"),
    "kvCacheDtype": Words("how the KV cache is stored", "fp8", "`fp8` on Hopper, `fp8_e4m3` on Blackwell"),
    "speculativeTokens": Words("tokens that multi-token prediction drafts", "5"),
    "toolCalling": Words("clients may call tools", "false"),
    "reasoning": Words("the answer's reasoning is a field of its own", "true"),
    "weightsMirror": Words("where nodes fetch the weights from", "s3://my-models/glm", "Hugging Face"),
    "kvOffloadGiB": Words("host memory for KV cache that has left the GPUs", "512", "none"),
    "loadFormat": Words("how vLLM reads the weights", "safetensors"),
    "env": Words("variables of the engine's container", '{NCCL_DEBUG: "INFO"}'),
    "gate": Words("what the readiness gate does beyond its usual checks", "{longNeedleShare: 0.5}"),
}
_GATE = {
    "longNeedleShare": Words("how far into the context a longer needle is looked for", "0.5", "no longer needle"),
    "recheckMinutes": Words("how often a pod that serves is checked again", "60", "never"),
}

SECTIONS: tuple[tuple[str, str, type[BaseModel], Mapping[str, Words]], ...] = (
    ("cluster", "A cluster that the stack creates", EksClusterConfig, _EKS),
    ("cluster", "A cluster that exists", ExistingClusterConfig, _EXISTING),
    ("nodePools.NAME", "Machines", NodePoolConfig, _NODE_POOL),
    ("nodePools.NAME.capacity", "Machines on demand", OnDemand, _ON_DEMAND),
    ("nodePools.NAME.capacity", "Machines of a reservation", Reservation, _RESERVATION),
    ("nodePools.NAME.capacity", "Machines of a Capacity Block", CapacityBlock, _CAPACITY_BLOCK),
    ("workloads.NAME", "Models", WorkloadConfig, _WORKLOAD),
    ("workloads.NAME.gate", "The readiness gate", GateConfig, _GATE),
)
"""Path, heading, model and words of each section; the path of a key is the section's and the key."""


@dataclass(frozen=True)
class CliWrite:
    """What `pulumi config set --path` makes of its arguments, and what the program makes of that.

    `path` is without the project's name. `written` is the value in the stack file, `read` what the configuration then says;
    None where the program refuses it, with `said` in its sentence.
    """

    path: str
    arguments: str
    written: Any
    read: Any = None
    said: str | None = None


# By Pulumi's own coercion (sdk/go/common/resource/config/object.go): true and false, and digits without a leading zero;
# everything else is text. --type is there since 3.148. A test lets the real CLI write every row.
CLI_WRITES = (
    CliWrite("workloads.glm.maxModelLen", "65536", 65536, 65536),
    CliWrite("workloads.glm.reasoning", "true", True, True),
    CliWrite("workloads.glm.gpuMemoryUtilization", "0.9", "0.9", 0.9),
    CliWrite("workloads.glm.gpuMemoryUtilization", "--type float 0.9", 0.9, 0.9),
    CliWrite("workloads.glm.vllmVersion", "0.30.0", "0.30.0", "0.30.0"),
    CliWrite("cluster.kubernetesVersion", "1.35", "1.35", "1.35"),
    CliWrite("cluster.publicAccessCidrs[0]", "198.51.100.0/24", "198.51.100.0/24", "198.51.100.0/24"),
    CliWrite("cluster.publicAccessCidrs[1]", "198.51.100.0/24", "198.51.100.0/24", "198.51.100.0/24"),
    CliWrite("workloads.glm.env.NCCL_DEBUG", "INFO", "INFO", "INFO"),
    CliWrite("workloads.glm.env.VLLM_USE_DEEP_GEMM", "--type string 1", "1", "1"),
    CliWrite("workloads.glm.env.VLLM_USE_DEEP_GEMM", "1", 1, said='expected text in quotes, such as "1"'),
    CliWrite("workloads.glm.maxModelLen", "128k", "128k", said="expected a whole number of tokens"),
    CliWrite("workloads.glm.maxModelLen", "065536", "065536", said="expected a whole number of tokens"),
    CliWrite("workloads.glm.reasoning", "True", "True", said="expected true or false"),
)

_CAPACITY_BLOCKS = f"""\
## Capacity Blocks

A block is bought ahead, starts at its time and ends at 11:30 UTC of its last day. The program has no clock and asks AWS nothing,
so `phase` tells it where the block is. Every plan, preview and update says what the phase means and what to do next.

| phase | machines | replicas | `pulumi up` |
|---|---|---|---|
| `scheduled` | none: EKS wants a desired size of 0 before the start | none | makes everything else, and waits for no pod |
| `active` | all | all | sets the node group's desired size, starts the replicas and waits for their proof |
| `ended` | none | none | takes the replicas back, and keeps everything else for the next block |

Without `phase` a block counts as `active`. For one that has not started this means an update that waits for pods until its
deadline: EC2 gives no machine out before. When the block has started:

    pulumi config set --path '{PROJECT}:nodePools.NAME.capacity.phase' active
    pulumi up

No `aws` command is needed: the node group's desired size is the program's in every phase. 40 minutes before the end EKS drains
the machines by itself, 30 minutes before it EC2 ends what is left. From then on an update in phase `active` may ask for machines
that nobody has any more, in vain and at no cost; `ended` is for after that. A new block is another `reservationId`, with its
phase and times; its node group replaces the old one."""

_INTRODUCTION = f"""\
# Configuration

Written by `python -m serving schema --format markdown`.

A stack is one file, `Pulumi.NAME.yaml`. Its `config` holds `aws:region` and three maps, each under the project's name:
`{PROJECT}:cluster`, `{PROJECT}:nodePools` and `{PROJECT}:workloads`. The keys of the last two are names that you choose
(lower-case letters, digits and hyphens); they become names of resources, so a new name makes a new resource. An editor with a
YAML language server completes and checks all of this by the schema that the file's first line names. Every mistake is answered
in one sentence, before anything is asked of AWS.

How settings go together is checked too: a zone that offers the machine and is one of the cluster's, as many nodes as replicas, a
release whose image digest is known. Whether the combination works is what [the rules](rules.md) say.

## Changing a setting

- In the file, with a pull request: its [comment](pull-requests.md) says what the change does.
- `pulumi config set --stack NAME --path '{PROJECT}:workloads.glm.maxModelLen' 65536` writes it into the file.
- `python -m serving plan --stack NAME --set workloads.glm.maxModelLen=65536` tries it and writes nothing; the value is YAML.
  `python -m rehearsal up` has the same option.
- `pulumi config rm --stack NAME --path '{PROJECT}:workloads.glm.maxNumSeqs'` takes it out again: the default below counts.

Not `pulumi preview -c KEY=VALUE`: it writes into the file too. Nothing here is a secret, and one that `--secret` made is refused:
settings stand in plans, pods and outputs.

What `pulumi config set --path` writes, and what is made of it:

| path | arguments | in the file | read as |
|---|---|---|---|
"""


def as_markdown() -> str:
    """Return the page, without the line break at its end."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _INTRODUCTION.removesuffix("\n")
    for row in CLI_WRITES:
        outcome = f"refused: {row.said}" if row.read is None else f"`{_yaml(row.read)}`"
        yield f"| `{row.path}` | `{row.arguments}` | `{_yaml(row.written)}` | {outcome} |"
    yield ""
    yield "## `aws:region`"
    yield ""
    yield "Where the stack stands: needed with a cluster of kind `eks`. Regions that offer machines of the catalogue:"
    yield f"{_listed(sorted(catalogue.regions()))}."
    for path, heading, model, words in SECTIONS:
        yield ""
        yield f"## `{path}`: {_lower(heading)}"
        yield ""
        yield "| key | what for | type | allowed | left out | example |"
        yield "|---|---|---|---|---|---|"
        for field in model.model_fields.values():
            yield _row(field, words[str(field.alias)])
    yield ""
    yield from _CAPACITY_BLOCKS.splitlines()
    yield ""
    yield "## Names that the catalogue knows"
    yield ""
    yield from _names()


def _row(field: FieldInfo, words: Words) -> str:
    cells = (
        f"`{field.alias}`",
        words.purpose,
        _type(field.annotation),
        _allowed(field),
        _left_out(field, words),
        f"`{words.example}`",
    )
    return f"| {' | '.join(cells)} |"


def _type(annotation: Any) -> str:
    """Return a type as people name it."""
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        kinds = {_type(member) for member in get_args(annotation) if member is not NoneType}
        return " or ".join(sorted(kinds))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "map"
    return _TYPES[cast("object", get_origin(annotation) or annotation)]


def _allowed(field: FieldInfo) -> str:
    if field.description is None:  # a kind
        return f"`{get_args(field.annotation)[0]}`"
    return field.description.replace("|", "\\|")


def _left_out(field: FieldInfo, words: Words) -> str:
    if field.is_required():
        return "**required**"
    return f"`{_yaml(field.default)}`" if words.derived is None else words.derived


def _yaml(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True, exclude_none=True)
    return json.dumps(value, ensure_ascii=False)


def _names() -> Iterator[str]:
    machines = (
        f"`{name}` ({machine.shape}, in {_listed(list(machine.regions))})"
        for name, machine in catalogue.instance_types().items()
    )
    yield f"- `instanceType`: {'; '.join(machines)}"
    yield f"- `systemInstanceType`: {_listed(list(catalogue.system_instance_types()))}"
    releases = catalogue.engines().values()
    yield f"- `vllmVersion`: {_listed([row.version for row in releases if row.digest])}"
    yield f"- `vllmVersion` with an `image` of your own: {_listed([row.version for row in releases if not row.digest])}"
    for model in catalogue.model_names():
        rows = [row for row in catalogue.checkpoints().values() if row.model == model]
        yield f"- `model: {model}`: {'; '.join(f'`{row.precision}` is {row.repository}' for row in rows)}"
    versions = [row.version for row in catalogue.kubernetes_versions().values() if row.ami_release_version]
    yield f"- `kubernetesVersion`: {_listed(versions)}"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
