"""AWS's own description of its APIs, as botocore carries it: no credentials, no network.

The modules are imported on first use: they cost about 0.3 s, the EC2 model another 0.1 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol


class Shape(Protocol):
    """The part of a botocore shape that the stand-in looks at (botocore has no type stubs)."""

    name: str
    type_name: str
    metadata: Mapping[str, Any]
    # Present on structures, lists, maps and strings, in this order.
    members: Mapping[str, Shape]
    required_members: Sequence[str]
    member: Shape
    key: Shape
    value: Shape
    enum: Sequence[str]


# How the services name themselves in refusals.
_TITLES = {"ec2": "EC2", "eks": "EKS", "iam": "IAM", "kms": "KMS", "logs": "CloudWatch Logs"}


@cache
def _service(service: str) -> Any:
    loader = import_module("botocore.loaders").Loader()
    return import_module("botocore.model").ServiceModel(loader.load_service_model(service, "service-2"), service)


@cache
def request_shape(service: str, operation: str) -> Shape:
    """Return the shape of an operation's request."""
    return _service(service).operation_model(operation).input_shape


def second_opinion(params: Mapping[str, object], shape: Shape) -> str | None:
    """Return what botocore's own validator has against a request, in one line, or None."""
    report = import_module("botocore.validate").ParamValidator().validate(params, shape)
    return " ".join(str(report.generate_report()).split()) if report.has_errors() else None


@cache
def cited(service: str, operation: str) -> str:
    """Return an operation as refusals cite it: `EKS CreateNodegroup, botocore 1.44.5`."""
    return f"{_TITLES[service]} {operation}, botocore {import_module('botocore').__version__}"
