"""Route tables, routes, and VPC endpoints."""

from __future__ import annotations

from typing import Final

from rehearsal.aws import cidr, tokens
from rehearsal.aws.documents import check_json
from rehearsal.aws.draft import Draft, as_list, as_table, joined, value_at
from rehearsal.aws.kind import IN_USE, Ending, Kind, holds_inputs, with_id
from rehearsal.aws.request import Call, tag_specifications
from rehearsal.aws.security_groups import check_security_groups
from rehearsal.aws.world import Record, World
from serving.spelling import listed

# --- Routes --------------------------------------------------------------------------------------------------------

_CREATE_ROUTE_TABLE = Call("ec2", "CreateRouteTable", renames={"tags": tag_specifications("route-table")})
_CREATE_ROUTE = Call("ec2", "CreateRoute", renames={"egressOnlyGatewayId": "EgressOnlyInternetGatewayId"})
_CREATE_INLINE_ROUTES = Call(
    "ec2",
    "CreateRoute",
    renames={
        "cidrBlock": "DestinationCidrBlock",
        "ipv6CidrBlock": "DestinationIpv6CidrBlock",
        "egressOnlyGatewayId": "EgressOnlyInternetGatewayId",
    },
    takes=frozenset({"routes"}),
    subject="RouteTableId",
    each=True,
)
_ASSOCIATE_ROUTE_TABLE = Call("ec2", "AssociateRouteTable")

_ROUTE_TARGETS: Final = (
    "gatewayId",
    "natGatewayId",
    "networkInterfaceId",
    "transitGatewayId",
    "vpcEndpointId",
    "vpcPeeringConnectionId",
    "egressOnlyGatewayId",
    "carrierGatewayId",
    "localGatewayId",
    "coreNetworkArn",
    "odbNetworkArn",
)
_ROUTE_DESTINATIONS: Final = ("destinationCidrBlock", "destinationIpv6CidrBlock", "destinationPrefixListId")
_INLINE_DESTINATIONS: Final = ("cidrBlock", "ipv6CidrBlock", "destinationPrefixListId")


def _check_route_table(draft: Draft, world: World) -> None:
    vpc = world.reference(draft, "vpcId", tokens.VPC)
    destinations: list[object] = []
    for index, route in enumerate(draft.items("routes")):
        path = f"routes[{index}]"
        _check_one_route(draft, world, path, _INLINE_DESTINATIONS, vpc.id if vpc else None)
        destinations.extend(as_table(route).get(name) for name in _INLINE_DESTINATIONS if name in as_table(route))
    repeated = next((item for item in destinations if isinstance(item, str) and destinations.count(item) > 1), None)
    if repeated is not None:
        raise draft.refusal("routes", f"RouteAlreadyExists: {repeated} has two routes", _CREATE_ROUTE.cited)


def _check_route(draft: Draft, world: World) -> None:
    table = world.reference(draft, "routeTableId", tokens.ROUTE_TABLE)
    _check_one_route(draft, world, "", _ROUTE_DESTINATIONS, table.text("vpcId") if table else None)
    if table is not None:
        _check_destination_is_free(draft, world, table)


def _check_one_route(draft: Draft, world: World, path: str, destinations: tuple[str, ...], vpc_id: str | None) -> None:
    for names, what in ((destinations, "destination"), (_ROUTE_TARGETS, "target")):
        given = [name for name in names if draft.given(joined(path, name))]
        to_blame = draft.not_one_of([joined(path, name) for name in names])
        if to_blame is not None:
            reason = (
                f"a route has exactly one {what}, one of {listed(names)}; given are {' and '.join(given) or 'none'}"
            )
            raise draft.refusal(to_blame, reason, _CREATE_ROUTE.cited)
    for name in destinations[:2]:
        cidr.any_version(draft, joined(path, name))
    _check_route_target(draft, world, path, vpc_id)


