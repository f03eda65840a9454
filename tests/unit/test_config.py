"""Wrong stack files: each mistake, made to a real stack file, gets one sentence that says where, what, what is allowed.

The whole message is compared, so that a change of its words is seen and read.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.__main__ import ACCEPTED, BAD_INPUT, REFUSED, main, plan_of
from serving.config import PROJECT, ConfigError, StackConfig, parse
from serving.plan import build
from serving.report import as_json, as_markdown
from tests.fixtures.stacks import ROOT, config_of, stack_text

FILE = "Pulumi.prod.yaml"
WORKLOAD_KEYS = (
    "nodePool, model, precision, revision, vllmVersion, image, replicas, nodesPerReplica, pipelineParallelSize, "
    "decodeContextParallelSize, maxModelLen, maxNumSeqs, maxNumBatchedTokens, gpuMemoryUtilization, kvCacheDtype, "
    "speculativeTokens, toolCalling, reasoning, weightsMirror, kvOffloadGiB, loadFormat, env or gate"
)
POOL_KEYS = "instanceType, nodes, availabilityZoneId, capacity, efa, rootVolumeGiB or amiReleaseVersion"
CAPACITY = "{kind: onDemand}, {kind: reservation, reservationId: cr-…} or {kind: capacityBlock, reservationId: cr-…}"
A_NAME = "lower-case letters, digits and hyphens, beginning with a letter, at most 30 characters"
A_ZONE = "an availability-zone id such as use1-az6; a name such as us-east-1a stands for another zone in every account"
RELEASES = "0.23.0, 0.24.0, 0.26.0, 0.28.0, 0.29.0, 0.30.0, 0.31.0 or 0.33.0"
SETTINGS = "expected a map of settings such as aws:region"
TOKENS = "expected a whole number of tokens from 1024 to 1048576, without a unit"


@dataclass(frozen=True)
class Mistake:
    """One mistake in Pulumi.prod.yaml: `old` replaced by `new`, or the whole text, or `--set` arguments.

    `said` is what stands on stderr behind the name of the file.
    """

    name: str
    said: str
    old: str = ""
    new: str = ""
    text: str | bytes | None = None
    arguments: tuple[str, ...] = ()

    @property
    def content(self) -> bytes:
        if isinstance(self.text, bytes):
            return self.text
        if self.text is not None:
            return self.text.encode()
        text = stack_text("prod")
        assert not self.old or text.count(self.old) == 1, f"{self.old!r} is not once in {FILE}"
        return (text.replace(self.old, self.new) if self.old else text + self.new).encode()


def workload(line: str) -> str:
    """Return a line of the workload's settings, which end the file."""
    return f"      {line}\n"


NODES = "nodes: 2"
ZONES = "availabilityZoneIds: [use1-az6, use1-az2]"
RESERVATION = ", reservationId: cr-0123456789abcdef0"
EKS = "kind: eks"
CIDRS = "publicAccessCidrs: [203.0.113.0/24]"
RELEASE = 'vllmVersion: "0.31.0"'
WORKLOADS = "  glm-on-gpus:workloads:\n    glm:\n"


def of_type(value: str, shown: str, name: str) -> Mistake:
    said = f"nodePools.b200.nodes: {shown} is not allowed; expected a whole number of nodes from 1 to 64"
    return Mistake(name, said, NODES, f"nodes: {value}")


