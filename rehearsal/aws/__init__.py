"""A stand-in for AWS: validates every resource as AWS would, and returns what AWS would.

`AwsStandIn` takes each AWS resource that the Pulumi program registers, turns it into the API requests of the real
provider, holds those against botocore's service models (enums, patterns and ranges included), applies the rules that AWS
itself enforces, and returns id and outputs. It keeps an account's state in memory, so that references must exist and the
order of deletion must be right. No network, no credentials, no clock.
"""

from __future__ import annotations

from rehearsal.aws.node_group import NodeGroup
from rehearsal.aws.refusal import AwsRefusal
from rehearsal.aws.stand_in import FACTS_AS_OF, AwsStandIn

__all__ = ["FACTS_AS_OF", "AwsRefusal", "AwsStandIn", "NodeGroup"]