def _check_route_target(draft: Draft, world: World, path: str, vpc_id: str | None) -> None:
    nat = world.reference(draft, joined(path, "natGatewayId"), tokens.NAT_GATEWAY)
    field = joined(path, "gatewayId")
    gateway = None
    # gatewayId may also name a virtual private gateway (vgw-…), which the program could only have brought along.
    if (draft.text(field) or "").startswith("igw-"):
        gateway = world.reference(draft, field, tokens.INTERNET_GATEWAY)
    if vpc_id is not None and nat is not None and nat.text("vpcId") != vpc_id:
        reason = f"{nat.resource} is in another VPC, {nat.text('vpcId')}, than the route table, {vpc_id}"
        raise draft.refusal(joined(path, "natGatewayId"), reason, _CREATE_ROUTE.cited)
    if vpc_id is not None and gateway is not None and gateway.text("vpcId") != vpc_id:
        reason = f"{gateway.resource} is not attached to {vpc_id}, the VPC of the route table"
        raise draft.refusal(field, reason, _CREATE_ROUTE.cited)


def _check_destination_is_free(draft: Draft, world: World, table: Record) -> None:
    for name, inline in zip(_ROUTE_DESTINATIONS, _INLINE_DESTINATIONS, strict=True):
        wanted = draft.text(name)
        if wanted is None:
            continue
        inlined = [value_at(route, inline) for route in as_list(table.outputs.get("routes"))]
        routes = [route for route in world.of(tokens.ROUTE) if route.text("routeTableId") == table.id]
        if wanted in inlined or any(route.text(name) == wanted for route in routes):
            reason = f"RouteAlreadyExists: {table.resource} has a route to {wanted} already"
            raise draft.refusal(name, reason, _CREATE_ROUTE.cited)


def _route_table(_draft: Draft, world: World, table_id: str) -> dict[str, object]:
    return {"arn": world.arn("ec2", f"route-table/{table_id}"), "ownerId": world.account_id}


def _route_id(draft: Draft, _world: World) -> str:
    destination = next((draft.text(name) for name in _ROUTE_DESTINATIONS if draft.given(name)), None)
    return f"{draft.text('routeTableId')}_{destination}"


def _route(_draft: Draft, _world: World, _route_id: str) -> dict[str, object]:
    return {"origin": "CreateRoute", "state": "active", "instanceId": "", "instanceOwnerId": ""}


def _check_association(draft: Draft, world: World) -> None:
    table = world.reference(draft, "routeTableId", tokens.ROUTE_TABLE)
    subnet = world.reference(draft, "subnetId", tokens.SUBNET)
    if (to_blame := draft.not_one_of(("subnetId", "gatewayId"))) is not None:
        raise draft.refusal(to_blame, "give either subnetId or gatewayId", _ASSOCIATE_ROUTE_TABLE.cited)
    if table is not None and subnet is not None and table.text("vpcId") != subnet.text("vpcId"):
        reason = f"{subnet.resource} and {table.resource} belong to different VPCs"
        raise draft.refusal("subnetId", reason, _ASSOCIATE_ROUTE_TABLE.cited)
    other = world.with_output(tokens.ROUTE_TABLE_ASSOCIATION, "subnetId", subnet.id) if subnet is not None else None
    if other is not None:
        reason = f"Resource.AlreadyAssociated: {other.resource} has given this subnet a route table"
        raise draft.refusal("subnetId", reason, _ASSOCIATE_ROUTE_TABLE.cited)


# --- VPC endpoints -------------------------------------------------------------------------------------------------

_CREATE_ENDPOINT = Call(
    "ec2", "CreateVpcEndpoint", renames={"policy": "PolicyDocument", "tags": tag_specifications("vpc-endpoint")}
)
# The only services with gateway endpoints (AWS PrivateLink guide, gateway endpoints).
_GATEWAY_SERVICES: Final = ("s3", "dynamodb")


def _check_endpoint(draft: Draft, world: World) -> None:
    vpc = world.reference(draft, "vpcId", tokens.VPC)
    tables = world.references(draft, "routeTableIds", tokens.ROUTE_TABLE)
    subnets = world.references(draft, "subnetIds", tokens.SUBNET)
    check_security_groups(draft, world, "securityGroupIds")
    check_json(draft, "policy", _CREATE_ENDPOINT.cited)
    _check_endpoint_service(draft, world)
    if vpc is None:
        return
    stray = next((record for record in (*tables, *subnets) if record.text("vpcId") != vpc.id), None)
    if stray is not None:
        field = "routeTableIds" if stray.token == tokens.ROUTE_TABLE else "subnetIds"
        raise draft.refusal(field, f"{stray.resource} is in another VPC than {vpc.resource}", _CREATE_ENDPOINT.cited)
    names_resolve = vpc.flag("enableDnsSupport", True) and vpc.flag("enableDnsHostnames", False)
    if draft.flag("privateDnsEnabled") and not names_resolve:
        reason = f"needs enableDnsSupport and enableDnsHostnames on {vpc.resource}"
        raise draft.refusal("privateDnsEnabled", reason, _CREATE_ENDPOINT.cited)