MISTAKES = [
    Mistake(
        "spot",
        "nodePools.b200.capacity: a spot machine is taken back at two minutes' notice, and a replica needs about half an hour "
        "to load elsewhere; use kind onDemand, reservation or capacityBlock",
        "{ kind: capacityBlock, reservationId: cr-0123456789abcdef0 }",
        "{ kind: spot }",
    ),
    Mistake(
        "secret-setting",
        "workloads.glm.env.HF_TOKEN holds a secret; settings end up in plain text in plans, pods and outputs; take it out "
        "and set it without --secret, or not here",
        new=workload("env: {HF_TOKEN: {secure: AAABAJ8}}"),
    ),
    Mistake(
        "workload-in-a-namespace-of-others",
        "workloads.kube-system: a workload's name is its namespace, and kube-system belongs to others; "
        "choose another name such as glm",
        "    glm:\n",
        "    kube-system:\n",
    ),
    Mistake(
        "variable-that-the-plan-sets",
        "workloads.glm.env.VLLM_ENGINE_READY_TIMEOUT_S: the plan sets it (probes and deadlines are timed by the same number); "
        "leave it out",
        arguments=("--set", "workloads.glm.env.VLLM_ENGINE_READY_TIMEOUT_S='60'"),
    ),
    Mistake(
        "anchors-that-grow",
        "more than 10,000 values once anchors are followed; write them out",
        text="a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in pairwise("abcdefghi")),
    ),
    Mistake(
        "an-anchor-in-itself",
        "line 2: not valid YAML: found unconstructable recursive node",
        text="config:\n  glm-on-gpus:cluster: &it {kind: eks, other: *it}\n",
    ),
    Mistake("too-deep", "maps and lists lie in each other too deeply", text="config: " + "[" * 1000),
    # --- spelling
    Mistake(
        "misspelt-key",
        f"workloads.glm.maxModelLength: unknown key; allowed are {WORKLOAD_KEYS}; did you mean maxModelLen?",
        "maxModelLen:",
        "maxModelLength:",
    ),
    Mistake(
        "key-of-vllm",
        f"workloads.glm.max-model-len: unknown key; allowed are {WORKLOAD_KEYS}; did you mean maxModelLen?",
        "maxModelLen:",
        "max-model-len:",
    ),
    Mistake(
        "key-of-another-level",
        f"nodePools.b200.replicas: unknown key; allowed are {POOL_KEYS}",
        NODES,
        f"{NODES}\n      replicas: 2",
    ),
    Mistake(
        "key-in-another-case",
        f"nodePools.b200.rootVolumeGib: unknown key; allowed are {POOL_KEYS}; did you mean rootVolumeGiB?",
        NODES,
        f"{NODES}\n      rootVolumeGib: 500",
    ),
    Mistake(
        "misspelt-section",
        "glm-on-gpus:workload: unknown key; allowed are cluster, nodePools or workloads; did you mean workloads?",
        "glm-on-gpus:workloads:",
        "glm-on-gpus:workload:",
    ),
    Mistake(
        "misspelt-namespace",
        "glm-on-gpu:cluster: unknown namespace 'glm-on-gpu'; allowed are aws, kubernetes, pulumi or glm-on-gpus; "
        "did you mean glm-on-gpus?",
        "glm-on-gpus:cluster:",
        "glm-on-gpu:cluster:",
    ),
    Mistake(
        "no-namespace",
        "cluster: a key needs a namespace; write glm-on-gpus:cluster",
        "glm-on-gpus:cluster:",
        "cluster:",
    ),
    Mistake("region-without-namespace", "region: a key needs a namespace; write aws:region", "aws:region:", "region:"),
    Mistake(
        "region-in-our-namespace",
        "glm-on-gpus:region: unknown key; write aws:region",
        "aws:region:",
        "glm-on-gpus:region:",
    ),
    Mistake(
        "misspelt-top-level-key",
        "unknown key 'configs'; allowed are config, environment, encryptedkey, encryptionsalt or secretsprovider; "
        "did you mean config?",
        "\nconfig:",
        "\nconfigs:",
    ),
    Mistake(
        "setting-outside-config",
        "unknown key 'nodes'; allowed are config, environment, encryptedkey, encryptionsalt or secretsprovider",
        new="nodes: 3\n",
    ),
    Mistake(
        "unknown-kind-of-cluster",
        "cluster: unknown kind 'EKS'; allowed are eks or existing; did you mean eks?",
        EKS,
        "kind: EKS",
    ),
    Mistake(
        "no-kind-of-cluster",
        "cluster: kind is missing; expected a map that begins with kind: eks or kind: existing",
        f"    {EKS}\n",
        "",
    ),
    Mistake(
        "unknown-kind-of-capacity",
        "nodePools.b200.capacity: unknown kind 'capacity-block'; allowed are onDemand, reservation or capacityBlock; "
        "did you mean capacityBlock?",
        "kind: capacityBlock",
        "kind: capacity-block",
    ),
    Mistake(
        "no-kind-of-capacity",
        f"nodePools.b200.capacity: kind is missing; expected {CAPACITY}",
        "kind: capacityBlock, ",
        "",
    ),
    Mistake(
        "misspelt-precision",
        "workloads.glm.precision: 'fp16' is not allowed; expected fp8, bf16 or nvfp4; did you mean bf16?",
        "precision: fp8",
        "precision: fp16",
    ),
    Mistake(
        "precision-in-capitals",
        "workloads.glm.precision: 'FP8' is not allowed; expected fp8, bf16 or nvfp4; did you mean fp8?",
        "precision: fp8",
        "precision: FP8",
    ),
    Mistake(
        "misspelt-cache-type",
        "workloads.glm.kvCacheDtype: 'fp8_e3m4' is not allowed; expected auto, bfloat16, fp8, fp8_e4m3, fp8_ds_mla or "
        "nvfp4_ds_mla; the right one for the GPU if left out; did you mean fp8_e4m3?",
        new=workload("kvCacheDtype: fp8_e3m4"),
    ),
    Mistake(
        "misspelt-loader",
        "workloads.glm.loadFormat: 'safetensor' is not allowed; expected auto, safetensors, fastsafetensors, "
        "instanttensor or runai_streamer; did you mean safetensors?",
        new=workload("loadFormat: safetensor"),
    ),
    Mistake(
        "unknown-model",
        "workloads.glm.model: unknown model 'glm5.2'; allowed are glm-5.2 or glm-5.3; did you mean glm-5.2?",
        new=workload("model: glm5.2"),
    ),
    Mistake(
        "no-revision-known",
        "workloads.glm.revision: missing, and the catalogue knows no revision of Inferact/GLM-5.3-NVFP4; "
        "set it to a commit of that repository, 40 hexadecimal digits",
        "      precision: fp8\n",
        "      model: glm-5.3\n      precision: nvfp4\n",
    ),
    Mistake(
        "name-in-capitals",
        f"workloads.GLM: 'GLM' cannot be a name here; expected {A_NAME}; did you mean glm?",
        "    glm:\n",
        "    GLM:\n",
    ),
    Mistake(
        "name-with-underscore",
        f"workloads.glm_5: 'glm_5' cannot be a name here; expected {A_NAME}; did you mean glm-5?",
        "    glm:\n",
        "    glm_5:\n",
    ),
    Mistake(
        "name-that-is-a-number",
        f"workloads.5: 5 cannot be a name here; expected {A_NAME}",
        "    glm:\n",
        "    5:\n",
    ),
    Mistake(
        "name-too-long",
        f"workloads.{'g' * 31}: '{'g' * 31}' cannot be a name here; expected {A_NAME}",
        "    glm:\n",
        f"    {'g' * 31}:\n",
    ),
    Mistake(
        "unknown-pool",
        "workloads.glm.nodePool: there is no node pool 'b20'; allowed is b200; did you mean b200?",
        "nodePool: b200",
        "nodePool: b20",
    ),
    # --- machines and places
    Mistake(
        "unknown-accelerator",
        "nodePools.b200.instanceType: unknown instance type 'p6-b20.48xlarge'; allowed are p5e.48xlarge, p5en.48xlarge, "
        "p6-b200.48xlarge or p6-b300.48xlarge; did you mean p6-b200.48xlarge?",
        "p6-b200.48xlarge",
        "p6-b20.48xlarge",
    ),
    Mistake(
        "unknown-system-instance-type",
        "cluster.systemInstanceType: unknown system instance type 't3.nano'; allowed are m7i.2xlarge, m7i.large or "
        "m7i.xlarge",
        EKS,
        f"{EKS}\n    systemInstanceType: t3.nano",
    ),
    Mistake(
        "zone-that-does-not-offer-the-type",
        "nodePools.b200.availabilityZoneId: 'use1-az2' does not offer p6-b200.48xlarge; in us-east-1 these do: use1-az6; "
        "did you mean use1-az6?",
        "availabilityZoneId: use1-az6",
        "availabilityZoneId: use1-az2",
    ),
    Mistake(
        "zone-name-for-zone-id",
        f"nodePools.b200.availabilityZoneId: 'us-east-1a' is not allowed; expected {A_ZONE}",
        "availabilityZoneId: use1-az6",
        "availabilityZoneId: us-east-1a",
    ),
    Mistake(
        "zone-name-in-the-clusters-list",
        f"cluster.availabilityZoneIds[1]: 'us-east-1b' is not allowed; expected {A_ZONE}",
        ZONES,
        "availabilityZoneIds: [use1-az6, us-east-1b]",
    ),
    Mistake(
        "zone-left-out",
        "nodePools.b200.availabilityZoneId: missing; p6-b200.48xlarge is offered in use1-az6",
        "      availabilityZoneId: use1-az6\n",
        "",
    ),
    Mistake(
        "zone-that-is-not-the-clusters",
        "nodePools.b200.availabilityZoneId: 'use1-az6' is not one of the cluster's zones; add it to "
        "cluster.availabilityZoneIds, now use1-az1 and use1-az2",
        ZONES,
        "availabilityZoneIds: [use1-az1, use1-az2]",
    ),
    Mistake(
        "zone-of-another-region",
        "cluster.availabilityZoneIds: usw2-az2 is not in us-east-1, whose zone ids begin with use1-az",
        ZONES,
        "availabilityZoneIds: [use1-az6, usw2-az2]",
    ),
    Mistake(
        "one-zone",
        "cluster.availabilityZoneIds: ['use1-az6'] is not allowed; expected two to four availability-zone ids such as "
        "[use1-az6, use1-az2]; EKS needs two, GPU pools name one of them",
        ZONES,
        "availabilityZoneIds: [use1-az6]",
    ),
    Mistake(
        "one-zone-twice",
        "cluster.availabilityZoneIds: ['use1-az6', 'use1-az6'] names a zone twice; name each zone once",
        ZONES,
        "availabilityZoneIds: [use1-az6, use1-az6]",
    ),
    Mistake(
        "region-without-the-type",
        "nodePools.b200.instanceType: p6-b200.48xlarge is not offered in us-west-1; it is in ap-south-1, ap-south-2, "
        "eu-north-1, eu-west-3, us-east-1, us-east-2 and us-west-2\n"
        "cluster.availabilityZoneIds: use1-az6 and use1-az2 are not in us-west-1, whose zone ids begin with usw1-az",
        "aws:region: us-east-1",
        "aws:region: us-west-1",
    ),
    Mistake(
        "misspelt-region",
        "aws:region: 'us-esat-1' offers none of the catalogue's machines; allowed are ap-northeast-1, ap-northeast-2, "
        "ap-south-1, ap-south-2, ap-southeast-2, ap-southeast-3, eu-north-1, eu-south-2, eu-west-2, eu-west-3, "
        "me-central-1, sa-east-1, us-east-1, us-east-2, us-west-1 or us-west-2; did you mean us-east-1?",
        "aws:region: us-east-1",
        "aws:region: us-esat-1",
    ),
    Mistake(
        "no-region",
        "aws:region: missing; expected an AWS region such as us-east-1",
        "  aws:region: us-east-1\n",
        "",
    ),
    Mistake(
        "reservation-left-out",
        "nodePools.b200.capacity.reservationId: missing; expected the id of the Capacity Block's reservation: cr- and 17 "
        "hexadecimal digits",
        RESERVATION,
        "",
    ),
    Mistake(
        "malformed-reservation",
        "nodePools.b200.capacity.reservationId: 'cr-123' is not allowed; expected the id of the Capacity Block's "
        "reservation: cr- and 17 hexadecimal digits",
        RESERVATION,
        ", reservationId: cr-123",
    ),
    Mistake(
        "reservation-of-on-demand-machines",
        "nodePools.b200.capacity.reservationId: unknown key; allowed is kind",
        "kind: capacityBlock",
        "kind: onDemand",
    ),
    Mistake(
        "unknown-phase",
        "nodePools.b200.capacity.phase: 'schedule' is not allowed; expected scheduled, active or ended: only in an active block "
        "do machines and replicas run; did you mean scheduled?",
        RESERVATION,
        f"{RESERVATION}, phase: schedule",
    ),
    Mistake(
        "scheduled-without-a-start",
        "nodePools.b200.capacity.startsAt: missing, and a scheduled block has a start that everybody waits for; expected a time "
        'in quotes with its zone, such as "2026-12-01T11:30:00Z"',
        RESERVATION,
        f"{RESERVATION}, phase: scheduled",
    ),
    Mistake(
        "a-time-without-quotes",
        "nodePools.b200.capacity.startsAt: 2026-12-01 11:30:00+00:00 is not in quotes; expected a time in quotes with its zone, "
        'such as "2026-12-08T11:30:00Z"',
        RESERVATION,
        f"{RESERVATION}, startsAt: 2026-12-01T11:30:00Z",
    ),
    Mistake(
        "a-time-as-pulumi-rewrites-it",
        "nodePools.b200.capacity.startsAt: '2026-12-01 11:30:00 +0000 UTC' is not allowed; expected a time in quotes with its "
        'zone, such as "2026-12-08T11:30:00Z"',
        RESERVATION,
        f"{RESERVATION}, startsAt: 2026-12-01 11:30:00 +0000 UTC",
    ),
    Mistake(
        "a-time-without-a-zone",
        "nodePools.b200.capacity.endsAt: '2026-12-08T11:30:00' is not allowed; expected a time in quotes with its zone, such as "
        '"2026-12-08T11:30:00Z"',
        RESERVATION,
        f'{RESERVATION}, endsAt: "2026-12-08T11:30:00"',
    ),
    Mistake(
        "a-day-that-there-is-not",
        "nodePools.b200.capacity.endsAt: '2026-11-31T11:30:00Z' is no time (day is out of range for month); expected a time in "
        'quotes with its zone, such as "2026-12-08T11:30:00Z"',
        RESERVATION,
        f'{RESERVATION}, endsAt: "2026-11-31T11:30:00Z"',
    ),
    Mistake(
        "a-block-that-ends-at-another-time",
        "nodePools.b200.capacity.endsAt: 10:30:00 UTC is no block's end, all end at 11:30 UTC; take EndDate as aws ec2 "
        "describe-capacity-reservations --capacity-reservation-ids cr-0123456789abcdef0 says it",
        RESERVATION,
        f'{RESERVATION}, endsAt: "2026-12-08T11:30:00+01:00"',
    ),
    Mistake(
        "a-block-that-ends-before-it-starts",
        "nodePools.b200.capacity.endsAt: 2026-12-01T11:30:00+00:00 is not after startsAt, 2026-12-08T11:30:00+00:00; set both as "
        "AWS says them",
        RESERVATION,
        f'{RESERVATION}, startsAt: "2026-12-08T11:30:00Z", endsAt: "2026-12-01T11:30:00Z"',
    ),
    Mistake(
        "a-block-of-more-than-half-a-year",
        "nodePools.b200.capacity.endsAt: is 365 days after startsAt, and a block lasts 182 at most; set both as AWS says them",
        RESERVATION,
        f'{RESERVATION}, startsAt: "2026-12-01T11:30:00Z", endsAt: "2027-12-01T11:30:00Z"',
    ),
    Mistake(
        "two-pools-that-disagree-about-their-block",
        "nodePools.more.capacity.phase: differs from nodePools.b200.capacity.phase, and both are in block cr-0123456789abcdef0; "
        "set both to the same",
        "  glm-on-gpus:workloads:\n",
        "    more:\n      instanceType: p6-b200.48xlarge\n      nodes: 1\n      availabilityZoneId: use1-az6\n"
        f"      capacity: {{ kind: capacityBlock{RESERVATION}, phase: ended }}\n  glm-on-gpus:workloads:\n",
    ),
    Mistake(
        "capacity-as-a-word",
        f"nodePools.b200.capacity: 'capacityBlock' is not allowed; expected {CAPACITY}",
        f"capacity: {{ kind: capacityBlock{RESERVATION} }}",
        "capacity: capacityBlock",
    ),
    Mistake(
        "capacity-left-out",
        f"nodePools.b200.capacity: missing; expected {CAPACITY}",
        f"      capacity: {{ kind: capacityBlock{RESERVATION} }}\n",
        "",
    ),
    Mistake(
        "machine-image-of-another-version",
        "nodePools.b200.amiReleaseVersion: '1.35.6-20260714' is not a release for Kubernetes 1.36; name one that begins "
        "with 1.36., or leave it out",
        NODES,
        f"{NODES}\n      amiReleaseVersion: 1.35.6-20260714",
    ),
    Mistake(
        "api-open-to-everybody",
        "cluster.publicAccessCidrs[0]: 0.0.0.0/0 opens the Kubernetes API to everybody; name your own networks, or leave "
        "the list empty",
        CIDRS,
        "publicAccessCidrs: [0.0.0.0/0]",
    ),
    Mistake(
        "invalid-cidr",
        "cluster.publicAccessCidrs[0]: '203.0.113.0/33' does not appear to be an IPv4 or IPv6 network; expected an IPv4 "
        "network such as 203.0.113.0/24",
        CIDRS,
        "publicAccessCidrs: [203.0.113.0/33]",
    ),
    Mistake(
        "address-for-network",
        "cluster.publicAccessCidrs[0]: 203.0.113.7/24 has host bits set; expected an IPv4 network such as 203.0.113.0/24",
        CIDRS,
        "publicAccessCidrs: [203.0.113.7/24]",
    ),
    Mistake(
        "ipv6-network",
        "cluster.publicAccessCidrs[0]: 2001:db8::/32 is an IPv6 network; expected an IPv4 network such as 203.0.113.0/24",
        CIDRS,
        'publicAccessCidrs: ["2001:db8::/32"]',
    ),
    Mistake(
        "cidr-without-a-list",
        "cluster.publicAccessCidrs: '203.0.113.0/24' is not allowed; expected a list of networks that may reach the "
        "Kubernetes API, such as [203.0.113.0/24]; empty for the private endpoint only",
        CIDRS,
        "publicAccessCidrs: 203.0.113.0/24",
    ),
    Mistake(
        "vpc-too-large",
        "cluster.vpcCidr: 10.0.0.0/8 is not a private IPv4 network between /16 and /20; use one such as 10.0.0.0/16",
        EKS,
        f"{EKS}\n    vpcCidr: 10.0.0.0/8",
    ),
    Mistake(
        "role-that-is-a-user",
        "cluster.adminRoleArns.ops: 'arn:aws:iam::123456789012:user/ann' is not allowed; expected the ARN of an IAM role, "
        "arn:aws:iam::<12-digit account>:role/<role>",
        EKS,
        f"{EKS}\n    adminRoleArns: {{ops: 'arn:aws:iam::123456789012:user/ann'}}",
    ),
    # --- numbers and types
    Mistake(
        "wrong-unit",
        f"workloads.glm.maxModelLen: '1M' is not allowed; {TOKENS}",
        "maxModelLen: 1048576",
        "maxModelLen: 1M",
    ),
    Mistake(
        "number-in-quotes",
        f"workloads.glm.maxModelLen: '1048576' is not allowed; {TOKENS}",
        "maxModelLen: 1048576",
        'maxModelLen: "1048576"',
    ),
    Mistake(
        "too-many-tokens",
        f"workloads.glm.maxModelLen: 2097152 is not allowed; {TOKENS}",
        "maxModelLen: 1048576",
        "maxModelLen: 2097152",
    ),
    of_type("-2", "-2", "negative"),
    of_type("0", "0", "zero"),
    of_type("yes", "true", "bool-for-int"),
    of_type("two", "'two'", "word-for-int"),
    of_type("2.5", "2.5", "float-for-int"),
    of_type("[2]", "[2]", "list-for-int"),
    of_type("", "an empty value", "nothing-for-int"),
    of_type("1_000_000_000_000_000_000_000", "1000000000000000000000", "huge-int"),
    Mistake(
        "no-replicas",
        "workloads.glm.replicas: 0 is not allowed; expected a whole number of replicas from 1 to 64; each takes "
        "nodesPerReplica whole nodes",
        "replicas: 2",
        "replicas: 0",
    ),
    Mistake(
        "more-replicas-than-nodes",
        "workloads.glm.replicas: the replicas (3 of glm) need 3 nodes, one each, but nodePools.b200.nodes is 2; lower the "
        "replicas or raise the nodes",
        "replicas: 2",
        "replicas: 3",
    ),
    Mistake(
        "two-workloads-on-too-few-nodes",
        "workloads.glm.replicas: the replicas (2 of glm and 1 of chat) need 3 nodes, one each, but nodePools.b200.nodes "
        "is 2; lower the replicas or raise the nodes",
        new="    chat: { nodePool: b200, precision: fp8, replicas: 1, maxModelLen: 131072 }\n",
    ),
    Mistake(
        "percentage-for-fraction",
        "workloads.glm.gpuMemoryUtilization: 92 is not allowed; expected a fraction above 0 and up to 1, such as 0.92",
        new=workload("gpuMemoryUtilization: 92"),
    ),
    Mistake(
        "bool-for-fraction",
        "workloads.glm.gpuMemoryUtilization: true is not allowed; expected a fraction above 0 and up to 1, such as 0.92",
        new=workload("gpuMemoryUtilization: true"),
    ),
    Mistake(
        "share-of-more-than-a-needle-can-have",
        "workloads.glm.gate.longNeedleShare: 0.96 is not allowed; expected a fraction of maxModelLen from 0.01 to 0.95, such as "
        "0.5: how far a longer needle is looked for; none if left out",
        new=workload("gate: { longNeedleShare: 0.96 }"),
    ),
    Mistake(
        "recheck-without-pause",
        "workloads.glm.gate.recheckMinutes: 1 is not allowed; expected a whole number of minutes from 5 to 10080 between "
        "re-checks of a pod that serves; none if left out",
        new=workload("gate: { recheckMinutes: 1 }"),
    ),
    Mistake(
        "gate-that-cannot-be-switched-off",
        "workloads.glm.gate.enabled: unknown key; allowed are longNeedleShare or recheckMinutes",
        new=workload("gate: { enabled: false }"),
    ),
    Mistake(
        "thoughts-that-nobody-takes-out",
        "workloads.glm.reasoning: glm-5.3 always thinks, and without a reasoning parser its thoughts end up in every answer; "
        "leave reasoning out",
        new=workload(f"model: glm-5.3\n      revision: {'a' * 40}\n      reasoning: false"),
    ),
    Mistake(
        "word-for-bool",
        "workloads.glm.toolCalling: 'enabled' is not allowed; expected true or false",
        new=workload("toolCalling: enabled"),
    ),
    Mistake(
        "too-many-draft-tokens",
        "workloads.glm.speculativeTokens: 9 is not allowed; expected a whole number of MTP tokens from 0 (off) to 8",
        new=workload("speculativeTokens: 9"),
    ),
    Mistake(
        "float-for-kubernetes-version",
        'cluster.kubernetesVersion: 1.36 is not allowed; expected an EKS version in quotes, such as "1.36"',
        EKS,
        f"{EKS}\n    kubernetesVersion: 1.36",
    ),
    Mistake(
        "kubernetes-version-without-machine-image",
        "cluster.kubernetesVersion: Kubernetes 1.34 has no pinned AMI release (standard support ends 2026-12-02); "
        "allowed are 1.35 or 1.36",
        EKS,
        f'{EKS}\n    kubernetesVersion: "1.34"',
    ),
    Mistake(
        "unknown-kubernetes-version",
        "cluster.kubernetesVersion: unknown Kubernetes version '1.63'; allowed are 1.35 or 1.36; did you mean 1.36?",
        EKS,
        f'{EKS}\n    kubernetesVersion: "1.63"',
    ),
    Mistake(
        "float-for-release",
        'workloads.glm.vllmVersion: 0.31 is not allowed; expected a vLLM release in quotes, such as "0.31.0"',
        RELEASE,
        "vllmVersion: 0.31",
    ),
    Mistake(
        "unknown-release",
        f"workloads.glm.vllmVersion: unknown vLLM release 'v0.31.0'; allowed are {RELEASES}; did you mean 0.31.0?",
        RELEASE,
        "vllmVersion: v0.31.0",
    ),
    Mistake(
        "release-without-digest",
        "workloads.glm.vllmVersion: no public image digest of vLLM 0.33.0 is known; pin it (python -m serving pin vllm "
        "0.33.0), set workloads.glm.image to your copy by digest, or use 0.23.0, 0.24.0, 0.28.0, 0.30.0 or 0.31.0",
        RELEASE,
        'vllmVersion: "0.33.0"',
    ),
    Mistake(
        "number-for-a-variable",
        'workloads.glm.env.OMP_NUM_THREADS: 4 is not allowed; expected text in quotes, such as "1"',
        new=workload("env: { OMP_NUM_THREADS: 4 }"),
    ),
    Mistake(
        "variable-in-small-letters",
        "workloads.glm.env.nccl_debug: 'nccl_debug' cannot be a name here; expected a variable's name in capitals, such "
        "as NCCL_DEBUG; did you mean NCCL_DEBUG?",
        new=workload("env: { nccl_debug: INFO }"),
    ),
    Mistake(
        "variables-as-a-list",
        "workloads.glm.env: ['NCCL_DEBUG=INFO'] is not allowed; expected a map of environment variables, names in "
        "capitals and values in quotes",
        new=workload("env: [NCCL_DEBUG=INFO]"),
    ),
    Mistake(
        "add-on-version-without-its-build",
        "cluster.addonVersions.vpc-cni: '1.23.1' is not allowed; expected a version as EKS writes it, such as "
        "v1.23.1-eksbuild.1",
        EKS,
        f"{EKS}\n    addonVersions: {{ vpc-cni: 1.23.1 }}",
    ),
    # --- the shape of the file
    Mistake(
        "section-left-out",
        "workloads: missing; expected a map from a workload's name to its settings, with at least one workload",
        text=stack_text("prod").partition(WORKLOADS)[0],
    ),
    Mistake(
        "empty-section",
        "workloads: {} is not allowed; expected a map from a workload's name to its settings, with at least one workload",
        text=f"{stack_text('prod').partition(WORKLOADS)[0]}  glm-on-gpus:workloads: {{}}\n",
    ),
    Mistake(
        "workload-without-settings",
        "workloads.glm: an empty value is not allowed; expected a map with nodePool, precision, replicas and maxModelLen",
        text=stack_text("prod").partition(WORKLOADS)[0] + WORKLOADS,
    ),
    Mistake(
        "required-setting-left-out",
        "workloads.glm.nodePool: missing; expected the name of one of the nodePools",
        "      nodePool: b200\n",
        "",
    ),
    Mistake(
        "list-for-map",
        "nodePools: [{'name': 'b200', 'instanceType': 'p6-b200.48xlarge', 'nodes': 2, 'availabili... is not allowed; "
        "expected a map from a pool's name to its settings, with at least one pool",
        "    b200:\n      instanceType",
        "    - name: b200\n      instanceType",
    ),
    Mistake(
        "key-twice",
        "line 24: not valid YAML: the key 'replicas' is given twice; keep one of them",
        "replicas: 2",
        "replicas: 2\n      replicas: 1",
    ),
    Mistake(
        "tab",
        "line 23: not valid YAML: while scanning for the next token, found character '\\t' that cannot start any token; "
        "indent with spaces, not with tabs",
        "      replicas: 2",
        "\treplicas: 2",
    ),
    Mistake(
        "template-not-rendered",
        "line 14: not valid YAML: a map or a list stands where a key is expected; put text with {{ }} in quotes",
        NODES,
        "nodes: {{ nodes }}",
    ),
    Mistake(
        "impossible-date",
        "line 22: not valid YAML: '2026-02-30' is no value (day is out of range for month); put it in quotes",
        RELEASE,
        "vllmVersion: 2026-02-30",
    ),
    Mistake(
        "bracket-left-open",
        "line 2: not valid YAML: while parsing a flow mapping, expected ',' or '}', but got '<stream end>'",
        text="config: {a: b\n",
    ),
    Mistake(
        "unknown-yaml-tag",
        "line 14: not valid YAML: could not determine a constructor for the tag '!Ref'",
        NODES,
        "nodes: !Ref x",
    ),
    Mistake(
        "two-documents",
        "line 25: not valid YAML: expected a single document in the stream, but found another document",
        new="---\nconfig: {}\n",
    ),
    Mistake("not-utf-8", "byte 9 is not UTF-8; save the file as UTF-8", text=b'config: "\xe9"\n'),
    Mistake(
        "control-character",
        "not valid YAML: character 0x00 at position 8 is not allowed",
        text="config: \0\n",
    ),
    Mistake("list-for-the-file", "expected a map with the key config, found a list of 2", text="- a\n- b\n"),
    Mistake("text-for-the-file", "expected a map with the key config, found 'hello'", text="hello\n"),
    Mistake("empty-file", "expected a map with the key config, found nothing", text=""),
    Mistake("only-comments", "expected a map with the key config, found nothing", text="# nothing yet\n"),
    Mistake("empty-config", f"config: {SETTINGS}, found nothing", text="config:\n"),
    Mistake("list-for-config", f"config: {SETTINGS}, found a list of 1", text="config:\n  - aws:region: us-east-1\n"),
    # --- overrides that lead to a wrong configuration
    Mistake(
        "set-an-empty-value",
        f"workloads.glm.maxModelLen: an empty value is not allowed; {TOKENS}",
        arguments=("--set", "workloads.glm.maxModelLen="),
    ),
    Mistake(
        "set-a-scalar-for-a-workload",
        "workloads.glm: 5 is not allowed; expected a map with nodePool, precision, replicas and maxModelLen",
        arguments=("--set", "workloads.glm=5"),
    ),
    Mistake(
        "set-a-misspelt-section",
        "glm-on-gpus:workload: unknown key; allowed are cluster, nodePools or workloads; did you mean workloads?",
        arguments=("--set", "workload.glm.maxModelLen=131072"),
    ),
    Mistake(
        "set-the-region-without-its-namespace",
        "glm-on-gpus:region: unknown key; write aws:region",
        arguments=("--set", "region=us-west-2"),
    ),
    Mistake(
        "set-a-second-workload-without-its-settings",
        "workloads.chat.nodePool: missing; expected the name of one of the nodePools\n"
        "workloads.chat.precision: missing; expected fp8, bf16 or nvfp4\n"
        "workloads.chat.maxModelLen: missing; expected a whole number of tokens from 1024 to 1048576, without a unit",
        arguments=("--set", "workloads.chat.replicas=1"),
    ),
]


