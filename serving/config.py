"""What a stack file may say: the shape of the configuration, checked against the catalogue.

`parse` turns the plain mapping of a stack file into a frozen `StackConfig` or raises `ConfigError`, whose lines are one
sentence each: where, what was given, what is allowed, the nearest valid spelling. A field's description is the second
half of its error message, so it says what is allowed, with units.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from serving import catalogue
from serving.config_errors import sentences
from serving.contradictions import contradictions
from serving.facts import IMAGE_DIGEST
from serving.spelling import InputError, UnknownKeyError, allowed, did_you_mean, nearest

PROJECT = "glm-on-gpus"
STACK_FILE_KEYS = ("config", "environment", "encryptedkey", "encryptionsalt", "secretsprovider")
"""The keys that Pulumi itself gives a stack file."""

_PROVIDER_NAMESPACES = ("aws", "kubernetes", "pulumi")
_TOP_LEVEL = ("cluster", "nodePools", "workloads")


# EC2 gives two minutes' notice before it takes a spot machine back (EC2 user guide, spot interruption notices).
_NO_SPOT = (
    "a spot machine is taken back at two minutes' notice, and a replica needs about half an hour to load elsewhere; "
    "use kind onDemand, reservation or capacityBlock"
)

NO_SECRETS = (
    "settings end up in plain text in plans, pods and outputs; take it out and set it without --secret, or not here"
)


class ConfigError(InputError):
    """A stack file that cannot be used. `problems` holds one sentence for each mistake."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def _known_instance_type(name: str) -> str:
    return catalogue.instance_type(name).name


def _known_system_instance_type(name: str) -> str:
    return catalogue.system_instance_type(name).name


def _known_engine(version: str) -> str:
    return catalogue.engine(version).version


def _usable_kubernetes_version(version: str) -> str:
    known = catalogue.kubernetes_versions()
    usable = [row.version for row in known.values() if row.ami_release_version]
    if version in usable:
        return version
    if version in known:
        ends = known[version].standard_support_ends
        raise UnknownKeyError(
            f"Kubernetes {version} has no pinned AMI release (standard support ends {ends}); {allowed(usable)}"
        )
    raise UnknownKeyError(f"unknown Kubernetes version {version!r}; {allowed(usable)}{did_you_mean(version, usable)}")


def _known_model(name: str) -> str:
    names = catalogue.model_names()
    if name not in names:
        raise UnknownKeyError(f"unknown model {name!r}; {allowed(names)}{did_you_mean(name, names)}")
    return name


_FRACTION = r"^[01]?\.\d+$"
_FractionAsWritten = Annotated[float, Field(gt=0.0, le=1.0)] | Annotated[str, Field(pattern=_FRACTION)]


def _fraction(given: object) -> object:
    """Read a fraction in quotes: `pulumi config set --path` writes whole numbers and booleans as such, but 0.9 as text."""
    return float(given) if isinstance(given, str) and re.fullmatch(_FRACTION, given) else given


_MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$"
_A_MOMENT = 'a time in quotes with its zone, such as "2026-12-08T11:30:00Z"'


def _moment(given: object) -> datetime:
    """Read a time as AWS writes it.

    Only as text: Pulumi makes another text, `2026-12-08 11:30:00 +0000 UTC`, of a time without quotes, and writes it back.
    """
    if not isinstance(given, str):
        raise InputError(f"{given} is not in quotes; expected {_A_MOMENT}")
    if not re.fullmatch(_MOMENT, given):
        raise InputError(f"{given!r} is not allowed; expected {_A_MOMENT}")
    try:
        return datetime.fromisoformat(given)
    except ValueError as error:
        raise InputError(f"{given!r} is no time ({error}); expected {_A_MOMENT}") from None


def _private_cidr(cidr: str) -> str:
    try:
        network = ip_network(cidr)
    except ValueError as error:
        raise InputError(f"{error}; expected an IPv4 network between /16 and /20 such as 10.0.0.0/16") from None
    if network.version != 4 or not 16 <= network.prefixlen <= 20 or not network.is_private:
        raise InputError(f"{cidr} is not a private IPv4 network between /16 and /20; use one such as 10.0.0.0/16")
    return cidr


