"""Reading a stack file and the overrides of a command line. The only place in this package that reads a user's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from serving.config import PROJECT, ConfigError
from serving.spelling import did_you_mean, listed

# The keys that Pulumi itself gives a stack file.
_STACK_FILE_KEYS = ("config", "environment", "encryptedkey", "encryptionsalt", "secretsprovider")


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice: the second would silently win."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark)
        seen.add(key)
    return cast("dict[object, object]", loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def stack_file(stack: str, folder: Path) -> Path:
    """Return the path of a stack's file; raise `ConfigError` if there is none."""
    path = folder / f"Pulumi.{stack}.yaml"
    if not path.is_file():
        stacks = sorted(p.name.split(".")[1] for p in folder.glob("Pulumi.*.yaml"))
        hint = f"; there are {listed(stacks)}{did_you_mean(stack, stacks)}" if stacks else ""
        raise ConfigError([f"{path.name}: there is no such stack file in {folder}{hint}"])
    return path


def read(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return a stack file's configuration with `PATH=VALUE` overrides applied, keys with their namespaces."""
    where = path.name
    try:
        document: object = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise ConfigError([f"{where}:{line} not valid YAML: {error.problem}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{where}: not valid YAML: {error}".replace("\n", " ")]) from None
    settings = _settings(document, where)
    for override in overrides:
        _apply(settings, override)
    return settings


def _settings(document: object, where: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ConfigError([f"{where}: expected a map with the key config, found {type(document).__name__}"])
    top = cast("dict[object, object]", document)
    for key in top:
        if key not in _STACK_FILE_KEYS:
            hint = did_you_mean(str(key), _STACK_FILE_KEYS)
            raise ConfigError([f"{where}: unknown key {key!r}; allowed are {listed(_STACK_FILE_KEYS)}{hint}"])
    config = top.get("config")
    if not isinstance(config, dict):
        raise ConfigError([f"{where}: config: expected a map of settings such as aws:region, found {config!r}"])
    return {str(key): value for key, value in cast("dict[object, Any]", config).items()}


def _apply(settings: dict[str, Any], override: str) -> None:
    """Set one value by its path, as `pulumi config set --path` would: workloads.glm.maxModelLen=262144."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip("."):
        raise ConfigError([f"--set {override}: expected PATH=VALUE such as workloads.glm.maxModelLen=262144"])
    first, *rest = path.split(".")
    keys = [first if ":" in first else f"{PROJECT}:{first}", *rest]
    target: dict[str, Any] = settings
    for depth, key in enumerate(keys[:-1]):
        below = target.setdefault(key, {})
        if not isinstance(below, dict):
            parent = ".".join(path.split(".")[: depth + 1])
            raise ConfigError([f"--set {override}: {parent} is {below!r}, not a map; nothing can be set below it"])
        target[key] = dict(cast("Mapping[str, Any]", below))
        target = target[key]
    try:
        target[keys[-1]] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError([f"--set {override}: the value is not valid YAML; quote it"]) from None
