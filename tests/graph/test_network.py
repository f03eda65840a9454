from __future__ import annotations

from ipaddress import IPv4Network

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.network import Network, NetworkArgs, SubnetCidrs, subnet_cidrs
from tests.graph.harness import UNKNOWN, Recorded, Run, run

TWO_ZONES = ("use1-az6", "use1-az2")
THREE_ZONES = (*TWO_ZONES, "use1-az4")


def network(zones: tuple[str, ...] = TWO_ZONES, *, preview: bool = False) -> Run:
    def program() -> dict[str, pulumi.Output[str]]:
        made = Network("net", NetworkArgs("10.0.0.0/16", zones, "glm", "us-east-1"))
        return {"vpc": made.vpc_id, **{f"private {zone}": made.private_subnet_ids[zone] for zone in zones}}

    return run(program, preview=preview)


@pytest.mark.parametrize(
    ("vpc", "zones", "expected"),
    [
        (
            "10.0.0.0/16",
            4,
            (
                SubnetCidrs("10.0.0.0/19", "10.0.32.0/22"),
                SubnetCidrs("10.0.64.0/19", "10.0.96.0/22"),
                SubnetCidrs("10.0.128.0/19", "10.0.160.0/22"),
                SubnetCidrs("10.0.192.0/19", "10.0.224.0/22"),
            ),
        ),
        (
            "172.16.16.0/20",
            2,
            (SubnetCidrs("172.16.16.0/23", "172.16.18.0/26"), SubnetCidrs("172.16.20.0/23", "172.16.22.0/26")),
        ),
    ],
)
def test_subnets_of_a_vpc(vpc: str, zones: int, expected: tuple[SubnetCidrs, ...]) -> None:
    assert subnet_cidrs(vpc, zones) == expected


@given(prefix=st.integers(16, 20), zones=st.integers(1, 4), more=st.integers(0, 3))
def test_subnets_stay_where_they_are_apart_and_inside(prefix: int, zones: int, more: int) -> None:
    vpc = IPv4Network(f"10.64.0.0/{prefix}")
    rows = subnet_cidrs(str(vpc), zones)
    assert subnet_cidrs(str(vpc), min(zones + more, 4))[:zones] == rows
    subnets = [IPv4Network(cidr) for row in rows for cidr in (row.private, row.public)]
    assert all(subnet.subnet_of(vpc) for subnet in subnets)
    assert not any(a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[i + 1 :])
    assert all(IPv4Network(row.public).prefixlen <= 27 for row in rows)  # a load balancer's smallest


def test_a_fifth_zone_has_no_share() -> None:
    with pytest.raises(ValueError, match="5 availability zones in one network; at most 4 have a share of it"):
        subnet_cidrs("10.0.0.0/16", 5)


def test_urns() -> None:
    made = "glm-on-gpus:network:Network$aws:ec2"
    assert network().urns == [
        f"{made}/eip:Eip::net-nat-use1-az2",
        f"{made}/eip:Eip::net-nat-use1-az6",
        f"{made}/internetGateway:InternetGateway::net-internet-gateway",
        f"{made}/natGateway:NatGateway::net-nat-use1-az2",
        f"{made}/natGateway:NatGateway::net-nat-use1-az6",
        f"{made}/route:Route::net-private-use1-az2",
        f"{made}/route:Route::net-private-use1-az6",
        f"{made}/route:Route::net-public",
        f"{made}/routeTable:RouteTable::net-private-use1-az2",
        f"{made}/routeTable:RouteTable::net-private-use1-az6",
        f"{made}/routeTable:RouteTable::net-public",
        f"{made}/routeTableAssociation:RouteTableAssociation::net-private-use1-az2",
        f"{made}/routeTableAssociation:RouteTableAssociation::net-private-use1-az6",
        f"{made}/routeTableAssociation:RouteTableAssociation::net-public-use1-az2",
        f"{made}/routeTableAssociation:RouteTableAssociation::net-public-use1-az6",
        f"{made}/subnet:Subnet::net-private-use1-az2",
        f"{made}/subnet:Subnet::net-private-use1-az6",
        f"{made}/subnet:Subnet::net-public-use1-az2",
        f"{made}/subnet:Subnet::net-public-use1-az6",
        f"{made}/vpc:Vpc::net-vpc",
        f"{made}/vpcEndpoint:VpcEndpoint::net-s3",
        "pulumi:pulumi:Stack$glm-on-gpus:network:Network::net",
    ]


def test_vpc_and_subnets() -> None:
    result = network()
    assert result.one("aws:ec2/vpc:Vpc").inputs == {
        "cidrBlock": "10.0.0.0/16",
        "enableDnsSupport": True,
        "enableDnsHostnames": True,
        "tags": {"Name": "glm-vpc"},
    }
    assert [row.inputs for row in result.of("aws:ec2/subnet:Subnet")] == [
        subnet("private", "use1-az6", "10.0.0.0/19", "internal-elb"),
        subnet("private", "use1-az2", "10.0.64.0/19", "internal-elb"),
        subnet("public", "use1-az6", "10.0.32.0/22", "elb"),
        subnet("public", "use1-az2", "10.0.96.0/22", "elb"),
    ]