def _named_cidr(cidr: str) -> str:
    try:
        network = ip_network(cidr)
    except ValueError as error:
        raise InputError(f"{error}; expected an IPv4 network such as 203.0.113.0/24") from None
    if network.prefixlen > 0 and network.version != 4:
        raise InputError(f"{cidr} is an IPv6 network; expected an IPv4 network such as 203.0.113.0/24")
    if network.prefixlen == 0:
        raise InputError(
            f"{cidr} opens the Kubernetes API to everybody; name your own networks, or leave the list empty"
        )
    return cidr


Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$",
        description="lower-case letters, digits and hyphens, beginning with a letter, at most 30 characters",
    ),
]
ZoneId = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9-]+-az\d+$",
        description="an availability-zone id such as use1-az6; "
        "a name such as us-east-1a stands for another zone in every account",
    ),
]
Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=Annotated[str, Field(pattern=_MOMENT)])]
EfaPluginImage = Annotated[
    str,
    Field(pattern=IMAGE_DIGEST.pattern, description="an image by digest, repository@sha256:…"),
]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
        use_attribute_docstrings=True,
    )


class EksClusterConfig(_Model):
    """An EKS cluster that the stack creates, with its network."""

    kind: Literal["eks"]
    kubernetes_version: Annotated[str, AfterValidator(_usable_kubernetes_version)] = "1.36"
    """an EKS version in quotes, such as "1.36\""""
    availability_zone_ids: Annotated[tuple[ZoneId, ...], Field(min_length=2, max_length=4, strict=False)]
    """two to four availability-zone ids such as [use1-az6, use1-az2]; EKS needs two, GPU pools name one of them"""
    vpc_cidr: Annotated[str, AfterValidator(_private_cidr)] = "10.0.0.0/16"
    """a private IPv4 network between /16 and /20 such as 10.0.0.0/16"""
    public_access_cidrs: Annotated[tuple[Annotated[str, AfterValidator(_named_cidr)], ...], Field(strict=False)] = ()
    """a list of networks that may reach the Kubernetes API, such as [203.0.113.0/24]; empty for the private endpoint only"""
    admin_role_arns: dict[
        Name,
        Annotated[
            str,
            Field(
                pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/\S+$",
                description="the ARN of an IAM role, arn:aws:iam::<12-digit account>:role/<role>",
            ),
        ],
    ] = {}
    """a map {name: ARN} of the IAM roles that administer the cluster besides the one that runs Pulumi"""
    system_instance_type: Annotated[str, AfterValidator(_known_system_instance_type)] = "m7i.large"
    """an instance type for system pods such as m7i.large"""
    system_nodes: Annotated[int, Field(ge=1, le=20)] = 2
    """a whole number of nodes from 1 to 20"""
    addon_versions: dict[
        str,
        Annotated[
            str,
            Field(
                pattern=r"^v\d+\.\d+\.\d+-eksbuild\.\d+$",
                description="a version as EKS writes it, such as v1.23.1-eksbuild.1",
            ),
        ],
    ] = {}
    """a map from an add-on to its version such as {vpc-cni: v1.23.1-eksbuild.1}; an add-on left out gets the default of EKS"""
    efa_plugin_image: EfaPluginImage | None = None
    """an image by digest, repository@sha256:…; the catalogue's EFA device plugin if left out"""
    deletion_protection: bool = False
    """true or false"""


class ExistingClusterConfig(_Model):
    """A cluster that exists: the stack installs into it and provisions nothing around it."""

    kind: Literal["existing"]
    context: Annotated[str, Field(min_length=1)]
    """the name of a context in the kubeconfig"""
    kubeconfig: Annotated[str, Field(min_length=1)] = "~/.kube/config"
    """the path of a kubeconfig file"""
    install_device_plugin: bool = False
    """true or false; true only if nothing else in the cluster hands out its GPUs and EFA interfaces"""
    install_leader_worker_set: bool = False
    """true or false; true only if the cluster has no LeaderWorkerSet controller, which replicas of several nodes need"""
    install_admission_policies: bool = True
    """true or false; false only if you may not create admission policies there, then kubectl can get around the rules"""
    efa_plugin_image: EfaPluginImage | None = None
    """an image by digest, repository@sha256:…; the catalogue's EFA device plugin if left out"""


class OnDemand(_Model):
    """On-demand machines."""

    kind: Literal["onDemand"]


