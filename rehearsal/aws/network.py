"""VPC, subnets, internet and NAT gateways, Elastic IP addresses."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from rehearsal.aws import cidr, tokens
from rehearsal.aws.draft import Draft
from rehearsal.aws.kind import IN_USE, Ending, Kind, Target, holds_inputs, with_id
from rehearsal.aws.request import Call, tag_specifications
from rehearsal.aws.world import Record, World
from serving import catalogue

# --- VPC -----------------------------------------------------------------------------------------------------------

_CREATE_VPC = Call(
    "ec2",
    "CreateVpc",
    renames={"assignGeneratedIpv6CidrBlock": "AmazonProvidedIpv6CidrBlock", "tags": tag_specifications("vpc")},
)
# EC2 takes one attribute a request ("You cannot modify the DNS resolution and DNS hostnames attributes in the same request").
_MODIFY_VPC = Call(
    "ec2",
    "ModifyVpcAttribute",
    takes=frozenset({"enableDnsHostnames", "enableDnsSupport", "enableNetworkAddressUsageMetrics"}),
    subject="VpcId",
    apart=True,
)


def _check_vpc(draft: Draft, _world: World) -> None:
    network = cidr.ipv4(draft, "cidrBlock")
    if network is not None:
        cidr.check_length(draft, "cidrBlock", network, longest=28, shortest=16, source="EC2 error InvalidVpc.Range")
    if draft.absent("cidrBlock") and draft.absent("ipv4IpamPoolId"):
        raise draft.refusal("cidrBlock", "a VPC needs cidrBlock or ipv4IpamPoolId", _CREATE_VPC.cited)
    if draft.text("instanceTenancy") == "host":
        raise draft.refusal("instanceTenancy", "must be default or dedicated for a VPC", _CREATE_VPC.cited)
    if (
        draft.flag("enableDnsHostnames")
        and not draft.unknown("enableDnsSupport")
        and not draft.flag("enableDnsSupport", True)
    ):
        raise draft.refusal("enableDnsHostnames", "needs enableDnsSupport", _MODIFY_VPC.cited)


def _vpc(draft: Draft, world: World, vpc_id: str) -> dict[str, object]:
    digits = vpc_id.removeprefix("vpc-")
    return {
        "arn": world.arn("ec2", f"vpc/{vpc_id}"),
        "defaultNetworkAclId": f"acl-{digits}",
        "defaultRouteTableId": f"rtb-{digits}",
        "mainRouteTableId": f"rtb-{digits}",
        "defaultSecurityGroupId": f"sg-{digits}",
        "dhcpOptionsId": f"dopt-{digits}",
        "ownerId": world.account_id,
        "instanceTenancy": draft.text("instanceTenancy") or "default",
        "enableDnsSupport": draft.flag("enableDnsSupport", True),
        "enableDnsHostnames": draft.flag("enableDnsHostnames"),
        "enableNetworkAddressUsageMetrics": draft.flag("enableNetworkAddressUsageMetrics"),
        "ipv6AssociationId": "",
        "ipv6CidrBlock": draft.text("ipv6CidrBlock") or "",
        "ipv6CidrBlockNetworkBorderGroup": "",
    }


# --- Subnet --------------------------------------------------------------------------------------------------------

_CREATE_SUBNET = Call("ec2", "CreateSubnet", renames={"tags": tag_specifications("subnet")})
_MODIFY_SUBNET = Call(
    "ec2",
    "ModifySubnetAttribute",
    takes=frozenset(
        {
            "assignIpv6AddressOnCreation",
            "customerOwnedIpv4Pool",
            "enableDns64",
            "enableLniAtDeviceIndex",
            "enableResourceNameDnsARecordOnLaunch",
            "enableResourceNameDnsAaaaRecordOnLaunch",
            "mapCustomerOwnedIpOnLaunch",
            "mapPublicIpOnLaunch",
            "privateDnsHostnameTypeOnLaunch",
        }
    ),
    subject="SubnetId",
    apart=True,
)


def _check_subnet(draft: Draft, world: World) -> None:
    _check_zone(draft, world)
    vpc = world.reference(draft, "vpcId", tokens.VPC)
    network = cidr.ipv4(draft, "cidrBlock")
    if network is None:
        return
    cidr.check_length(draft, "cidrBlock", network, longest=28, shortest=16, source=_CREATE_SUBNET.cited)
    if vpc is not None:
        _check_place_in_vpc(draft, world, vpc, network)


def _check_zone(draft: Draft, world: World) -> None:
    if draft.given("availabilityZone"):
        reason = "give availabilityZoneId instead: which zone a name means differs from account to account"
        raise draft.refusal("availabilityZone", reason, "EC2 user guide, Availability Zone ids")
    if draft.absent("availabilityZoneId"):
        reason = "give it: without it AWS picks a zone, and nothing says that the GPU machines are offered there"
        raise draft.refusal("availabilityZoneId", reason, _CREATE_SUBNET.cited)
    zone = draft.text("availabilityZoneId")
    prefix = catalogue.regions()[world.region]
    if zone is not None and zone.rpartition("-az")[0] != prefix:
        reason = f"is no zone of {world.region}, whose zone ids begin with {prefix}-az"
        raise draft.refusal("availabilityZoneId", reason, "EC2 error InvalidParameterValue")


def _check_place_in_vpc(draft: Draft, world: World, vpc: Record, network: IPv4Network) -> None:
    whole = vpc.text("cidrBlock")
    if whole and not network.subnet_of(IPv4Network(whole)):
        reason = f"is not inside {whole}, the range of {vpc.resource}"
        raise draft.refusal("cidrBlock", reason, "EC2 error InvalidSubnet.Range")
    for other in world.of(tokens.SUBNET):
        taken = other.text("cidrBlock")
        if other.text("vpcId") == vpc.id and taken and network.overlaps(IPv4Network(taken)):
            reason = f"overlaps {taken} of {other.resource}"
            raise draft.refusal("cidrBlock", reason, f"EC2 error InvalidSubnet.Conflict; {_CREATE_SUBNET.cited}")


def _subnet(draft: Draft, world: World, subnet_id: str) -> dict[str, object]:
    zone = draft.text("availabilityZoneId") or ""
    return {
        "arn": world.arn("ec2", f"subnet/{subnet_id}"),
        # In this account zone 1 has the letter a, zone 2 the letter b: as good as any other account's mapping.
        "availabilityZone": world.region + chr(ord("a") + int(zone.rpartition("-az")[2]) - 1),
        "ownerId": world.account_id,
        "mapPublicIpOnLaunch": draft.flag("mapPublicIpOnLaunch"),
        "assignIpv6AddressOnCreation": draft.flag("assignIpv6AddressOnCreation"),
        "ipv6CidrBlockAssociationId": "",
        "privateDnsHostnameTypeOnLaunch": draft.text("privateDnsHostnameTypeOnLaunch") or "ip-name",
    }


# --- Internet gateway, Elastic IP, NAT gateway ---------------------------------------------------------------------

_CREATE_INTERNET_GATEWAY = Call(
    "ec2", "CreateInternetGateway", renames={"tags": tag_specifications("internet-gateway")}
)
_ATTACH_INTERNET_GATEWAY = Call("ec2", "AttachInternetGateway", takes=frozenset({"vpcId"}), subject="InternetGatewayId")
_ALLOCATE_ADDRESS = Call("ec2", "AllocateAddress", renames={"tags": tag_specifications("elastic-ip")})
_ASSOCIATE_ADDRESS = Call(
    "ec2",
    "AssociateAddress",
    renames={
        "instance": "InstanceId",
        "networkInterface": "NetworkInterfaceId",
        "associateWithPrivateIp": "PrivateIpAddress",
    },
    takes=frozenset({"instance", "networkInterface", "associateWithPrivateIp"}),
    subject="AllocationId",
)
_CREATE_NAT_GATEWAY = Call(
    "ec2", "CreateNatGateway", renames={"privateIp": "PrivateIpAddress", "tags": tag_specifications("natgateway")}
)


def _check_internet_gateway(draft: Draft, world: World) -> None:
    vpc = world.reference(draft, "vpcId", tokens.VPC)
    attached = _internet_gateway_of(world, vpc.id) if vpc is not None else None
    if attached is not None:
        reason = f"Resource.AlreadyAssociated: the VPC has {attached.resource} attached already"
        raise draft.refusal("vpcId", reason, _ATTACH_INTERNET_GATEWAY.cited)


def _internet_gateway_of(world: World, vpc_id: str) -> Record | None:
    return world.with_output(tokens.INTERNET_GATEWAY, "vpcId", vpc_id)


def _internet_gateway(_draft: Draft, world: World, gateway_id: str) -> dict[str, object]:
    return {"arn": world.arn("ec2", f"internet-gateway/{gateway_id}"), "ownerId": world.account_id}


def _check_address(draft: Draft, _world: World) -> None:
    if draft.text("domain") == "standard":
        raise draft.refusal("domain", "must be vpc: addresses of EC2-Classic no longer exist", _ALLOCATE_ADDRESS.cited)


def _address(draft: Draft, world: World, allocation_id: str) -> dict[str, object]:
    # From a block that RFC 5737 keeps for documentation: nobody's address.
    ip = f"198.51.100.{int(world.made_up(draft, 'address', 4), 16) % 254 + 1}"
    return {
        "arn": world.arn("ec2", f"elastic-ip/{allocation_id}"),
        "allocationId": allocation_id,
        "associationId": "",
        "domain": "vpc",
        "publicIp": ip,
        "publicDns": f"ec2-{ip.replace('.', '-')}.{world.region}.compute.amazonaws.com",
        "privateIp": "",
        "privateDns": "",
        "carrierIp": "",
        "customerOwnedIp": "",
        "ptrRecord": "",
        "publicIpv4Pool": "amazon",
        "networkBorderGroup": world.region,
        "instance": "",
        "networkInterface": "",
    }


def _is_public(draft: Draft) -> bool:
    return draft.text("connectivityType") in {None, "public"}


def _check_nat_gateway(draft: Draft, world: World) -> None:
    subnet = world.reference(draft, "subnetId", tokens.SUBNET)
    address = world.reference(draft, "allocationId", tokens.EIP)
    if draft.unknown("connectivityType") or draft.unknown("availabilityMode"):
        return
    regional = draft.text("availabilityMode") == "regional"
    if not regional and draft.absent("subnetId"):
        raise draft.refusal("subnetId", "a zonal NAT gateway needs a subnet", _CREATE_NAT_GATEWAY.cited)
    if not _is_public(draft):
        if draft.given("allocationId"):
            reason = "a private NAT gateway takes no Elastic IP address"
            raise draft.refusal("allocationId", reason, _CREATE_NAT_GATEWAY.cited)
        return
    if not regional and draft.absent("allocationId"):
        reason = "a public NAT gateway needs an Elastic IP address"
        raise draft.refusal("allocationId", reason, _CREATE_NAT_GATEWAY.cited)
    if address is not None:
        _check_address_is_free(draft, world, address)
    if subnet is not None and _internet_gateway_of(world, subnet.text("vpcId")) is None:
        reason = (
            f"Gateway.NotAttached: network {subnet.text('vpcId')} has no internet gateway attached yet; create the gateway first "
            "(depends_on)"
        )
        raise draft.refusal("subnetId", reason, f"NatGateway.FailureCode of {_CREATE_NAT_GATEWAY.cited}")


def _check_address_is_free(draft: Draft, world: World, address: Record) -> None:
    user = world.with_output(tokens.NAT_GATEWAY, "allocationId", address.id)
    if user is not None:
        reason = f"Resource.AlreadyAssociated: the address is that of {user.resource}"
        raise draft.refusal("allocationId", reason, f"NatGateway.FailureCode of {_CREATE_NAT_GATEWAY.cited}")


def _nat_gateway(draft: Draft, world: World, _nat_id: str) -> dict[str, object]:
    address = world.find(tokens.EIP, draft.text("allocationId") or "")
    subnet = world.find(tokens.SUBNET, draft.text("subnetId") or "")
    return {
        "associationId": f"eipassoc-0{world.made_up(draft, 'association', 16)}",
        "networkInterfaceId": f"eni-0{world.made_up(draft, 'interface', 16)}",
        "connectivityType": draft.text("connectivityType") or "public",
        "availabilityMode": draft.text("availabilityMode") or "zonal",
        "publicIp": address.text("publicIp") if address else "",
        "privateIp": draft.text("privateIp") or _first_address(subnet),
        "vpcId": subnet.text("vpcId") if subnet else draft.text("vpcId") or "",
        "secondaryPrivateIpAddressCount": draft.number("secondaryPrivateIpAddressCount") or 0,
        # These belong to regional NAT gateways.
        "autoProvisionZones": "",
        "autoScalingIps": "",
        "regionalNatGatewayAddresses": [],
        "regionalNatGatewayAutoMode": "",
        "routeTableId": "",
    }


def _first_address(subnet: Record | None) -> str:
    """Return the first address that AWS does not keep for itself: it reserves the first four of a subnet."""
    return str(IPv4Network(subnet.text("cidrBlock"))[4]) if subnet else ""


def _nat_holds(record: Record, world: World) -> Iterable[Target]:
    yield (tokens.SUBNET, record.text("subnetId"))
    yield (tokens.EIP, record.text("allocationId"))
    gateway = _internet_gateway_of(world, record.text("vpcId"))
    # A VPC with mapped public addresses does not let go of its gateway (EC2 DetachInternetGateway).
    if gateway is not None and record.text("connectivityType") == "public":
        yield (tokens.INTERNET_GATEWAY, gateway.id)


KINDS = (
    Kind(
        tokens.VPC,
        (_CREATE_VPC, _MODIFY_VPC),
        with_id("vpc"),
        _vpc,
        Ending("ec2", "DeleteVpc", IN_USE),
        rules=(_check_vpc,),
    ),
    Kind(
        tokens.SUBNET,
        (_CREATE_SUBNET, _MODIFY_SUBNET),
        with_id("subnet"),
        _subnet,
        Ending("ec2", "DeleteSubnet", IN_USE),
        rules=(_check_subnet,),
        holds=holds_inputs(vpcId=tokens.VPC),
    ),
    Kind(
        tokens.INTERNET_GATEWAY,
        (_CREATE_INTERNET_GATEWAY, _ATTACH_INTERNET_GATEWAY),
        with_id("igw"),
        _internet_gateway,
        Ending("ec2", "DetachInternetGateway", "DependencyViolation: its VPC has mapped public addresses"),
        rules=(_check_internet_gateway,),
        holds=holds_inputs(vpcId=tokens.VPC),
    ),
    Kind(
        tokens.EIP,
        (_ALLOCATE_ADDRESS, _ASSOCIATE_ADDRESS),
        with_id("eipalloc"),
        _address,
        Ending("ec2", "ReleaseAddress", "InvalidIPAddress.InUse: it is associated"),
        rules=(_check_address,),
    ),
    Kind(
        tokens.NAT_GATEWAY,
        (_CREATE_NAT_GATEWAY,),
        with_id("nat"),
        _nat_gateway,
        Ending("ec2", "DeleteNatGateway"),
        rules=(_check_nat_gateway,),
        holds=_nat_holds,
    ),
)
