"""IAM: roles, their policies, and OIDC providers. IAM is global: its resources have no region."""

from __future__ import annotations

from collections.abc import Iterable

from rehearsal.aws import tokens
from rehearsal.aws.documents import as_policy_text, check_policy
from rehearsal.aws.draft import Draft
from rehearsal.aws.kind import Ending, Kind, Naming, Target
from rehearsal.aws.request import Call, Send
from rehearsal.aws.world import Record, World

_CREATE_ROLE = Call(
    "iam",
    "CreateRole",
    renames={"name": "RoleName", "assumeRolePolicy": Send("AssumeRolePolicyDocument", as_policy_text)},
)
_ATTACH_POLICY = Call("iam", "AttachRolePolicy", renames={"role": "RoleName"})
_PUT_POLICY = Call(
    "iam",
    "PutRolePolicy",
    renames={"role": "RoleName", "name": "PolicyName", "policy": Send("PolicyDocument", as_policy_text)},
)
_CREATE_OIDC_PROVIDER = Call(
    "iam",
    "CreateOpenIDConnectProvider",
    # Pulumi's plural of Terraform's client_id_list.
    renames={"clientIdLists": "ClientIDList", "thumbprintLists": "ThumbprintList"},
)
_DEPRECATED_PARTS = {
    "inlinePolicies": "use aws.iam.RolePolicy resources",
    "managedPolicyArns": "use aws.iam.RolePolicyAttachment resources",
}


def _check_role(draft: Draft, world: World) -> None:
    check_policy(draft, "assumeRolePolicy", "trust")
    for field, instead in _DEPRECATED_PARTS.items():
        if draft.given(field):
            raise draft.refusal(field, f"deprecated by the provider: {instead}", "pulumi_aws.iam.Role")
    name = draft.text("name")
    # "Names are not distinguished by case."
    twin = next((role for role in world.of(tokens.ROLE) if name and role.id.casefold() == name.casefold()), None)
    if twin is not None:
        raise draft.refusal("name", f"EntityAlreadyExists: it is the name of {twin.resource}", _CREATE_ROLE.cited)


def _role(draft: Draft, world: World, name: str) -> dict[str, object]:
    path = draft.text("path") or "/"
    return {
        "arn": world.arn("iam", f"role{path}{name}", regional=False),
        "path": path,
        "createDate": world.now,
        "uniqueId": f"AROA{world.made_up(draft, 'id', 17).upper()}",
        "maxSessionDuration": draft.number("maxSessionDuration") or 3600,
        "assumeRolePolicy": as_policy_text(draft.at("assumeRolePolicy")),
        "managedPolicyArns": [],
        "inlinePolicies": [],
    }


def _check_attachment(draft: Draft, world: World) -> None:
    world.reference(draft, "role", tokens.ROLE)
    arn = draft.text("policyArn")
    if arn is None:
        return
    owner = arn.removeprefix("arn:aws:iam::").partition(":")[0]
    if not arn.startswith("arn:aws:iam::") or ":policy/" not in arn or owner not in {"aws", world.account_id}:
        reason = f"must be arn:aws:iam::aws:policy/<name> or arn:aws:iam::{world.account_id}:policy/<name>"
        raise draft.refusal("policyArn", reason, _ATTACH_POLICY.cited)


def _check_role_policy(draft: Draft, world: World) -> None:
    world.reference(draft, "role", tokens.ROLE)
    check_policy(draft, "policy", "identity")


def _check_oidc_provider(draft: Draft, world: World) -> None:
    url = draft.text("url")
    if url is None:
        return
    if not url.startswith("https://"):
        raise draft.refusal("url", "must begin with https://", _CREATE_OIDC_PROVIDER.cited)
    twin = world.with_output(tokens.OIDC_PROVIDER, "url", url.removeprefix("https://"))
    if twin is not None:
        raise draft.refusal(
            "url", f"EntityAlreadyExists: it is the URL of {twin.resource}", _CREATE_OIDC_PROVIDER.cited
        )


def _oidc_provider(draft: Draft, _world: World, arn: str) -> dict[str, object]:
    # IAM gives the URL back without its scheme.
    issuer = (draft.text("url") or "").removeprefix("https://")
    return {"arn": arn, "url": issuer, "thumbprintLists": draft.items("thumbprintLists")}


def _oidc_provider_arn(draft: Draft, world: World) -> str:
    issuer = (draft.text("url") or "").removeprefix("https://")
    return world.arn("iam", f"oidc-provider/{issuer}", regional=False)


def _holds_role(record: Record, _world: World) -> Iterable[Target]:
    yield (tokens.ROLE, record.text("role"))


def policies_of(world: World, role: Record) -> frozenset[str]:
    """Return the names of the managed policies attached to a role so far, for example AmazonEKSWorkerNodePolicy."""
    attachments = [record for record in world.of(tokens.ROLE_POLICY_ATTACHMENT) if record.text("role") == role.id]
    return frozenset(record.text("policyArn").rpartition("/")[2] for record in attachments)


KINDS = (
    Kind(
        tokens.ROLE,
        (_CREATE_ROLE,),
        lambda draft, _world: draft.text("name") or "",
        _role,
        Ending("iam", "DeleteRole", "DeleteConflict: it still has policies, which must be detached or deleted first"),
        rules=(_check_role,),
        local=frozenset({"namePrefix", "forceDetachPolicies", *_DEPRECATED_PARTS}),
        naming=Naming(),
    ),
    Kind(
        tokens.ROLE_POLICY_ATTACHMENT,
        (_ATTACH_POLICY,),
        lambda draft, _world: f"{draft.text('role')}/{draft.text('policyArn')}",
        lambda _draft, _world, _id: {},
        Ending("iam", "DetachRolePolicy"),
        rules=(_check_attachment,),
        holds=_holds_role,
    ),
    Kind(
        tokens.ROLE_POLICY,
        (_PUT_POLICY,),
        lambda draft, _world: f"{draft.text('role')}:{draft.text('name')}",
        lambda draft, _world, _id: {"policy": as_policy_text(draft.at("policy"))},
        Ending("iam", "DeleteRolePolicy"),
        rules=(_check_role_policy,),
        local=frozenset({"namePrefix"}),
        naming=Naming(),
        holds=_holds_role,
    ),
    Kind(
        tokens.OIDC_PROVIDER,
        (_CREATE_OIDC_PROVIDER,),
        _oidc_provider_arn,
        _oidc_provider,
        Ending("iam", "DeleteOpenIDConnectProvider"),
        rules=(_check_oidc_provider,),
    ),
)
