"""The network of an EKS cluster: a VPC with one private and one public subnet in each availability zone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
import pulumi_aws as aws

# Every zone owns a quarter of the VPC, by its place in the list, whether or not there are four zones. So a zone that is
# added at the end takes addresses that nobody has; with a share that depended on the number of zones, every subnet would
# move, and moving a subnet replaces every node in it.
_ZONES_MAX = 4
_QUARTER_BITS = 2

# A pod has an address of its subnet, and the VPC CNI keeps whole interfaces of 50 addresses in reserve on each node: so the
# private subnet is the first half of the quarter (8,187 usable addresses of a /16, 507 of a /20).
_PRIVATE_BITS = 1

# Public subnets hold a NAT gateway and load balancers, nothing else. A load balancer wants a /27 or larger: this is a /26
# even in the smallest VPC that a stack file may ask for (/20).
_PUBLIC_BITS = 4

_ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class NetworkArgs:
    """What a network is made from: an IPv4 network from /16 to /20, one to four zone ids, and whose subnets they are."""

    vpc_cidr: str
    availability_zone_ids: tuple[str, ...]
    cluster_name: str
    region: str


@dataclass(frozen=True)
class SubnetCidrs:
    """The subnets of one zone, as CIDRs."""

    private: str
    public: str


def subnet_cidrs(vpc_cidr: str, zones: int) -> tuple[SubnetCidrs, ...]:
    """Return the subnets of each zone. The n-th zone's depend on n and the VPC alone, never on how many zones follow."""
    if zones > _ZONES_MAX:
        raise ValueError(f"{zones} availability zones in one network; at most {_ZONES_MAX} have a share of it")
    quarters = tuple(IPv4Network(vpc_cidr).subnets(prefixlen_diff=_QUARTER_BITS))
    return tuple(_of_quarter(quarter) for quarter in quarters[:zones])


def _of_quarter(quarter: IPv4Network) -> SubnetCidrs:
    private, rest = quarter.subnets(prefixlen_diff=_PRIVATE_BITS)
    public = next(rest.subnets(prefixlen_diff=_PUBLIC_BITS - _PRIVATE_BITS))
    return SubnetCidrs(str(private), str(public))


