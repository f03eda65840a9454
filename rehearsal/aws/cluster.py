"""EKS clusters."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from ipaddress import IPv4Network
from typing import Final

from rehearsal.aws import cidr, tokens
from rehearsal.aws.documents import check_trust
from rehearsal.aws.draft import Draft, as_table
from rehearsal.aws.kind import Ending, Kind, Naming, Target
from rehearsal.aws.request import Call, Send
from rehearsal.aws.security_groups import check_security_groups
from rehearsal.aws.world import Record, World
from serving import catalogue
from serving.spelling import listed

_CREATE = Call(
    "eks",
    "CreateCluster",
    renames={
        "vpcConfig": "resourcesVpcConfig",
        "enabledClusterLogTypes": Send("logging.clusterLogging", lambda types: [{"types": types, "enabled": True}]),
    },
)

_PRIVATE_RANGES: Final = tuple(IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


# --- Rules ---------------------------------------------------------------------------------------------------------


def _check_version(draft: Draft, world: World) -> None:
    version = draft.text("version")
    known = catalogue.kubernetes_versions()
    if draft.absent("version"):
        reason = f"give it: what EKS would choose is not known here; the catalogue has {listed(known)}"
        raise draft.refusal("version", reason, _CREATE.cited)
    if version is None:
        return
    if version not in known:
        reason = f"unsupported Kubernetes version; the catalogue has {listed(known)}"
        raise draft.refusal("version", reason, "serving/catalogue/kubernetes.toml, EKS user guide, versions")
    ends = known[version].standard_support_ends
    # An end given as a month lasts until that month is over.
    if world.as_of[: len(ends)] > ends and draft.text("upgradePolicy.supportType") == "STANDARD":
        reason = (
            f"standard support ended {ends} and upgradePolicy.supportType is STANDARD; take a later version or EXTENDED"
        )
        raise draft.refusal("version", f"{reason} (rehearsed as of {world.as_of})", "EKS user guide, versions")


def _check_role(draft: Draft, world: World) -> None:
    role = world.reference(draft, "roleArn", tokens.ROLE, "arn")
    if role is not None:
        check_trust(
            draft, "roleArn", role, "eks.amazonaws.com", ["sts:AssumeRole"], source="EKS user guide, cluster IAM role"
        )


def _check_network(draft: Draft, world: World) -> None:
    field = "vpcConfig.subnetIds"
    subnets = world.references(draft, field, tokens.SUBNET)
    check_security_groups(draft, world, "vpcConfig.securityGroupIds")
    if len(draft.items("vpcConfig.securityGroupIds")) > 5:
        raise draft.refusal("vpcConfig.securityGroupIds", "at most five security groups", _CREATE.cited)
    if isinstance(draft.at(field), list) and len(draft.items(field)) < 2:
        raise draft.refusal(field, "at least two subnets are required", _CREATE.cited)
    if len({subnet.text("vpcId") for subnet in subnets}) > 1:
        raise draft.refusal(field, "all subnets must be of one VPC", _CREATE.cited)
    zones = sorted({subnet.text("availabilityZoneId") for subnet in subnets})
    if len(zones) == 1:
        reason = f"Subnets specified must be in at least two different AZs; all are in {zones[0]}"
        raise draft.refusal(field, reason, "EKS error text, CreateCluster")
    vpc = world.find(tokens.VPC, subnets[0].text("vpcId")) if subnets else None
    if vpc is not None:
        _check_vpc(draft, vpc)


def _check_vpc(draft: Draft, vpc: Record) -> None:
    names_resolve = vpc.flag("enableDnsSupport", True) and vpc.flag("enableDnsHostnames", False)
    if draft.flag("vpcConfig.endpointPrivateAccess") and not names_resolve:
        reason = f"needs enableDnsSupport and enableDnsHostnames on {vpc.resource}"
        raise draft.refusal("vpcConfig.endpointPrivateAccess", reason, "EKS user guide, cluster endpoint access")
    services = cidr.ipv4(draft, "kubernetesNetworkConfig.serviceIpv4Cidr")
    if services is not None and services.overlaps(IPv4Network(vpc.text("cidrBlock"))):
        reason = f"overlaps {vpc.text('cidrBlock')}, the range of {vpc.resource}"
        raise draft.refusal("kubernetesNetworkConfig.serviceIpv4Cidr", reason, _CREATE.cited)


def _check_services_range(draft: Draft, _world: World) -> None:
    field = "kubernetesNetworkConfig.serviceIpv4Cidr"
    services = cidr.ipv4(draft, field)
    if services is None:
        return
    cidr.check_length(draft, field, services, longest=24, shortest=12, source=_CREATE.cited)
    if not any(services.subnet_of(block) for block in _PRIVATE_RANGES):
        raise draft.refusal(field, f"must be inside {listed([str(block) for block in _PRIVATE_RANGES])}", _CREATE.cited)


def _check_endpoints(draft: Draft, _world: World) -> None:
    public, private = "vpcConfig.endpointPublicAccess", "vpcConfig.endpointPrivateAccess"
    if (
        not draft.unknown(public)
        and not draft.unknown(private)
        and not draft.flag(public, True)
        and not draft.flag(private)
    ):
        raise draft.refusal(
            public, "Private and public endpoint access cannot both be disabled", "EKS error text, CreateCluster"
        )
    for index, _ in enumerate(draft.items("vpcConfig.publicAccessCidrs")):
        field = f"vpcConfig.publicAccessCidrs[{index}]"
        block = cidr.any_version(draft, field)
        if isinstance(block, IPv4Network) and any(block.subnet_of(private) for private in _PRIVATE_RANGES):
            reason = "The following CIDRs are not allowed in publicAccessCidrs: private addresses never reach a public endpoint"
            raise draft.refusal(field, reason, "EKS error text, CreateCluster")


def _check_encryption(draft: Draft, world: World) -> None:
    for index, _ in enumerate(draft.items("encryptionConfig.resources")):
        field = f"encryptionConfig.resources[{index}]"
        if draft.text(field) not in {None, "secrets"}:
            raise draft.refusal(field, "the only supported value is secrets", _CREATE.cited)
    arn = draft.text("encryptionConfig.provider.keyArn") or ""
    # A key of another stack or account is as good as one of this program; one of this account must exist.
    if arn.startswith(world.arn("kms", "key/")):
        world.reference(draft, "encryptionConfig.provider.keyArn", tokens.KEY, "arn")


def _check_name(draft: Draft, world: World) -> None:
    name = draft.text("name")
    if name is not None and not draft.preview and world.find(tokens.CLUSTER, name) is not None:
        raise draft.refusal("name", "ResourceInUseException: Cluster already exists with this name", _CREATE.cited)


# --- Outputs -------------------------------------------------------------------------------------------------------


def _cluster(draft: Draft, world: World, name: str) -> dict[str, object]:
    digits = world.made_up(draft, "cluster").upper()
    endpoint = world.cluster_endpoint or f"https://{digits}.gr7.{world.region}.eks.amazonaws.com"
    issuer = f"https://oidc.eks.{world.region}.amazonaws.com/id/{digits}"
    return {
        "arn": world.arn("eks", f"cluster/{name}"),
        "endpoint": endpoint,
        "certificateAuthority": {"data": world.cluster_ca or _made_up_certificate(digits)},
        "identities": [{"oidcs": [{"issuer": issuer}]}],
        "status": "ACTIVE",
        "platformVersion": "eks.1",
        # Only local clusters on Outposts have one.
        "clusterId": "",
        "createdAt": world.now,
        "vpcConfig": _vpc_config(draft, world),
        "accessConfig": {
            "authenticationMode": authentication_mode(draft),
            "bootstrapClusterCreatorAdminPermissions": draft.flag(
                "accessConfig.bootstrapClusterCreatorAdminPermissions", True
            ),
        },
        "upgradePolicy": {"supportType": draft.text("upgradePolicy.supportType") or "EXTENDED"},
        "kubernetesNetworkConfig": {
            "ipFamily": "ipv4",
            "serviceIpv4Cidr": "172.20.0.0/16",
            "serviceIpv6Cidr": "",
            "elasticLoadBalancing": {"enabled": False},
            **draft.table("kubernetesNetworkConfig"),
        },
        "bootstrapSelfManagedAddons": draft.flag("bootstrapSelfManagedAddons", True),
        "deletionProtection": draft.flag("deletionProtection"),
        "controlPlaneScalingConfig": {"tier": draft.text("controlPlaneScalingConfig.tier") or "standard"},
    }


def _vpc_config(draft: Draft, world: World) -> dict[str, object]:
    subnets = [world.find(tokens.SUBNET, subnet) for subnet in draft.texts("vpcConfig.subnetIds")]
    return {
        "securityGroupIds": [],
        "endpointPrivateAccess": False,
        "endpointPublicAccess": True,
        "publicAccessCidrs": ["0.0.0.0/0"],
        **as_table(draft.at("vpcConfig")),
        "clusterSecurityGroupId": f"sg-0{world.made_up(draft, 'security group', 16)}",
        "vpcId": next((subnet.text("vpcId") for subnet in subnets if subnet), ""),
    }


def _made_up_certificate(digits: str) -> str:
    """Return something in the form of a certificate (PEM in base64); a real API server brings its own."""
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(digits.encode()).decode()}\n-----END CERTIFICATE-----\n"
    return base64.b64encode(pem.encode()).decode()


# --- For other resources -------------------------------------------------------------------------------------------


def authentication_mode(cluster: Draft) -> str:
    """Return how a cluster lets people in; without a word, through its API, CONFIG_MAP (CreateAccessConfigRequest)."""
    return cluster.text("accessConfig.authenticationMode") or "CONFIG_MAP"


def cluster_of(draft: Draft, world: World) -> Record | None:
    """Return the cluster that a resource belongs to, None where it is not known."""
    return world.reference(draft, "clusterName", tokens.CLUSTER)


def _holds(record: Record, _world: World) -> Iterable[Target]:
    # EKS keeps network interfaces in these subnets and with these groups (VpcConfigRequest).
    yield from ((tokens.SUBNET, subnet) for subnet in record.texts("vpcConfig.subnetIds"))
    yield from ((tokens.SECURITY_GROUP, group) for group in record.texts("vpcConfig.securityGroupIds"))


def _takes_along(record: Record, world: World) -> Iterable[Target]:
    parts = (tokens.ADDON, tokens.ACCESS_ENTRY, tokens.ACCESS_POLICY_ASSOCIATION, tokens.POD_IDENTITY_ASSOCIATION)
    yield from ((part.token, part.id) for part in world.of(*parts) if part.text("clusterName") == record.id)


KINDS = (
    Kind(
        tokens.CLUSTER,
        (_CREATE,),
        lambda draft, _world: draft.text("name") or "",
        _cluster,
        Ending("eks", "DeleteCluster", "ResourceInUseException: Cluster has nodegroups attached"),
        rules=(
            _check_name,
            _check_version,
            _check_role,
            _check_services_range,
            _check_network,
            _check_endpoints,
            _check_encryption,
        ),
        # `forceUpdateVersion` belongs to later updates; `defaultAddonsToRemoves` is the provider's old spelling of
        # `bootstrapSelfManagedAddons`.
        local=frozenset({"forceUpdateVersion", "defaultAddonsToRemoves"}),
        naming=Naming(prefix=""),
        computed_inside={"vpcConfig": ("clusterSecurityGroupId", "vpcId")},
        holds=_holds,
        takes_along=_takes_along,
    ),
)
