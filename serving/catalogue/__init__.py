"""The catalogue: accelerators, checkpoints, engines, images, pins and Kubernetes versions, each figure with its source.

Data lives in the TOML files beside this module. An unknown key raises `UnknownKeyError`: there is no silent default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from serving.catalogue.models import (
    Architecture,
    Checkpoint,
    EfaSlot,
    Engine,
    Gpu,
    InstanceType,
    KubernetesVersion,
    OtherImage,
    Pin,
    Pool,
    Precision,
    Price,
    ServeFlags,
    SystemInstanceType,
)
from serving.spelling import UnknownKeyError, allowed, did_you_mean

__all__ = [
    "Architecture",
    "Checkpoint",
    "EfaSlot",
    "Engine",
    "Gpu",
    "InstanceType",
    "KubernetesVersion",
    "OtherImage",
    "Pin",
    "Pool",
    "Precision",
    "Price",
    "ServeFlags",
    "SystemInstanceType",
    "architecture_of",
    "checkpoint_for",
    "checkpoints",
    "engine",
    "engine_of_image",
    "engine_tag",
    "engines",
    "gpu",
    "image",
    "instance_type",
    "instance_types",
    "kubernetes_version",
    "kubernetes_versions",
    "model_names",
    "pins",
    "pools",
    "region_of_zone",
    "regions",
    "serve_flags",
    "system_instance_type",
    "system_instance_types",
]

FOLDER = Path(__file__).parent
"""Where the data files are."""

ENGINE_IMAGE = "vllm"
"""The catalogue's name of vLLM's own image; its releases are the rows of engines.toml."""

_T = TypeVar("_T")


@cache
def _file(name: str) -> Mapping[str, Mapping[str, dict[str, Any]]]:
    with (FOLDER / f"{name}.toml").open("rb") as stream:
        return tomllib.load(stream)


def _table(file: str, key: str) -> Mapping[str, dict[str, Any]]:
    return _file(file)[key]


def _pick(kind: str, table: Mapping[str, _T], name: str) -> _T:
    if name not in table:
        raise UnknownKeyError(f"unknown {kind} {name!r}; {allowed(sorted(table))}{did_you_mean(name, table)}")
    return table[name]


@cache
def _gpus() -> dict[str, Gpu]:
    return {name: Gpu.model_validate({"name": name, **row}) for name, row in _table("accelerators", "gpu").items()}


@cache
def instance_types() -> dict[str, InstanceType]:
    """Every EC2 instance type with eight GPUs that the catalogue knows, by name."""
    rows = _table("accelerators", "instance_type").items()
    return {name: InstanceType.model_validate({"name": name, **row, "gpu": _gpus()[row["gpu"]]}) for name, row in rows}


@cache
def system_instance_types() -> dict[str, SystemInstanceType]:
    """Every EC2 instance type that may carry system pods, by name."""
    rows = _table("accelerators", "system_instance_type").items()
    return {name: SystemInstanceType.model_validate({"name": name, **row}) for name, row in rows}


@cache
def _architectures() -> dict[str, Architecture]:
    return {
        name: Architecture.model_validate({"name": name, **row})
        for name, row in _table("checkpoints", "architecture").items()
    }


@cache
def checkpoints() -> dict[str, Checkpoint]:
    """Every published checkpoint, by Hugging Face repository id."""
    rows = _table("checkpoints", "checkpoint").items()
    return {repo: Checkpoint.model_validate({**_model(row["model"]), "repository": repo, **row}) for repo, row in rows}


def _model(name: str) -> dict[str, Any]:
    """Return what every checkpoint of a model shares."""
    row = _table("checkpoints", "model")[name]
    return {**row, "architecture": _architectures()[row["architecture"]]}


def architecture_of(model: str) -> Architecture:
    """Return the layers of a model that has a checkpoint."""
    return next(row.architecture for row in checkpoints().values() if row.model == model)


def model_names() -> list[str]:
    """Return the models that have a checkpoint, as stack files name them."""
    return list(dict.fromkeys(row.model for row in checkpoints().values()))


@cache
def pins() -> dict[str, dict[str, Pin]]:
    """Every tag whose digest is known, by the image's name in the catalogue and the tag."""
    return {name: {tag: Pin.model_validate(row) for tag, row in tags.items()} for name, tags in _file("pins").items()}