class Reservation(_Model):
    """An on-demand capacity reservation."""

    kind: Literal["reservation"]
    reservation_id: Annotated[str, Field(pattern=r"^cr-[0-9a-f]{17}$")]
    """the id of the capacity reservation: cr- and 17 hexadecimal digits"""


class CapacityBlock(_Model):
    """A Capacity Block that has been bought; the stack never buys one."""

    kind: Literal["capacityBlock"]
    reservation_id: Annotated[str, Field(pattern=r"^cr-[0-9a-f]{17}$")]
    """the id of the Capacity Block's reservation: cr- and 17 hexadecimal digits"""
    phase: Literal["scheduled", "active", "ended"] = "active"
    """scheduled, active or ended: only in an active block do machines and replicas run"""
    starts_at: Moment | None = None
    """a time in quotes with its zone, such as "2026-12-01T11:30:00Z\""""
    ends_at: Moment | None = None
    """a time in quotes with its zone, such as "2026-12-08T11:30:00Z\""""

    @property
    def is_active(self) -> bool:
        """Whether EC2 gives the block's machines out."""
        return self.phase == "active"


class NodePoolConfig(_Model):
    """A pool of eight-GPU machines."""

    instance_type: Annotated[str, AfterValidator(_known_instance_type)]
    """an instance type with eight GPUs such as p5en.48xlarge"""
    nodes: Annotated[int, Field(ge=1, le=64)]
    """a whole number of nodes from 1 to 64"""
    availability_zone_id: ZoneId | None = None
    """an availability-zone id such as use1-az6; a name such as us-east-1a stands for another zone in every account"""
    capacity: Annotated[OnDemand | Reservation | CapacityBlock, Field(discriminator="kind")] | None = None
    """{kind: onDemand}, {kind: reservation, reservationId: cr-…} or {kind: capacityBlock, reservationId: cr-…}"""
    efa: bool = False
    """true or false; replicas of several nodes need EFA, one node's eight GPUs do not"""
    root_volume_gib: Annotated[int, Field(alias="rootVolumeGiB", ge=50, le=16_384)] = 200
    """a whole number of GiB from 50 to 16384; the weights do not live there"""
    ami_release_version: Annotated[str, Field(pattern=r"^\d\.\d+\.\d+-\d{8}$")] | None = None
    """an EKS AMI release such as 1.36.2-20260714; the catalogue's if left out"""


class GateConfig(_Model):
    """What the readiness gate does beyond the checks that every plan calls for."""

    long_needle_share: Annotated[float, Field(ge=0.01, le=0.95), BeforeValidator(_fraction)] | None = None
    """a fraction of maxModelLen from 0.01 to 0.95, such as 0.5: how far a longer needle is looked for; none if left out"""
    recheck_minutes: Annotated[int, Field(ge=5, le=10_080)] | None = None
    """a whole number of minutes from 5 to 10080 between re-checks of a pod that serves; none if left out"""


