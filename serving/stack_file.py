"""Reading a stack file and the overrides of a command line. The only place in this package that reads a user's files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from serving.config import PROJECT, STACK_FILE_KEYS, ConfigError
from serving.spelling import allowed, did_you_mean

_MOST_VALUES = 10_000  # a stack file has about thirty

EXAMPLES = "examples"
"""The folder of stack files beside a project's own that show other shapes."""

_MERGE_TAG = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice: the second would silently win."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep)  # pyright: ignore[reportUnknownMemberType]
        except ValueError as error:  # a date or a number in form but not in fact, such as 2026-02-30
            problem = f"{node.value!r} is no value ({error}); put it in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE_TAG:
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(
                problem="a map or a list stands where a key is expected; put text with {{ }} in quotes",
                problem_mark=key_node.start_mark,
            )
        key: object = loader.construct_object(key_node)  # pyright: ignore[reportUnknownMemberType]
        if key in seen:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key_node.value!r} is given twice; keep one of them", problem_mark=key_node.start_mark
            )
        seen.add(key)
    return cast("dict[object, object]", loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def stack_file(stack: str, folder: Path) -> Path:
    """Return the path of a stack's file, or of an example's; raise `ConfigError` if there is none."""
    name = f"Pulumi.{stack}.yaml"
    path = next((place / name for place in (folder, folder / EXAMPLES) if (place / name).is_file()), None)
    if path is None:
        own, examples = stacks(folder), stacks(folder / EXAMPLES)
        hint = "it has no stack file at all"
        if own or examples:
            hint = f"{allowed(own or examples)}{did_you_mean(stack, [*own, *examples])}"
        raise ConfigError([f"--stack {stack}: there is no {name} in {folder}; {hint}"])
    return path


def stacks(folder: Path) -> list[str]:
    """Return the names of a folder's stacks, sorted."""
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in folder.glob("Pulumi.*.yaml"))


def read(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Return a stack file's configuration with `PATH=VALUE` overrides applied, keys with their namespaces."""
    settings: dict[str, Any] = document(path)["config"]
    for override in overrides:
        _apply(settings, override)
    return settings


def document(path: Path) -> dict[str, Any]:
    """Return all that a stack file says: `config`, and what Pulumi itself reads, such as `secretsprovider`."""
    where = path.name
    try:
        return _checked(_load(path.read_text(encoding="utf-8")), where)
    except UnicodeDecodeError as error:
        raise ConfigError([f"{where}: byte {error.start} is not UTF-8; save the file as UTF-8"]) from None
    except _NotYamlError as error:
        raise ConfigError([f"{where}: {error}"]) from None


class _NotYamlError(Exception):
    """Text that is not YAML, or not the part of it that a stack file may use. Its text is the end of a sentence."""


def _load(text: str) -> object:
    try:
        loaded: object = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise _NotYamlError("maps and lists lie in each other too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        words = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces, not with tabs" if "'\\t'" in words else ""
        raise _NotYamlError(f"{line}not valid YAML: {words}{hint}") from None
    except yaml.reader.ReaderError as error:
        raise _NotYamlError(
            f"not valid YAML: character {error.character:#04x} at position {error.position} is not allowed"
        ) from None
    if _is_larger(loaded, _MOST_VALUES):
        raise _NotYamlError(f"more than {_MOST_VALUES:,} values once anchors are followed; write them out")
    return loaded


def _is_larger(value: object, limit: int) -> bool:
    """Whether a value holds more values than the limit. An alias can stand for millions of them, or for what it lies in."""
    waiting: list[object] = [value]
    for _ in range(limit):
        if not waiting:
            return False
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(cast("dict[object, object]", item).values())
        elif isinstance(item, list):
            waiting.extend(cast("list[object]", item))
    return bool(waiting)


def _checked(loaded: object, where: str) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        raise ConfigError([f"{where}: expected a map with the key config, found {_found(loaded)}"])
    top = cast("dict[str, Any]", loaded)
    for key in top:
        if key not in STACK_FILE_KEYS:
            hint = did_you_mean(str(key), STACK_FILE_KEYS)
            raise ConfigError([f"{where}: unknown key {key!r}; {allowed(STACK_FILE_KEYS)}{hint}"])
    config = top.get("config")
    if not isinstance(config, dict):
        raise ConfigError([f"{where}: config: expected a map of settings such as aws:region, found {_found(config)}"])
    return {**top, "config": {str(key): value for key, value in cast("dict[object, Any]", config).items()}}


def _found(value: object) -> str:
    """Say what a value is where a map was expected."""
    if value is None:
        return "nothing"
    return f"a list of {len(cast('list[object]', value))}" if isinstance(value, list) else repr(value)


def _apply(settings: dict[str, Any], override: str) -> None:
    """Set one value by its path, as `pulumi config set --path` would: workloads.glm.maxModelLen=262144."""
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
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
        target[keys[-1]] = _load(text)
    except _NotYamlError as error:
        raise ConfigError([f"--set {override}: {error}"]) from None