class Network(pulumi.ComponentResource):
    """A VPC with subnets by zone id, one NAT gateway in each zone and a gateway endpoint for S3.

    The subnet ids are by zone id, in the order of the arguments.
    """

    vpc_id: pulumi.Output[str]
    private_subnet_ids: Mapping[str, pulumi.Output[str]]
    public_subnet_ids: Mapping[str, pulumi.Output[str]]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {
            "vpcCidr": args.vpc_cidr,
            "availabilityZoneIds": list(args.availability_zone_ids),
            "clusterName": args.cluster_name,
            "region": args.region,
        }
        super().__init__("glm-on-gpus:network:Network", name, props, opts)
        self._prefix = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        self._vpc = self._make_vpc()
        cidrs = dict(zip(args.availability_zone_ids, self._cidrs(), strict=True))
        private = {zone: self._subnet("private", zone, row.private) for zone, row in cidrs.items()}
        public = {zone: self._subnet("public", zone, row.public) for zone, row in cidrs.items()}
        self._make_s3_endpoint(self._route(private, public))
        self.vpc_id = self._vpc.id
        self.private_subnet_ids = {zone: subnet.id for zone, subnet in private.items()}
        self.public_subnet_ids = {zone: subnet.id for zone, subnet in public.items()}
        self.register_outputs(
            {
                "vpcId": self.vpc_id,
                "privateSubnetIds": dict(self.private_subnet_ids),
                "publicSubnetIds": dict(self.public_subnet_ids),
            }
        )

    def _cidrs(self) -> tuple[SubnetCidrs, ...]:
        return subnet_cidrs(self._args.vpc_cidr, len(self._args.availability_zone_ids))

    def _tags(self, purpose: str) -> dict[str, str]:
        return {"Name": f"{self._args.cluster_name}-{purpose}"}

    def _make_vpc(self) -> aws.ec2.Vpc:
        # A private EKS endpoint is a private hosted zone: nodes find it only with both DNS switches on.
        return aws.ec2.Vpc(
            f"{self._prefix}-vpc",
            cidr_block=self._args.vpc_cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=self._tags("vpc"),
            opts=self._child,
        )

    def _subnet(self, kind: str, zone: str, cidr: str) -> aws.ec2.Subnet:
        # Load balancers of the cluster find their subnets by these tags: internal-elb for internal ones, elb for the others.
        role = "internal-elb" if kind == "private" else "elb"
        return aws.ec2.Subnet(
            f"{self._prefix}-{kind}-{zone}",
            vpc_id=self._vpc.id,
            availability_zone_id=zone,
            cidr_block=cidr,
            # Not even in a public subnet: what needs a public address there (NAT, load balancers) brings its own.
            map_public_ip_on_launch=False,
            tags={
                **self._tags(f"{kind}-{zone}"),
                f"kubernetes.io/cluster/{self._args.cluster_name}": "shared",
                f"kubernetes.io/role/{role}": "1",
            },
            opts=self._child,
        )

    def _route(
        self, private: Mapping[str, aws.ec2.Subnet], public: Mapping[str, aws.ec2.Subnet]
    ) -> list[aws.ec2.RouteTable]:
        """Route every subnet to the Internet, public ones directly; return the private subnets' route tables."""
        gateway = aws.ec2.InternetGateway(
            f"{self._prefix}-internet-gateway",
            vpc_id=self._vpc.id,
            tags=self._tags("internet-gateway"),
            opts=self._child,
        )
        outside = self._route_table("public")
        self._default_route("public", outside, gateway_id=gateway.id)
        for zone, subnet in public.items():
            self._associate(f"public-{zone}", outside, subnet)
        return [self._route_zone(zone, subnet, public[zone], gateway) for zone, subnet in private.items()]

    def _route_zone(
        self, zone: str, private: aws.ec2.Subnet, public: aws.ec2.Subnet, gateway: aws.ec2.InternetGateway
    ) -> aws.ec2.RouteTable:
        """Give a zone its own way out.

        One NAT gateway a zone and not one for all: beside a GPU machine its price is nothing, the loss of one zone leaves
        the other zones their way out, and the weights (755 GB a node) do not cross zones on their way in.
        """
        table = self._route_table(f"private-{zone}")
        nat = self._nat_gateway(zone, public, gateway)
        self._default_route(f"private-{zone}", table, nat_gateway_id=nat.id)
        self._associate(f"private-{zone}", table, private)
        return table

    def _nat_gateway(self, zone: str, subnet: aws.ec2.Subnet, gateway: aws.ec2.InternetGateway) -> aws.ec2.NatGateway:
        # AWS makes neither a usable address nor a usable NAT gateway in a VPC without its Internet gateway, and detaches
        # that gateway only when both are gone; neither refers to it, so the order is said here.
        after = pulumi.ResourceOptions(parent=self, depends_on=[gateway])
        address = aws.ec2.Eip(f"{self._prefix}-nat-{zone}", domain="vpc", tags=self._tags(f"nat-{zone}"), opts=after)
        return aws.ec2.NatGateway(
            f"{self._prefix}-nat-{zone}",
            subnet_id=subnet.id,
            allocation_id=address.id,
            connectivity_type="public",
            tags=self._tags(f"nat-{zone}"),
            opts=after,
        )

    def _route_table(self, purpose: str) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(
            f"{self._prefix}-{purpose}", vpc_id=self._vpc.id, tags=self._tags(purpose), opts=self._child
        )

    def _default_route(
        self,
        purpose: str,
        table: aws.ec2.RouteTable,
        *,
        gateway_id: pulumi.Input[str] | None = None,
        nat_gateway_id: pulumi.Input[str] | None = None,
    ) -> None:
        aws.ec2.Route(
            f"{self._prefix}-{purpose}",
            route_table_id=table.id,
            destination_cidr_block=_ANYWHERE,
            gateway_id=gateway_id,
            nat_gateway_id=nat_gateway_id,
            opts=self._child,
        )

    def _associate(self, purpose: str, table: aws.ec2.RouteTable, subnet: aws.ec2.Subnet) -> None:
        aws.ec2.RouteTableAssociation(
            f"{self._prefix}-{purpose}", route_table_id=table.id, subnet_id=subnet.id, opts=self._child
        )

    def _make_s3_endpoint(self, tables: list[aws.ec2.RouteTable]) -> None:
        """Take S3 traffic past the NAT gateways.

        Layers of images in ECR come from S3, and so do weights that are kept there; a NAT gateway would charge for each GB
        and share 100 Gbit/s among all (aws facts, "Getting ~750 GB onto the node"). A gateway endpoint costs nothing.
        """
        aws.ec2.VpcEndpoint(
            f"{self._prefix}-s3",
            vpc_id=self._vpc.id,
            service_name=f"com.amazonaws.{self._args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables],
            tags=self._tags("s3"),
            opts=self._child,
        )
