"""An EKS cluster with its roles, add-ons and system nodes, and a provider for what is installed into it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components.iam import ServiceRole, service_role
from components.kubeconfig import eks_kubeconfig
from components.network import Network
from components.node_template import encrypted_root, metadata_options, pinned, tag_specifications
from serving import catalogue
from serving.config import EksClusterConfig
from serving.plan import GPU_RESOURCE, NODE_POOL_LABEL
from serving.spelling import did_you_mean, listed

# What EKS allows in a cluster's name (CreateCluster, `ClusterName`); a Pulumi stack's name may hold more, a dot for one.
_CLUSTER_NAME = re.compile(r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}")

# EKS puts its network interfaces into these zones and never into another one later: the zones of a cluster cannot change
# (aws/containers-roadmap#2330). Two are enough for it, and with the first two a zone added to the list is for nodes only.
_CONTROL_PLANE_ZONES = 2

_CONTROL_PLANE_LOGS = ("api", "audit", "authenticator", "controllerManager", "scheduler")
_LOG_RETENTION_DAYS = 90  # CloudWatch keeps logs for ever unless told; a quarter covers the look back after an incident

_KEY_DELETION_DAYS = 30  # the longest that KMS offers: a deleted key takes every Secret of the cluster with it

_ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

# Not here: AmazonEKS_CNI_Policy, which the CNI has by a role of its own. SSM is the way onto a node: there is no SSH key.
_NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonSSMManagedInstanceCore")

_POD_IDENTITY_AGENT = "eks-pod-identity-agent"
_VPC_CNI = "vpc-cni"
_KUBE_PROXY = "kube-proxy"
_COREDNS = "coredns"
_NODE_MONITORING_AGENT = "eks-node-monitoring-agent"
ADDONS = (_COREDNS, _NODE_MONITORING_AGENT, _POD_IDENTITY_AGENT, _KUBE_PROXY, _VPC_CNI)

# Without it a NetworkPolicy is stored and enforced by nobody. The add-on's schema wants a string.
_VPC_CNI_CONFIGURATION = {"enableNetworkPolicy": "true"}

# The agent itself runs on every node, but the DCGM server that reads GPU health for it tolerates no taint by default: it
# would run on no GPU node, and node repair would never learn of a broken GPU (aws/containers-roadmap#2567).
_NODE_MONITORING_CONFIGURATION = {
    "dcgmAgent": {"tolerations": [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]}
}

# AL2023 itself, the images of system pods and the gateway, logs: one old and one new image of each at an update.
_SYSTEM_ROOT_GIB = 50


@dataclass(frozen=True)
class EksClusterArgs:
    """What a cluster is made from. `cluster_name` is plain text: subnets and the log group carry it before it exists."""

    config: EksClusterConfig
    cluster_name: str
    region: str
    network: Network


class EksCluster(pulumi.ComponentResource):
    """An EKS cluster in which pods can run.

    `provider` waits until the cluster resolves names and has nodes; what it installs goes before they do. `ready` is what
    must exist before a node joins. `kubeconfig` is secret.

    Raises `pulumi.RunError` for a name that EKS refuses and for versions of add-ons that are not installed here.
    """

    provider: k8s.Provider
    kubeconfig: pulumi.Output[str]
    cluster_name: pulumi.Output[str]
    kubernetes_version: str
    node_role_arn: pulumi.Output[str]
    cluster_security_group_id: pulumi.Output[str]
    ready: tuple[pulumi.Resource, ...]

    def __init__(self, name: str, args: EksClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        _refuse_bad_name(args.cluster_name)
        _refuse_unknown_addons(args.config.addon_versions)
        super().__init__("glm-on-gpus:eks_cluster:EksCluster", name, _props(args), opts)
        self._prefix = name
        self._args = args
        self.kubernetes_version = args.config.kubernetes_version
        self._cluster = self._make_cluster()
        self.cluster_name = self._cluster.name
        self.cluster_security_group_id = self._cluster.vpc_config.apply(_security_group)
        access = self._give_access()
        node_role = service_role(f"{name}-node", "ec2.amazonaws.com", _NODE_POLICIES, self)
        self.node_role_arn = node_role.role.arn
        self.ready = (args.network, *node_role.attachments, *self._make_addons_for_nodes())
        system_nodes = self._make_system_nodes()
        addons = self._make_addons_on_nodes(system_nodes)
        self.kubeconfig = self._make_kubeconfig()
        self.provider = self._make_provider([*access, *self.ready, system_nodes, *addons])
        self.register_outputs(
            {
                "clusterName": self.cluster_name,
                "kubeconfig": self.kubeconfig,
                "nodeRoleArn": self.node_role_arn,
                "clusterSecurityGroupId": self.cluster_security_group_id,
            }
        )

    def _opts(self, *depends_on: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(depends_on))

    # --- the control plane -------------------------------------------------------------------------------------------

    def _make_cluster(self) -> aws.eks.Cluster:
        config = self._args.config
        key = self._make_secrets_key()
        role = service_role(f"{self._prefix}-control-plane", "eks.amazonaws.com", ("AmazonEKSClusterPolicy",), self)
        key_use = self._allow_key(role, key)
        return aws.eks.Cluster(
            f"{self._prefix}-cluster",
            name=self._args.cluster_name,
            version=config.kubernetes_version,
            role_arn=role.role.arn,
            vpc_config=self._vpc_config(),
            access_config=_access_config(),
            # Each add-on is a resource of its own below, with a version and a configuration that Pulumi sees.
            bootstrap_self_managed_addons=False,
            encryption_config=aws.eks.ClusterEncryptionConfigArgs(
                provider=aws.eks.ClusterEncryptionConfigProviderArgs(key_arn=key.arn), resources=["secrets"]
            ),
            enabled_cluster_log_types=list(_CONTROL_PLANE_LOGS),
            # EKS's default moves a cluster into extended support, at extra cost, when standard support ends.
            upgrade_policy=aws.eks.ClusterUpgradePolicyArgs(support_type="STANDARD"),
            deletion_protection=config.deletion_protection,
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=config.deletion_protection,
                # The name is fixed, so a cluster cannot be made beside the one that it replaces.
                delete_before_replace=True,
                depends_on=[*role.attachments, key_use, self._make_log_group()],
            ),
        )

    def _vpc_config(self) -> aws.eks.ClusterVpcConfigArgs:
        """Open the API to the nodes privately, and to named networks if there are any. Without names EKS opens it to all."""
        cidrs = self._args.config.public_access_cidrs
        subnets = list(self._args.network.private_subnet_ids.values())
        return aws.eks.ClusterVpcConfigArgs(
            subnet_ids=subnets[:_CONTROL_PLANE_ZONES],
            endpoint_private_access=True,
            endpoint_public_access=bool(cidrs),
            public_access_cidrs=list(cidrs) or None,
        )

    def _make_secrets_key(self) -> aws.kms.Key:
        return aws.kms.Key(
            f"{self._prefix}-secrets",
            description=f"Encrypts the Kubernetes Secrets of {self._args.cluster_name}",
            enable_key_rotation=True,
            deletion_window_in_days=_KEY_DELETION_DAYS,
            opts=pulumi.ResourceOptions(parent=self, protect=self._args.config.deletion_protection),
        )

    def _allow_key(self, role: ServiceRole, key: aws.kms.Key) -> aws.iam.RolePolicy:
        """Let the control plane use the key. EKS checks with this role that the key is usable and its grants are there."""
        statement = {
            "Effect": "Allow",
            "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ListGrants", "kms:DescribeKey"],
            "Resource": key.arn,
        }
        return aws.iam.RolePolicy(
            f"{self._prefix}-control-plane-secrets",
            role=role.role.name,
            policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": [statement]}),
            opts=self._opts(),
        )

    def _make_log_group(self) -> aws.cloudwatch.LogGroup:
        """Make the log group before EKS makes it, which would keep the logs for ever and outside of this stack."""
        return aws.cloudwatch.LogGroup(
            f"{self._prefix}-logs",
            name=f"/aws/eks/{self._args.cluster_name}/cluster",
            retention_in_days=_LOG_RETENTION_DAYS,
            opts=self._opts(),
        )

    def _give_access(self) -> list[aws.eks.AccessPolicyAssociation]:
        roles = self._args.config.admin_role_arns
        return [self._give_admin(admin, arn) for admin, arn in roles.items()]

    def _give_admin(self, admin: str, arn: str) -> aws.eks.AccessPolicyAssociation:
        entry = aws.eks.AccessEntry(
            f"{self._prefix}-admin-{admin}",
            cluster_name=self.cluster_name,
            principal_arn=arn,
            type="STANDARD",
            opts=self._opts(),
        )
        return aws.eks.AccessPolicyAssociation(
            f"{self._prefix}-admin-{admin}",
            cluster_name=self.cluster_name,
            principal_arn=entry.principal_arn,
            policy_arn=_ADMIN_POLICY,
            access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
            opts=self._opts(),
        )

    # --- add-ons and system nodes ------------------------------------------------------------------------------------

    def _make_addons_for_nodes(self) -> list[aws.eks.Addon]:
        """Install what a node needs to become ready, before there are nodes.

        The CNI's role comes by Pod Identity. EKS hands credentials to a pod only if the association exists when the pod is
        created, and aws-node crashes where no agent answers (aws/amazon-vpc-cni-k8s#3840). So: first the agent, then the
        CNI together with its association, then nodes. The circle that one might fear is none: the agent and aws-node run in
        the node's own network and start before there is a CNI.
        """
        role = service_role(
            f"{self._prefix}-vpc-cni",
            "pods.eks.amazonaws.com",
            ("AmazonEKS_CNI_Policy",),
            self,
            actions=("sts:AssumeRole", "sts:TagSession"),
        )
        agent = self._addon(_POD_IDENTITY_AGENT)
        cni = self._addon(
            _VPC_CNI,
            _VPC_CNI_CONFIGURATION,
            depends_on=[agent, *role.attachments],
            identity=aws.eks.AddonPodIdentityAssociationArgs(role_arn=role.role.arn, service_account="aws-node"),
        )
        return [agent, cni, self._addon(_KUBE_PROXY)]

    def _make_addons_on_nodes(self, nodes: aws.eks.NodeGroup) -> list[aws.eks.Addon]:
        """Install what becomes active only where it runs: CoreDNS has pods that GPU nodes, being tainted, never take."""
        return [
            self._addon(_COREDNS, depends_on=[nodes]),
            self._addon(_NODE_MONITORING_AGENT, _NODE_MONITORING_CONFIGURATION, depends_on=[nodes]),
        ]

    def _addon(
        self,
        addon: str,
        configuration: Mapping[str, Any] | None = None,
        *,
        depends_on: Iterable[pulumi.Resource] = (),
        identity: aws.eks.AddonPodIdentityAssociationArgs | None = None,
    ) -> aws.eks.Addon:
        return aws.eks.Addon(
            f"{self._prefix}-{addon}",
            cluster_name=self.cluster_name,
            addon_name=addon,
            addon_version=self._args.config.addon_versions.get(addon),
            configuration_values=json.dumps(configuration, sort_keys=True) if configuration else None,
            pod_identity_associations=[identity] if identity else None,
            # An add-on is configured here and nowhere else. A field that somebody edited would fail the update otherwise.
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            opts=self._opts(*depends_on),
        )

    def _make_system_nodes(self) -> aws.eks.NodeGroup:
        """Make the nodes without GPUs on which CoreDNS and the gateway run, spread over all zones."""
        config = self._args.config
        template = self._make_system_template()
        version = catalogue.kubernetes_version(config.kubernetes_version)
        return aws.eks.NodeGroup(
            f"{self._prefix}-system",
            cluster_name=self.cluster_name,
            node_role_arn=self.node_role_arn,
            subnet_ids=list(self._args.network.private_subnet_ids.values()),
            ami_type="AL2023_x86_64_STANDARD",
            capacity_type="ON_DEMAND",
            version=version.version,
            release_version=version.ami_release_version,
            launch_template=pinned(template),
            labels={NODE_POOL_LABEL: "system"},
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                min_size=config.system_nodes, max_size=config.system_nodes, desired_size=config.system_nodes
            ),
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1),
            node_repair_config=aws.eks.NodeGroupNodeRepairConfigArgs(enabled=True),
            opts=self._opts(*self.ready),
        )

    def _make_system_template(self) -> aws.ec2.LaunchTemplate:
        return aws.ec2.LaunchTemplate(
            f"{self._prefix}-system",
            # Here and not on the node group: there another type would replace the group instead of rolling its nodes.
            instance_type=self._args.config.system_instance_type,
            metadata_options=metadata_options(),
            block_device_mappings=[encrypted_root(_SYSTEM_ROOT_GIB)],
            # What EKS adds where no group is named. Named, it is seen by policies and by reviewers of a preview.
            vpc_security_group_ids=[self.cluster_security_group_id],
            tag_specifications=tag_specifications({"Name": f"{self._args.cluster_name}-system"}),
            opts=self._opts(),
        )

    # --- access for Pulumi and people --------------------------------------------------------------------------------

    def _make_kubeconfig(self) -> pulumi.Output[str]:
        region = self._args.region
        parts = pulumi.Output.all(self._cluster.name, self._cluster.endpoint, self._cluster.certificate_authority)
        kubeconfig = parts.apply(lambda known: eks_kubeconfig(known[0], region, known[1], known[2]["data"]))
        return pulumi.Output.secret(kubeconfig)

    def _make_provider(self, depends_on: list[pulumi.Resource]) -> k8s.Provider:
        """Make the provider that everything in the cluster goes through.

        It waits for a cluster in which pods start, so whatever uses it does too; and at a destroy the nodes stay until that
        is gone, load balancers and all. `delete_unreachable` stays off: with it, an `up` from a network that may not reach
        the API would take every object for deleted. It is for the destroy of a cluster that is gone
        (PULUMI_K8S_DELETE_UNREACHABLE=true).
        """
        return k8s.Provider(
            f"{self._prefix}-provider",
            kubeconfig=self.kubeconfig,
            # What the cluster is to Pulumi. Without it a changed or unknown kubeconfig plans a new provider, and with it a
            # replacement of every object in the cluster (pulumi-eks#207).
            cluster_identifier=self._cluster.arn,
            enable_server_side_apply=True,
            opts=self._opts(*depends_on),
        )


def _access_config() -> aws.eks.ClusterAccessConfigArgs:
    """Use access entries only, with one for whoever creates the cluster.

    The program installs into the cluster in the same run and makes no invokes, so it cannot know who runs it: EKS does, and
    makes that identity an administrator. The others are in adminRoleArns; the creator must not be, since EKS allows one
    entry for each identity. The switch counts at creation only, and changing it would replace the cluster: hence a constant.
    """
    return aws.eks.ClusterAccessConfigArgs(authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True)


def _security_group(vpc: aws.eks.outputs.ClusterVpcConfig) -> str:
    if vpc.cluster_security_group_id is None:
        raise pulumi.RunError("the EKS cluster reports no cluster security group")
    return vpc.cluster_security_group_id


def _props(args: EksClusterArgs) -> dict[str, Any]:
    config = args.config
    return {
        "clusterName": args.cluster_name,
        "region": args.region,
        "kubernetesVersion": config.kubernetes_version,
        "publicAccessCidrs": list(config.public_access_cidrs),
        "adminRoleArns": dict(config.admin_role_arns),
        "addonVersions": dict(config.addon_versions),
        "systemInstanceType": config.system_instance_type,
        "systemNodes": config.system_nodes,
        "deletionProtection": config.deletion_protection,
    }


def _refuse_bad_name(name: str) -> None:
    if _CLUSTER_NAME.fullmatch(name) is None:
        raise pulumi.RunError(
            f"stack: {name!r} cannot be the name of an EKS cluster; expected letters, digits, hyphens and underscores, at most "
            "100; rename the stack with pulumi stack rename"
        )


def _refuse_unknown_addons(versions: Mapping[str, str]) -> None:
    for addon in versions:
        if addon not in ADDONS:
            raise pulumi.RunError(
                f"cluster.addonVersions: {addon!r} is not installed by this stack; allowed are {listed(ADDONS)}"
                f"{did_you_mean(addon, ADDONS)}"
            )
