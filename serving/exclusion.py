"""Which vLLM releases no stack may serve with: the rule table says so, on every machine there is."""

from __future__ import annotations

from serving import catalogue
from serving.config import PROJECT, parse
from serving.plan import build
from serving.rules import Violation

# No rule looks at what the digest is, only that there is one; the release is stated beside it.
_SOME_DIGEST = f"sha256:{'0' * 64}"
_SHORT_CONTEXT = 131_072  # every machine has room for it


def excluded(version: str) -> tuple[Violation, ...]:
    """Return why a release is refused on every machine, with the settings a stack has by default; nothing if one takes it."""
    refused = [_refused(version, name) for name in catalogue.instance_types()]
    if not all(refused):
        return ()
    return tuple({(violation.rule, violation.message): violation for found in refused for violation in found}.values())


def _refused(version: str, instance_type: str) -> tuple[Violation, ...]:
    workload = {
        "nodePool": "machines",
        "precision": "fp8",
        "replicas": 1,
        "maxModelLen": _SHORT_CONTEXT,
        "vllmVersion": version,
        "image": f"{catalogue.image(catalogue.ENGINE_IMAGE).repository}@{_SOME_DIGEST}",
    }
    settings = {
        f"{PROJECT}:cluster": {"kind": "existing", "context": "any"},
        f"{PROJECT}:nodePools": {"machines": {"instanceType": instance_type, "nodes": 1}},
        f"{PROJECT}:workloads": {"any": workload},
    }
    return tuple(build(parse(settings, f"vLLM {version}"), "any").violations)