def _check_endpoint_service(draft: Draft, world: World) -> None:
    if draft.unknown("vpcEndpointType") or draft.unknown("serviceRegion"):
        return
    kind = draft.text("vpcEndpointType") or "Gateway"
    other_kind = {"Gateway": ("subnetIds", "securityGroupIds"), "Interface": ("routeTableIds",)}.get(kind, ())
    for field in other_kind:
        if draft.given(field):
            raise draft.refusal(field, f"not for endpoints of type {kind}", _CREATE_ENDPOINT.cited)
    service = draft.text("serviceName")
    if service is None or not service.startswith("com.amazonaws.") or service.startswith("com.amazonaws.vpce."):
        return
    expected = f"com.amazonaws.{draft.text('serviceRegion') or world.region}."
    if not service.startswith(expected):
        reason = f"InvalidServiceName: a service of {world.region} begins with {expected}"
        raise draft.refusal("serviceName", reason, _CREATE_ENDPOINT.cited)
    if kind == "Gateway" and service.removeprefix(expected) not in _GATEWAY_SERVICES:
        reason = f"has no gateway endpoint; only {' and '.join(_GATEWAY_SERVICES)} have, others need vpcEndpointType Interface"
        raise draft.refusal("serviceName", reason, "AWS PrivateLink guide, gateway endpoints")


def _endpoint(draft: Draft, world: World, endpoint_id: str) -> dict[str, object]:
    interfaces = [f"eni-0{world.made_up(draft, subnet, 16)}" for subnet in draft.texts("subnetIds")]
    return {
        "arn": world.arn("ec2", f"vpc-endpoint/{endpoint_id}"),
        "vpcEndpointType": draft.text("vpcEndpointType") or "Gateway",
        "state": "available",
        "ownerId": world.account_id,
        "requesterManaged": False,
        "prefixListId": f"pl-{world.made_up(draft, 'prefix list', 8)}",
        "cidrBlocks": [],
        "dnsEntries": [],
        "networkInterfaceIds": interfaces,
        "ipAddressType": draft.text("ipAddressType") or "ipv4",
        "privateDnsEnabled": draft.flag("privateDnsEnabled"),
        "serviceRegion": draft.text("serviceRegion") or world.region,
        "policy": draft.text("policy") or "",
    }


KINDS = (
    Kind(
        tokens.ROUTE_TABLE,
        (_CREATE_ROUTE_TABLE, _CREATE_INLINE_ROUTES),
        with_id("rtb"),
        _route_table,
        Ending("ec2", "DeleteRouteTable", IN_USE),
        rules=(_check_route_table,),
        holds=holds_inputs(vpcId=tokens.VPC),
    ),
    Kind(
        tokens.ROUTE,
        (_CREATE_ROUTE,),
        _route_id,
        _route,
        Ending("ec2", "DeleteRoute"),
        rules=(_check_route,),
    ),
    Kind(
        tokens.ROUTE_TABLE_ASSOCIATION,
        (_ASSOCIATE_ROUTE_TABLE,),
        with_id("rtbassoc"),
        lambda _draft, _world, _id: {},
        Ending("ec2", "DisassociateRouteTable"),
        rules=(_check_association,),
        holds=holds_inputs(routeTableId=tokens.ROUTE_TABLE),
    ),
    Kind(
        tokens.VPC_ENDPOINT,
        (_CREATE_ENDPOINT,),
        with_id("vpce"),
        _endpoint,
        Ending("ec2", "DeleteVpcEndpoints"),
        rules=(_check_endpoint,),
        # The provider accepts an endpoint of its own account by itself.
        local=frozenset({"autoAccept"}),
        holds=holds_inputs(vpcId=tokens.VPC, subnetIds=tokens.SUBNET, securityGroupIds=tokens.SECURITY_GROUP),
    ),
)
