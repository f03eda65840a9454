"""How the stand-in says no: one sentence with resource, field, value, what is allowed, and who says so."""

from __future__ import annotations


class AwsRefusal(Exception):  # noqa: N818 (it is not an error of the stand-in, but its answer)
    """A request that AWS, or the provider on its way there, would refuse.

    `str()` is one sentence: `<type>::<name>: <Pulumi property>: <given>: <why, what is allowed> (<source>)`.
    """

    def __init__(self, resource: str, field: str, given: str, reason: str, source: str) -> None:
        self.resource = resource
        self.field = field
        self.given = given
        self.reason = reason
        self.source = source
        super().__init__(f"{resource}: {field}: {given}: {reason} ({source})")
