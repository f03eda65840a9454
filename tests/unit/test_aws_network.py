"""Rules of VPC, subnets, gateways, routes, endpoints, security groups, flow logs."""

from __future__ import annotations

import pytest
from aws_account import (
    CLUSTER,
    DELETE,
    ENDPOINT,
    FLOW_LOG,
    GROUP,
    INGRESS,
    NAT,
    ROUTE,
    SUBNET,
    VPC,
    Case,
    in_words,
)

from rehearsal.aws import AwsRefusal

_REFUSED = (
    Case(
        "VPC too large",
        VPC,
        {"cidrBlock": "10.0.0.0/8"},
        (
            "aws:ec2/vpc:Vpc::main: cidrBlock: '10.0.0.0/8': must be between a /28 and a /16 (EC2 error "
            "InvalidVpc.Range)"
        ),
    ),
    Case(
        "VPC with host bits",
        VPC,
        {"cidrBlock": "10.0.0.1/16"},
        (
            "aws:ec2/vpc:Vpc::main: cidrBlock: '10.0.0.1/16': has host bits set; did you mean '10.0.0.0/16'? (the "
            "provider's check of CIDR blocks)"
        ),
    ),
    Case(
        "VPC without a length",
        VPC,
        {"cidrBlock": "10.0.0.0"},
        (
            "aws:ec2/vpc:Vpc::main: cidrBlock: '10.0.0.0': must be a CIDR block with its prefix length, such as "
            "10.0.0.0/16 (the provider's check of CIDR blocks)"
        ),
    ),
    Case(
        "VPC range that is none",
        VPC,
        {"cidrBlock": "10.0.0.0/33"},
        (
            "aws:ec2/vpc:Vpc::main: cidrBlock: '10.0.0.0/33': must be a CIDR block such as 10.0.0.0/16 (the "
            "provider's check of CIDR blocks)"
        ),
    ),
    Case(
        "VPC of IPv6",
        VPC,
        {"cidrBlock": "fd00::/48"},
        (
            "aws:ec2/vpc:Vpc::main: cidrBlock: 'fd00::/48': must be an IPv4 CIDR block such as 10.0.0.0/16 (the "
            "provider's check of CIDR blocks)"
        ),
    ),
    Case(
        "VPC without a range",
        VPC,
        {"cidrBlock": DELETE},
        (
            "aws:ec2/vpc:Vpc::main: cidrBlock: not given: a VPC needs cidrBlock or ipv4IpamPoolId (EC2 CreateVpc, "
            "<botocore>)"
        ),
    ),
    Case(
        "VPC tenancy host",
        VPC,
        {"instanceTenancy": "host"},
        (
            "aws:ec2/vpc:Vpc::main: instanceTenancy: 'host': must be default or dedicated for a VPC (EC2 "
            "CreateVpc, <botocore>)"
        ),
    ),
    Case(
        "DNS hostnames without DNS",
        VPC,
        {"enableDnsSupport": False},
        (
            "aws:ec2/vpc:Vpc::main: enableDnsHostnames: true: needs enableDnsSupport (EC2 ModifyVpcAttribute, "
            "<botocore>)"
        ),
    ),
    Case(
        "subnet by zone name",
        SUBNET,
        {"availabilityZone": "us-east-2a"},
        (
            "aws:ec2/subnet:Subnet::private-0: availabilityZone: 'us-east-2a': give availabilityZoneId instead: "
            "which zone a name means differs from account to account (EC2 user guide, Availability Zone ids)"
        ),
    ),
    Case(
        "subnet without a zone",
        SUBNET,
        {"availabilityZoneId": DELETE},
        (
            "aws:ec2/subnet:Subnet::private-0: availabilityZoneId: not given: give it: without it AWS picks a "
            "zone, and nothing says that the GPU machines are offered there (EC2 CreateSubnet, <botocore>)"
        ),
    ),
    Case(
        "subnet in another region",
        SUBNET,
        {"availabilityZoneId": "use1-az1"},
        (
            "aws:ec2/subnet:Subnet::private-0: availabilityZoneId: 'use1-az1': is no zone of us-east-2, whose zone "
            "ids begin with use2-az (EC2 error InvalidParameterValue)"
        ),
    ),
    Case(
        "subnet outside the VPC",
        SUBNET,
        {"cidrBlock": "10.1.0.0/24"},
        (
            "aws:ec2/subnet:Subnet::private-0: cidrBlock: '10.1.0.0/24': is not inside 10.0.0.0/16, the range of "
            "aws:ec2/vpc:Vpc::main (EC2 error InvalidSubnet.Range)"
        ),
    ),
    Case(
        "subnet over another",
        SUBNET,
        {"cidrBlock": "10.0.0.128/25"},
        (
            "aws:ec2/subnet:Subnet::private-0: cidrBlock: '10.0.0.128/25': overlaps 10.0.0.0/24 of "
            "aws:ec2/subnet:Subnet::public-0 (EC2 error InvalidSubnet.Conflict; EC2 CreateSubnet, <botocore>)"
        ),
    ),
    Case(
        "subnet too small",
        SUBNET,
        {"cidrBlock": "10.0.9.0/29"},
        (
            "aws:ec2/subnet:Subnet::private-0: cidrBlock: '10.0.9.0/29': must be between a /28 and a /16 (EC2 "
            "CreateSubnet, <botocore>)"
        ),
    ),
    Case(
        "subnet of no VPC",
        SUBNET,
        {"vpcId": "vpc-00000000000000000"},
        (
            "aws:ec2/subnet:Subnet::private-0: vpcId: 'vpc-00000000000000000': InvalidVpcID.NotFound: there is no "
            "such Vpc in the rehearsed account yet; take the value from the resource's output, so that it is "
            "created first (AWS error code, region us-east-2)"
        ),
    ),
    Case(
        "NAT gateway before the internet gateway",
        NAT,
        message=(
            "aws:ec2/natGateway:NatGateway::nat-0: subnetId: '<Subnet public-0>': Gateway.NotAttached: network "
            "<Vpc main> has no internet gateway attached yet; create the gateway first (depends_on) "
            "(NatGateway.FailureCode of EC2 CreateNatGateway, <botocore>)"
        ),
        without=(
            ("InternetGateway", "main"),
            ROUTE,
        ),
    ),
    Case(
        "NAT gateway with a used address",
        ("NatGateway", "nat-1"),
        {"allocationId": "<Eip nat-0>"},
        (
            "aws:ec2/natGateway:NatGateway::nat-1: allocationId: '<Eip nat-0>': Resource.AlreadyAssociated: the "
            "address is that of aws:ec2/natGateway:NatGateway::nat-0 (NatGateway.FailureCode of EC2 "
            "CreateNatGateway, <botocore>)"
        ),
    ),
    Case(
        "NAT gateway without an address",
        NAT,
        {"allocationId": DELETE},
        (
            "aws:ec2/natGateway:NatGateway::nat-0: allocationId: not given: a public NAT gateway needs an Elastic "
            "IP address (EC2 CreateNatGateway, <botocore>)"
        ),
    ),
    Case(
        "private NAT gateway with an address",
        NAT,
        {"connectivityType": "private"},
        (
            "aws:ec2/natGateway:NatGateway::nat-0: allocationId: '<Eip nat-0>': a private NAT gateway takes no "
            "Elastic IP address (EC2 CreateNatGateway, <botocore>)"
        ),
    ),
    Case(
        "NAT gateway without a subnet",
        NAT,
        {"subnetId": DELETE},
        (
            "aws:ec2/natGateway:NatGateway::nat-0: subnetId: not given: a zonal NAT gateway needs a subnet (EC2 "
            "CreateNatGateway, <botocore>)"
        ),
    ),
    Case(
        "classic address",
        ("Eip", "nat-0"),
        {"domain": "standard"},
        (
            "aws:ec2/eip:Eip::nat-0: domain: 'standard': must be vpc: addresses of EC2-Classic no longer exist "
            "(EC2 AllocateAddress, <botocore>)"
        ),
    ),
    Case(
        "route with two targets",
        ROUTE,
        {"natGatewayId": "nat-0"},
        (
            "aws:ec2/route:Route::public: natGatewayId: 'nat-0': a route has exactly one target, one of gatewayId, "
            "natGatewayId, networkInterfaceId, transitGatewayId, vpcEndpointId, vpcPeeringConnectionId, "
            "egressOnlyGatewayId, carrierGatewayId, localGatewayId, coreNetworkArn or odbNetworkArn; given are "
            "gatewayId and natGatewayId (EC2 CreateRoute, <botocore>)"
        ),
    ),
    Case(
        "route without a target",
        ROUTE,
        {"gatewayId": DELETE},
        (
            "aws:ec2/route:Route::public: gatewayId: not given: a route has exactly one target, one of gatewayId, "
            "natGatewayId, networkInterfaceId, transitGatewayId, vpcEndpointId, vpcPeeringConnectionId, "
            "egressOnlyGatewayId, carrierGatewayId, localGatewayId, coreNetworkArn or odbNetworkArn; given are "
            "none (EC2 CreateRoute, <botocore>)"
        ),
    ),
    Case(
        "route without a destination",
        ROUTE,
        {"destinationCidrBlock": DELETE},
        (
            "aws:ec2/route:Route::public: destinationCidrBlock: not given: a route has exactly one destination, "
            "one of destinationCidrBlock, destinationIpv6CidrBlock or destinationPrefixListId; given are none (EC2 "
            "CreateRoute, <botocore>)"
        ),
    ),
    Case(
        "route to no gateway",
        ROUTE,
        {"gatewayId": "igw-00000000000000000"},
        (
            "aws:ec2/route:Route::public: gatewayId: 'igw-00000000000000000': InvalidInternetGatewayID.NotFound: "
            "there is no such InternetGateway in the rehearsed account yet; take the value from the resource's "
            "output, so that it is created first (AWS error code, region us-east-2)"
        ),
    ),
    Case(
        "inline route with two targets",
        ("RouteTable", "private-0"),
        {"routes[0].gatewayId": "igw-1"},
        (
            "aws:ec2/routeTable:RouteTable::private-0: routes[0].natGatewayId: '<NatGateway nat-0>': a route has "
            "exactly one target, one of gatewayId, natGatewayId, networkInterfaceId, transitGatewayId, "
            "vpcEndpointId, vpcPeeringConnectionId, egressOnlyGatewayId, carrierGatewayId, localGatewayId, "
            "coreNetworkArn or odbNetworkArn; given are gatewayId and natGatewayId (EC2 CreateRoute, <botocore>)"
        ),
    ),
    Case(
        "inline routes to one place",
        ("RouteTable", "private-0"),
        {"routes[1]": {"cidrBlock": "0.0.0.0/0", "natGatewayId": "<NatGateway nat-0>"}},
        (
            'aws:ec2/routeTable:RouteTable::private-0: routes: [{"cidrBlock": "0.0.0.0/0", "natGatewayId": '
            '"<NatGateway nat-0>"}, {"cidrBlock": "0.0.0.0/0", "na… (138 characters): RouteAlreadyExists: '
            "0.0.0.0/0 has two routes (EC2 CreateRoute, <botocore>)"
        ),
    ),
    Case(
        "inline route to no range",
        ("RouteTable", "private-0"),
        {"routes[0].cidrBlock": "everywhere"},
        (
            "aws:ec2/routeTable:RouteTable::private-0: routes[0].cidrBlock: 'everywhere': must be a CIDR block "
            "with its prefix length, such as 10.0.0.0/16 (the provider's check of CIDR blocks)"
        ),
    ),
    Case(
        "association of nothing",
        ("RouteTableAssociation", "public-0"),
        {"subnetId": DELETE},
        (
            "aws:ec2/routeTableAssociation:RouteTableAssociation::public-0: subnetId: not given: give either "
            "subnetId or gatewayId (EC2 AssociateRouteTable, <botocore>)"
        ),
    ),
    Case(
        "association of an associated subnet",
        ("RouteTableAssociation", "public-1"),
        {"subnetId": "<Subnet public-0>"},
        (
            "aws:ec2/routeTableAssociation:RouteTableAssociation::public-1: subnetId: '<Subnet public-0>': "
            "Resource.AlreadyAssociated: aws:ec2/routeTableAssociation:RouteTableAssociation::public-0 has given "
            "this subnet a route table (EC2 AssociateRouteTable, <botocore>)"
        ),
    ),
    Case(
        "endpoint in another region",
        ENDPOINT,
        {"serviceName": "com.amazonaws.us-east-1.s3"},
        (
            "aws:ec2/vpcEndpoint:VpcEndpoint::s3: serviceName: 'com.amazonaws.us-east-1.s3': InvalidServiceName: a "
            "service of us-east-2 begins with com.amazonaws.us-east-2. (EC2 CreateVpcEndpoint, <botocore>)"
        ),
    ),
    Case(
        "gateway endpoint of a service without",
        ENDPOINT,
        {"serviceName": "com.amazonaws.us-east-2.ecr.api"},
        (
            "aws:ec2/vpcEndpoint:VpcEndpoint::s3: serviceName: 'com.amazonaws.us-east-2.ecr.api': has no gateway "
            "endpoint; only s3 and dynamodb have, others need vpcEndpointType Interface (AWS PrivateLink guide, "
            "gateway endpoints)"
        ),
    ),
    Case(
        "gateway endpoint with subnets",
        ENDPOINT,
        {"subnetIds": ["<Subnet public-0>"]},
        (
            'aws:ec2/vpcEndpoint:VpcEndpoint::s3: subnetIds: ["<Subnet public-0>"]: not for endpoints of type '
            "Gateway (EC2 CreateVpcEndpoint, <botocore>)"
        ),
    ),
    Case(
        "endpoint policy that is no JSON",
        ENDPOINT,
        {"policy": '{"Version": '},
        (
            "aws:ec2/vpcEndpoint:VpcEndpoint::s3: policy: '{\"Version\":': is not JSON: Expecting value at line 1, "
            "column 13 (EC2 CreateVpcEndpoint, <botocore>)"
        ),
    ),
    Case(
        "private DNS without DNS hostnames",
        ENDPOINT,
        {"vpcEndpointType": "Interface", "routeTableIds": DELETE, "privateDnsEnabled": True},
        (
            "aws:ec2/vpcEndpoint:VpcEndpoint::s3: privateDnsEnabled: true: needs enableDnsSupport and "
            "enableDnsHostnames on aws:ec2/vpc:Vpc::main (EC2 CreateVpcEndpoint, <botocore>)"
        ),
        others={VPC: {"enableDnsHostnames": False}, CLUSTER: {"vpcConfig.endpointPrivateAccess": False}},
    ),
    Case(
        "rule from two sides",
        INGRESS,
        {"cidrIpv4": "10.0.0.0/8"},
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule::efa: referencedSecurityGroupId: "
            "'<SecurityGroup efa>': a rule has exactly one of cidrIpv4, cidrIpv6, prefixListId or "
            "referencedSecurityGroupId; given are cidrIpv4 and referencedSecurityGroupId (EC2 "
            "AuthorizeSecurityGroupIngress, <botocore>)"
        ),
    ),
    Case(
        "rule from nowhere",
        INGRESS,
        {"referencedSecurityGroupId": DELETE},
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule::efa: cidrIpv4: not given: a rule has "
            "exactly one of cidrIpv4, cidrIpv6, prefixListId or referencedSecurityGroupId; given are none (EC2 "
            "AuthorizeSecurityGroupIngress, <botocore>)"
        ),
    ),
    Case(
        "rule for no group",
        INGRESS,
        {"securityGroupId": "sg-00000000000000000"},
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule::efa: securityGroupId: "
            "'sg-00000000000000000': InvalidGroup.NotFound: there is no such SecurityGroup in the rehearsed "
            "account yet; take the value from the resource's output, so that it is created first (AWS error code, "
            "region us-east-2)"
        ),
    ),
    Case(
        "rule without a port",
        INGRESS,
        {"ipProtocol": "tcp", "fromPort": 443},
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule::efa: toPort: not given: required for "
            "protocol tcp (EC2 IpPermission)"
        ),
    ),
    Case(
        "rule with ports upside down",
        INGRESS,
        {"ipProtocol": "tcp", "fromPort": 443, "toPort": 80},
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule::efa: fromPort: 443: fromPort 443 to toPort "
            "80 is no port range within 0 to 65535 (EC2 IpPermission)"
        ),
    ),
    Case(
        "rule for every protocol with ports",
        INGRESS,
        {"fromPort": 443, "toPort": 443},
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule::efa: fromPort: 443: leave the ports out: "
            "protocol -1 means every port (EC2 IpPermission)"
        ),
    ),
    Case(
        "rule that the cluster group has",
        INGRESS,
        {"securityGroupId": "<cluster group>", "referencedSecurityGroupId": "<cluster group>"},
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule::efa: referencedSecurityGroupId: '<cluster "
            "group>': InvalidPermission.Duplicate: the same rule is there already, from EKS (all from the group "
            "itself, glm) (EC2 AuthorizeSecurityGroupIngress, <botocore>)"
        ),
    ),
    Case(
        "group name",
        GROUP,
        {"name": "sg-efa"},
        (
            "aws:ec2/securityGroup:SecurityGroup::efa: name: 'sg-efa': must not begin with sg- (EC2 "
            "CreateSecurityGroup, <botocore>)"
        ),
    ),
    Case(
        "group description",
        GROUP,
        {"description": "EFA ≤ 8"},
        (
            "aws:ec2/securityGroup:SecurityGroup::efa: description: 'EFA ≤ 8': allowed are 1 to 255 of a-z, A-Z, "
            "0-9, spaces, and ._-:/()#,@[]+=&;{}!$* (EC2 CreateSecurityGroup, <botocore>)"
        ),
    ),
    Case(
        "inline rule with a bad range",
        GROUP,
        {"ingress": [{"protocol": "tcp", "fromPort": 1, "toPort": 2, "cidrBlocks": ["10.0.0.1/8"]}]},
        (
            "aws:ec2/securityGroup:SecurityGroup::efa: ingress[0].cidrBlocks[0]: '10.0.0.1/8': has host bits set; "
            "did you mean '10.0.0.0/8'? (the provider's check of CIDR blocks)"
        ),
    ),
    Case(
        "flow log of two things",
        FLOW_LOG,
        {"subnetId": "<Subnet public-0>"},
        (
            "aws:ec2/flowLog:FlowLog::main: subnetId: '<Subnet public-0>': a flow log watches exactly one of "
            "vpcId, subnetId, eniId, transitGatewayId, transitGatewayAttachmentId or regionalNatGatewayId; given "
            "are vpcId and subnetId (EC2 CreateFlowLogs, <botocore>)"
        ),
    ),
    Case(
        "flow log without a role",
        FLOW_LOG,
        {"iamRoleArn": DELETE},
        (
            "aws:ec2/flowLog:FlowLog::main: iamRoleArn: not given: required where the destination is a log group "
            "(EC2 CreateFlowLogs, <botocore>)"
        ),
    ),
    Case(
        "flow log interval",
        FLOW_LOG,
        {"maxAggregationInterval": 300},
        (
            "aws:ec2/flowLog:FlowLog::main: maxAggregationInterval: 300: must be 60 or 600 seconds (EC2 "
            "CreateFlowLogs, <botocore>)"
        ),
    ),
    Case(
        "flow log without a traffic type",
        FLOW_LOG,
        {"trafficType": DELETE},
        ("aws:ec2/flowLog:FlowLog::main: trafficType: not given: required for VPC (EC2 CreateFlowLogs, <botocore>)"),
    ),
    Case(
        "flow log role with another trust",
        FLOW_LOG,
        {"iamRoleArn": "arn:aws:iam::123456789012:role/<Role nodes>"},
        (
            "aws:ec2/flowLog:FlowLog::main: iamRoleArn: 'arn:aws:iam::123456789012:role/<Role nodes>': the trust "
            "policy of aws:iam/role:Role::nodes does not allow sts:AssumeRole to vpc-flow-logs.amazonaws.com (VPC "
            "user guide, flow logs to CloudWatch Logs)"
        ),
    ),
)

