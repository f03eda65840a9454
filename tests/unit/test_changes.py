"""What differs between two versions of an object, and what of it makes the object anew."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.changes import changed, moves, replaces

Object = dict[str, Any]


def config_map(name: str = "programs", namespace: str = "glm", **data: str) -> Object:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"a": 1, "b": [1, {"c": 2}]}, {"a": 1, "b": [1, {"c": 2}]}, []),
        ({"a": 1}, {"a": 2}, ["a"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c"]),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, ["a[1].b"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a"]),
        ({"a": {"b": 1}}, {"a": "b"}, ["a"]),
        ({"a": None}, {}, []),
    ],
)
def test_paths_of_what_changed(old: Object, new: Object, paths: list[str]) -> None:
    assert list(changed(old, new)) == paths


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (config_map(), False),
        (config_map(other="data"), False),
        (config_map("programs-2"), True),
        (config_map(namespace="other"), True),
        (config_map() | {"metadata": {"name": "programs", "namespace": "glm", "labels": {"name": "x"}}}, False),
    ],
)
def test_another_name_is_another_object(new: Object, expected: bool) -> None:
    assert moves(config_map(), new) is expected


@pytest.mark.parametrize(
    ("kind", "old", "new", "expected"),
    [
        ("ConfigMap", config_map(a="1"), config_map(a="2"), True),
        ("ConfigMap", config_map(a="1"), config_map(a="1", b="2"), True),
        ("ConfigMap", config_map(a="1"), config_map(a="1") | {"immutable": True}, False),
        ("Deployment", {"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, False),
        ("Deployment", {"spec": {"selector": {"a": "b"}}}, {"spec": {"selector": {"a": "c"}}}, True),
        ("Deployment", {"spec": {"selectors": 1}}, {"spec": {"selectors": 2}}, False),
        ("Namespace", {"data": 1}, {"data": 2}, False),
    ],
)
def test_fields_that_replace_an_object(kind: str, old: Object, new: Object, expected: bool) -> None:
    assert replaces(kind, old, new) is expected