def subnet(kind: str, zone: str, cidr: str, role: str) -> dict[str, object]:
    return {
        "vpcId": "net-vpc-id",
        "availabilityZoneId": zone,
        "cidrBlock": cidr,
        "mapPublicIpOnLaunch": False,
        "tags": {
            "Name": f"glm-{kind}-{zone}",
            "kubernetes.io/cluster/glm": "shared",
            f"kubernetes.io/role/{role}": "1",
        },
    }


def test_every_private_subnet_leaves_through_its_own_zone() -> None:
    result = network()
    assert {row.name: row.inputs for row in result.of("aws:ec2/route:Route")} == {
        "net-public": route("net-public", gatewayId="net-internet-gateway-id"),
        "net-private-use1-az6": route("net-private-use1-az6", natGatewayId="net-nat-use1-az6-id"),
        "net-private-use1-az2": route("net-private-use1-az2", natGatewayId="net-nat-use1-az2-id"),
    }
    assert {row.name: row.inputs for row in result.of("aws:ec2/routeTableAssociation:RouteTableAssociation")} == {
        f"net-{subnet}": {"routeTableId": f"net-{table}-id", "subnetId": f"net-{subnet}-id"}
        for subnet, table in (
            ("public-use1-az6", "public"),
            ("public-use1-az2", "public"),
            ("private-use1-az6", "private-use1-az6"),
            ("private-use1-az2", "private-use1-az2"),
        )
    }
    assert {row.name: row.inputs for row in result.of("aws:ec2/natGateway:NatGateway")} == {
        f"net-nat-{zone}": {
            "subnetId": f"net-public-{zone}-id",
            "allocationId": f"net-nat-{zone}-id",
            "connectivityType": "public",
            "tags": {"Name": f"glm-nat-{zone}"},
        }
        for zone in TWO_ZONES
    }


def route(table: str, **target: str) -> dict[str, str]:
    return {"routeTableId": f"{table}-id", "destinationCidrBlock": "0.0.0.0/0", **target}


@pytest.mark.parametrize("type_", ["aws:ec2/eip:Eip", "aws:ec2/natGateway:NatGateway"])
def test_nat_waits_for_the_internet_gateway(type_: str) -> None:
    result = network()
    rows = result.of(type_)
    assert len(rows) == len(TWO_ZONES)
    assert all("InternetGateway net-internet-gateway" in result.dependencies(row) for row in rows)


def test_s3_goes_past_the_nat_gateways() -> None:
    assert network().one("aws:ec2/vpcEndpoint:VpcEndpoint").inputs == {
        "vpcId": "net-vpc-id",
        "serviceName": "com.amazonaws.us-east-1.s3",
        "vpcEndpointType": "Gateway",
        "routeTableIds": ["net-private-use1-az6-id", "net-private-use1-az2-id"],
        "tags": {"Name": "glm-s3"},
    }


def test_a_zone_added_at_the_end_changes_nothing_that_is_there() -> None:
    def rows(result: Run) -> dict[str, Recorded]:
        return {row.urn: row for row in result.resources if row.custom}

    before, after = rows(network()), rows(network(THREE_ZONES))
    changed = {urn.rpartition("::")[2] for urn, row in before.items() if after[urn].inputs != row.inputs}
    assert changed == {"net-s3"}  # one more route table, in place
    added = sorted({after[urn].label for urn in set(after) - set(before)})
    assert added == [
        "Eip net-nat-use1-az4",
        "NatGateway net-nat-use1-az4",
        "Route net-private-use1-az4",
        "RouteTable net-private-use1-az4",
        "RouteTableAssociation net-private-use1-az4",
        "RouteTableAssociation net-public-use1-az4",
        "Subnet net-private-use1-az4",
        "Subnet net-public-use1-az4",
    ]


def test_what_policies_and_others_see() -> None:
    result = network()
    component = result.one("glm-on-gpus:network:Network")
    assert component.inputs == {
        "vpcCidr": "10.0.0.0/16",
        "availabilityZoneIds": ["use1-az6", "use1-az2"],
        "clusterName": "glm",
        "region": "us-east-1",
    }
    assert result.component_outputs[component.urn] == {
        "vpcId": "net-vpc-id",
        "privateSubnetIds": {"use1-az6": "net-private-use1-az6-id", "use1-az2": "net-private-use1-az2-id"},
        "publicSubnetIds": {"use1-az6": "net-public-use1-az6-id", "use1-az2": "net-public-use1-az2-id"},
    }


def test_a_preview_registers_the_same() -> None:
    preview = network(preview=True)
    assert preview.urns == network().urns
    assert preview.exports["vpc"].value is UNKNOWN
    assert preview.one("aws:ec2/natGateway:NatGateway", "net-nat-use1-az6").inputs["subnetId"] is UNKNOWN
