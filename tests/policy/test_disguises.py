"""The disguises that the API server's policies are held to, through the pack, which reads more of them."""

from __future__ import annotations

import pytest

from tests.fixtures.disguises import DISGUISES, Disguise
from tests.fixtures.manifests import in_kind
from tests.policy.analyzer import Analyzer

ADMISSION = {"bf16-one-node", "image-digest", "model-revision", "dev-mode", "host-path"}
# What the API server refuses unread, and what the pack has to say of it.
READ = {
    # A variable of a ConfigMap could be any, whatever the prefix: the pack reads less here.
    "variables-with-another-prefix": {"dev-mode"},
    # What is at a path is unknown, so that its revision is, too.
    "a-local-path": {"bf16-one-node", "model-revision"},
    "an-abbreviated-flag": {"model-revision"},
    "a-short-flag-abbreviated": {"bf16-one-node"},
    # A flag on the command line counts, whatever the file says.
    "a-config-file": set[str](),
    "a-model-from-nowhere": {"bf16-one-node"},
    "two-commands": set[str](),
    "a-comment": {"model-revision"},
}


def rules(disguise: Disguise) -> set[str]:
    """Return the rules of the admission policies that refuse a disguise, as the pack reads it."""
    return READ.get(disguise.id, set(disguise.refused))


@pytest.mark.parametrize("disguise", [pytest.param(row, id=row.id) for row in DISGUISES])
def test_a_disguise_is_seen_through(pack: Analyzer, disguise: Disguise) -> None:
    found = {row.policy for row in pack.analyze(in_kind("Pod", disguise.pod), "kubernetes:core/v1:Pod")}
    if "readable" in found:
        # All that needs the command is refused by one policy.
        assert {"bf16-one-node", "model-revision"} <= rules(disguise)
    else:
        assert found & ADMISSION == rules(disguise)


def test_what_is_read_otherwise_is_one_of_the_disguises() -> None:
    assert set(READ) < {row.id for row in DISGUISES}