ACCEPTED = (
    Case("VPC of the largest size", VPC, {"cidrBlock": "10.0.0.0/16"}),
    Case("booleans as the bridge gives them", VPC, {"enableDnsSupport": "true"}),
    Case(
        "private NAT gateway without the internet gateway",
        NAT,
        {"connectivityType": "private", "allocationId": DELETE},
        without=(
            ("InternetGateway", "main"),
            ROUTE,
        ),
    ),
    Case(
        "interface endpoint",
        ENDPOINT,
        {
            "vpcEndpointType": "Interface",
            "serviceName": "com.amazonaws.us-east-2.ecr.api",
            "routeTableIds": DELETE,
            "subnetIds": ["<Subnet public-0>"],
            "privateDnsEnabled": True,
        },
    ),
    Case("endpoint with a policy", ENDPOINT, {"policy": '{"Statement": []}'}),
    Case("rule of ports", INGRESS, {"ipProtocol": "tcp", "fromPort": 443, "toPort": 443}),
    Case("rule of an IPv6 range", INGRESS, {"cidrIpv6": "::/0", "referencedSecurityGroupId": DELETE}),
    Case(
        "group with inline rules",
        GROUP,
        {"egress": [{"protocol": "-1", "fromPort": 0, "toPort": 0, "cidrBlocks": ["0.0.0.0/0"]}]},
    ),
    Case(
        "flow log of a subnet to S3",
        FLOW_LOG,
        {
            "vpcId": DELETE,
            "subnetId": "<Subnet public-0>",
            "logDestinationType": "s3",
            "logDestination": "arn:aws:s3:::logs/",
            "iamRoleArn": DELETE,
        },
    ),
)


@pytest.mark.parametrize("case", _REFUSED, ids=lambda case: case.name)
def test_refused(case: Case) -> None:
    with pytest.raises(AwsRefusal) as refusal:
        case.create()
    assert in_words(str(refusal.value)) == case.message


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_accepted(case: Case) -> None:
    stand_in, created = case.create()
    assert f"{created.token}::{created.name} ({created.id})" in stand_in.remaining()