@pytest.mark.parametrize("mistake", [pytest.param(mistake, id=mistake.name) for mistake in MISTAKES])
def test_a_wrong_stack_file(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / FILE).write_bytes(mistake.content)
    monkeypatch.chdir(tmp_path)
    code = main(["plan", "--stack", "prod", *mistake.arguments])
    output = capsys.readouterr()
    assert output.err == "".join(f"{FILE}: {line}\n" for line in mistake.said.split("\n"))
    assert (code, output.out) == (BAD_INPUT, "")


def test_there_are_more_than_thirty_mistakes_and_none_twice() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) > 30
    assert len({(mistake.content, mistake.arguments) for mistake in MISTAKES}) == len(MISTAKES)


NOT_PINNED = "is not pinned by digest (repository@sha256: and 64 hexadecimal digits)"
NO_COMMIT = "is not a commit for zai-org/GLM-5.2-FP8; expected 40 hexadecimal digits"
NAME_BY_DIGEST = "To do: name the image as repository@sha256:…."
SET_A_COMMIT = "To do: set revision to a commit of the model's repository, or leave it out for the catalogue's."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param(
            "image: vllm/vllm-openai:v0.31.0",
            f"image-digest: image 'vllm/vllm-openai:v0.31.0' {NOT_PINNED}. {NAME_BY_DIGEST}",
            id="tag-instead-of-digest",
        ),
        pytest.param("image: ''", f"image-digest: image '' {NOT_PINNED}. {NAME_BY_DIGEST}", id="no-image-at-all"),
        pytest.param(
            "revision: main", f"model-revision: revision 'main' {NO_COMMIT}. {SET_A_COMMIT}", id="branch-for-revision"
        ),
        pytest.param("revision: ''", f"model-revision: revision '' {NO_COMMIT}. {SET_A_COMMIT}", id="empty-revision"),
        pytest.param(
            "env: { VLLM_SERVER_DEV_MODE: '1' }",
            "dev-mode: VLLM_SERVER_DEV_MODE=1 opens /sleep, /pause and other administration to every client. "
            "To do: take VLLM_SERVER_DEV_MODE out of env.",
            id="development-mode",
        ),
        pytest.param(
            "env: { VLLM_CACHE_ROOT: /caches/shared }",
            "stale-cache: VLLM_CACHE_ROOT=/caches/shared is not a folder of this image's own (no part of the path is "
            "c1c9f6fd5c10). To do: leave the cache variables out of env.",
            id="shared-compile-cache",
        ),
    ],
)
def test_a_stack_file_that_a_rule_refuses(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / FILE).write_text(stack_text("prod") + workload(line), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = main(["plan", "--stack", "prod"])
    output = capsys.readouterr()
    assert output.err == f"stack prod is refused:\n  workloads.glm: {said}\n"
    assert code == REFUSED
    assert output.out.startswith("# Plan of stack prod: refused\n")  # the numbers are shown beside the refusal


# --- an existing cluster -------------------------------------------------------------------------------------------

EXISTING: dict[str, Any] = {
    f"{PROJECT}:cluster": {"kind": "existing", "context": "lab"},
    f"{PROJECT}:nodePools": {"h200": {"instanceType": "p5e.48xlarge", "nodes": 1}},
    f"{PROJECT}:workloads": {"glm": {"nodePool": "h200", "precision": "fp8", "replicas": 1, "maxModelLen": 131_072}},
}


def test_an_existing_cluster_needs_no_region() -> None:
    config = parse(EXISTING)
    assert config.region is None
    assert build(config, "lab").violations == []


def test_an_existing_cluster_provisions_nothing() -> None:
    pool = {
        **EXISTING[f"{PROJECT}:nodePools"]["h200"],
        "capacity": {"kind": "onDemand"},
        "availabilityZoneId": "use2-az1",
        "amiReleaseVersion": "1.36.2-20260714",
    }
    with pytest.raises(ConfigError) as refusal:
        parse({**EXISTING, f"{PROJECT}:nodePools": {"h200": pool}}, "Pulumi.lab.yaml")
    assert refusal.value.problems == [
        f"Pulumi.lab.yaml: nodePools.h200.{field}: the nodes of an existing cluster are not provisioned here; "
        f"leave {field} out"
        for field in ("capacity", "availabilityZoneId", "amiReleaseVersion")
    ]


def test_settings_of_providers_are_not_ours_to_judge() -> None:
    config = parse({**EXISTING, "kubernetes:suppressHelmHookWarnings": "true", "aws:cluster": {"kind": "nonsense"}})
    assert config == parse(EXISTING)


# --- what is right stays right -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_real_stack_files_are_accepted(stack: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(parse(config_of(stack)), StackConfig)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert main(["plan", "--stack", stack]) == ACCEPTED
    assert capsys.readouterr().err == ""


def test_a_merge_key_is_plain_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = stack_text("prod").replace("nodes: 2", "<<: { nodes: 9 }\n      nodes: 2")
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--stack", "prod", "--format", "json"]) == ACCEPTED


# --- nothing ends in a traceback -----------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=12) | st.dates()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))


def places(node: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the path of every value in a tree of maps."""
    if not isinstance(node, dict):
        return [path]
    return [path, *(place for key, value in node.items() for place in places(value, (*path, key)))]


def put(node: Any, path: tuple[str, ...], value: Any) -> Any:
    return {**node, path[0]: put(node[path[0]], path[1:], value)} if path else value


@settings(max_examples=150)
@given(st.data(), st.sampled_from(["dev", "prod"]), VALUES)
def test_any_value_anywhere_is_planned_or_refused_in_sentences(data: st.DataObject, stack: str, value: Any) -> None:
    tree = config_of(stack)
    changed = put(tree, data.draw(st.sampled_from([place for place in places(tree) if place])), value)
    try:
        plan = build(parse(changed, "Pulumi.x.yaml"), "x")
    except ConfigError as refusal:
        assert refusal.problems
        for problem in refusal.problems:
            assert problem.startswith("Pulumi.x.yaml: ")
            assert "\n" not in problem
            assert "ydantic" not in problem
    else:
        assert as_markdown(plan)
        assert as_json(plan)["stack"] == "x"


@settings(max_examples=150)
@given(st.text(max_size=60) | st.text(alphabet="ab: -{}[]#&*!|>'\"%@`\n\t,?0.~<", max_size=40))
def test_any_text_is_refused_in_sentences(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_bytes(text.encode())
        with pytest.raises(ConfigError) as refusal:
            plan_of("prod", (), Path(folder))
    for problem in refusal.value.problems:
        assert problem.startswith(f"{FILE}: ")
        assert "\n" not in problem