class WorkloadConfig(_Model):
    """A model served by vLLM."""

    node_pool: str
    """the name of one of the nodePools"""
    model: Annotated[str, AfterValidator(_known_model)] = "glm-5.2"
    """a model of the catalogue such as glm-5.2"""
    precision: Literal["fp8", "bf16", "nvfp4"]
    """fp8, bf16 or nvfp4"""
    revision: str | None = None
    """a commit of the model's repository, 40 hexadecimal digits; the catalogue's if left out"""
    vllm_version: Annotated[str, AfterValidator(_known_engine)] = "0.31.0"
    """a vLLM release in quotes, such as "0.31.0\""""
    image: str | None = None
    """an image by digest, repository@sha256:…; the release's public image if left out"""
    replicas: Annotated[int, Field(ge=1, le=64)]
    """a whole number of replicas from 1 to 64; each takes nodesPerReplica whole nodes"""
    nodes_per_replica: Annotated[int, Field(ge=1, le=4)] = 1
    """a whole number of nodes from 1 to 4; more than one serve a model together, over EFA"""
    pipeline_parallel_size: Annotated[int, Field(ge=1, le=4)] = 1
    """a whole number of pipeline stages from 1 to 4; the GPUs of a stage share its layers by tensor parallelism"""
    decode_context_parallel_size: Annotated[int, Field(ge=1, le=32)] = 1
    """a whole number of GPUs from 1 to 32 that keep a request's KV cache together; it divides the tensor parallel size"""
    max_model_len: Annotated[int, Field(ge=1024, le=1_048_576)]
    """a whole number of tokens from 1024 to 1048576, without a unit"""
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] | None = None
    """a whole number of requests from 1 to 4096; derived by the plan if left out"""
    max_num_batched_tokens: Annotated[int, Field(ge=1024, le=131_072)] = 8192
    """a whole number of tokens from 1024 to 131072"""
    gpu_memory_utilization: Annotated[
        float, Field(gt=0.0, le=1.0), BeforeValidator(_fraction, json_schema_input_type=_FractionAsWritten)
    ] = 0.92
    """a fraction above 0 and up to 1, such as 0.92"""
    kv_cache_dtype: Literal["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_ds_mla", "nvfp4_ds_mla"] | None = None
    """auto, bfloat16, fp8, fp8_e4m3, fp8_ds_mla or nvfp4_ds_mla; the right one for the GPU if left out"""
    speculative_tokens: Annotated[int, Field(ge=0, le=8)] = 3
    """a whole number of MTP tokens from 0 (off) to 8"""
    tool_calling: bool = True
    """true or false"""
    reasoning: bool = True
    """true or false"""
    weights_mirror: (
        Annotated[
            str,
            Field(
                pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*()-]+)+$",
                description="a folder in S3 such as s3://my-models/glm",
            ),
        ]
        | None
    ) = None
    """a folder in S3 such as s3://my-models/glm, filled by `python -m serving mirror`; Hugging Face if left out"""
    kv_offload_gib: Annotated[Annotated[int, Field(ge=1, le=4096)] | None, Field(alias="kvOffloadGiB")] = None
    """a whole number of GiB of host memory from 1 to 4096 that hold KV cache which the GPUs have no room for; none if left out"""
    load_format: Literal["auto", "safetensors", "fastsafetensors", "instanttensor", "runai_streamer"] = "auto"
    """auto, safetensors, fastsafetensors, instanttensor or runai_streamer"""
    env: dict[
        Annotated[
            str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", description="a variable's name in capitals, such as NCCL_DEBUG")
        ],
        Annotated[str, Field(description='text in quotes, such as "1"')],
    ] = {}
    """a map of environment variables, names in capitals and values in quotes"""
    gate: GateConfig = GateConfig()
    """a map with longNeedleShare and recheckMinutes; the readiness gate's usual checks if left out"""


class StackConfig(_Model):
    """Everything a stack file says. `region` is the stack's `aws:region`."""

    region: str | None = None
    """an AWS region such as us-east-1"""
    cluster: Annotated[EksClusterConfig | ExistingClusterConfig, Field(discriminator="kind")]
    """a map that begins with kind: eks or kind: existing"""
    node_pools: Annotated[dict[Name, NodePoolConfig], Field(min_length=1)]
    """a map from a pool's name to its settings, with at least one pool"""
    workloads: Annotated[dict[Name, WorkloadConfig], Field(min_length=1)]
    """a map from a workload's name to its settings, with at least one workload"""


def parse(settings: Mapping[str, object], where: str = "config") -> StackConfig:
    """Return the configuration of a stack; `settings` are its keys with their namespaces, as in a stack file.

    Raises `ConfigError` with one sentence for each problem; `where` begins each of them.
    """
    problems = list(_key_problems(settings))
    own = _sections(settings)
    refused = [f"{path} holds a secret; {NO_SECRETS}" for path in _secrets(own, "")] + list(_spot_problems(own))
    if refused:
        raise ConfigError([f"{where}: {problem}" for problem in refused])
    if "aws:region" in settings:
        own["region"] = settings["aws:region"]
    try:
        config = StackConfig.model_validate(own)
    except ValidationError as error:
        problems += sentences(error, StackConfig)
    else:
        problems += contradictions(config)
        if not problems:
            return config
    # A key may hold a line break, a problem is one line.
    raise ConfigError([f"{where}: {problem}".replace("\n", "\\n") for problem in problems])