def engine_tag(version: str) -> str:
    """Return the tag under which vLLM publishes a release: v0.31.0 for 0.31.0."""
    return f"v{version}"


def _digest(image_name: str, tag: str | None) -> str | None:
    pin = pins().get(image_name, {}).get(tag or "")
    return pin and pin.digest


@cache
def engines() -> dict[str, Engine]:
    """Every vLLM release that the catalogue knows, by version."""
    return {
        version: Engine(version=version, digest=_digest(ENGINE_IMAGE, engine_tag(version)), **row)
        for version, row in _table("engines", "engine").items()
    }


@cache
def pools() -> dict[str, Pool]:
    """Every measured and published KV cache pool, by its name in the records."""
    defaults = _table("pools", "defaults")
    return {name: _pool(name, {**defaults, **row}) for name, row in _table("pools", "pool").items()}


def _pool(name: str, row: Mapping[str, Any]) -> Pool:
    of = {
        "checkpoint": checkpoints()[row["checkpoint"]],
        "engine": engines()[row["engine"]],
        "gpu": _gpus()[row["gpu"]],
    }
    return Pool.model_validate({"name": name, **row, **of})


@cache
def kubernetes_versions() -> dict[str, KubernetesVersion]:
    """Every EKS version that the catalogue knows."""
    rows = _table("kubernetes", "version").items()
    return {version: KubernetesVersion.model_validate({"version": version, **row}) for version, row in rows}


@cache
def serve_flags() -> ServeFlags:
    """Return every flag of `vllm serve`, as in the one release whose parser was read."""
    (row,) = _table("flags", "parser").items()
    return ServeFlags.model_validate({"release": row[0], **row[1]})


@cache
def _images() -> dict[str, OtherImage]:
    return {
        name: OtherImage(name=name, digest=_digest(name, row.get("version")), **row)
        for name, row in _table("images", "image").items()
    }


def gpu(name: str) -> Gpu:
    """Return a GPU model by name, for example `H200`."""
    return _pick("GPU", _gpus(), name)


def instance_type(name: str) -> InstanceType:
    """Return an eight-GPU instance type by its EC2 name."""
    return _pick("instance type", instance_types(), name)


def system_instance_type(name: str) -> SystemInstanceType:
    """Return an instance type for system pods by its EC2 name."""
    return _pick("system instance type", system_instance_types(), name)


def engine(version: str) -> Engine:
    """Return a vLLM release by version, for example `0.31.0`."""
    return _pick("vLLM release", engines(), version)


def engine_of_image(reference: str) -> Engine | None:
    """Return the release whose digest an image reference carries, or None if the catalogue has no such digest."""
    digest = reference.rpartition("@")[2]
    return next((release for release in engines().values() if release.digest == digest), None)


def image(name: str) -> OtherImage:
    """Return an image other than the engine's, by the catalogue's name for it."""
    return _pick("image", _images(), name)


def kubernetes_version(version: str) -> KubernetesVersion:
    """Return an EKS version, for example `1.36`."""
    return _pick("Kubernetes version", kubernetes_versions(), version)


def checkpoint_for(model: str, precision: str) -> Checkpoint:
    """Return the checkpoint of a model at a precision; raise `UnknownKeyError` if none is published."""
    by_precision = {row.precision: row for row in checkpoints().values() if row.model == model}
    return _pick(f"precision of {model}", by_precision, precision)


def regions() -> dict[str, str]:
    """Return AWS regions with the prefix of their availability-zone ids, for example us-east-1 -> use1."""
    return {name: str(prefix) for name, prefix in _table("accelerators", "region_prefix").items()}


def region_of_zone(zone_id: str) -> str | None:
    """Return the region of an availability-zone id such as use1-az6, or None if the catalogue does not know it."""
    prefix = zone_id.rpartition("-")[0]
    return next((region for region, known in regions().items() if known == prefix), None)