def _sections(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the sections and the region by name.

    Also those under a wrong namespace and misspelt ones: one mistake is not reported as two, and what is inside is checked.
    """
    names = (*_TOP_LEVEL, "region")
    given = {key.rpartition(":")[2]: value for key, value in settings.items() if not _is_a_providers(key)}
    meant = {nearest(name, names): value for name, value in given.items() if name not in names}
    right = {name: value for name, value in given.items() if name in names}
    return right | {name: value for name, value in meant.items() if name and name not in right}


def _secrets(value: object, path: str) -> Iterator[str]:
    """Yield the paths of encrypted values, which Pulumi writes as {secure: …}."""
    if isinstance(value, dict):
        table = cast("dict[object, object]", value)
        if list(table) == ["secure"]:
            yield path
            return
        for key, item in table.items():
            yield from _secrets(item, f"{path}.{key}" if path else str(key))


def _spot_problems(own: Mapping[str, object]) -> Iterator[str]:
    """Say why there is no such kind of capacity: a bare "unknown kind" would be read as an oversight."""
    for name, pool in _items(own.get("nodePools")):
        if dict(_items(dict(_items(pool)).get("capacity"))).get("kind") == "spot":
            yield f"nodePools.{name}.capacity: {_NO_SPOT}"


def _items(value: object) -> list[tuple[str, object]]:
    return list(cast("dict[str, object]", value).items()) if isinstance(value, dict) else []


def _is_a_providers(key: str) -> bool:
    return key.rpartition(":")[0] in _PROVIDER_NAMESPACES


def _key_problems(settings: Mapping[str, object]) -> Iterator[str]:
    namespaces = (*_PROVIDER_NAMESPACES, PROJECT)
    for key in settings:
        namespace, colon, name = key.partition(":")
        if not colon:
            yield f"{key}: a key needs a namespace; write {'aws' if key == 'region' else PROJECT}:{key}"
        elif namespace not in namespaces:
            yield f"{key}: unknown namespace {namespace!r}; {allowed(namespaces)}{did_you_mean(namespace, namespaces)}"
        elif namespace == PROJECT and name == "region":
            yield f"{key}: unknown key; write aws:region"
        elif namespace == PROJECT and name not in _TOP_LEVEL:
            yield f"{key}: unknown key; {allowed(_TOP_LEVEL)}{did_you_mean(name, _TOP_LEVEL)}"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a stack file, for editors (yaml-language-server)."""
    schema = _closed(StackConfig.model_json_schema(by_alias=True))
    for model, key, names in _known_names():
        schema["$defs"][model]["properties"][key]["enum"] = names
    properties = {f"{PROJECT}:{key}": schema["properties"][key] for key in _TOP_LEVEL}
    properties["aws:region"] = {"type": "string", "enum": sorted(catalogue.regions())}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stack file of glm-on-gpus",
        "type": "object",
        "required": ["config"],
        "propertyNames": {"enum": list(STACK_FILE_KEYS)},
        "properties": {
            "config": {
                "type": "object",
                "properties": properties,
                "required": [f"{PROJECT}:{key}" for key in _TOP_LEVEL],
                "propertyNames": {
                    "pattern": f"^({'|'.join(_PROVIDER_NAMESPACES)}):|^{PROJECT}:({'|'.join(_TOP_LEVEL)})$"
                },
            }
        },
        "$defs": schema["$defs"],
    }


def _known_names() -> Iterator[tuple[str, str, list[str]]]:
    """Yield the model and key of each setting whose values the catalogue knows, so that an editor completes them."""
    usable = [row.version for row in catalogue.kubernetes_versions().values() if row.ami_release_version]
    yield "EksClusterConfig", "kubernetesVersion", usable
    yield "EksClusterConfig", "systemInstanceType", list(catalogue.system_instance_types())
    yield "NodePoolConfig", "instanceType", list(catalogue.instance_types())
    yield "WorkloadConfig", "model", catalogue.model_names()
    yield "WorkloadConfig", "vllmVersion", list(catalogue.engines())


def _closed(node: Any) -> Any:
    """Refuse the names that a map's pattern does not allow: JSON Schema lets them pass unless told not to."""
    if isinstance(node, list):
        return [_closed(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    inside = {key: _closed(value) for key, value in cast("dict[str, Any]", node).items()}
    return {**inside, "additionalProperties": False} if "patternProperties" in inside else inside
