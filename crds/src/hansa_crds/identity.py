"""Who may come into a tenant and what they may do there: issuers of tokens, and roles bound to those whom they name."""

from typing import Annotated, Literal

from msgspec import Meta

from hansa_crds.parts import CLAIM_PATTERN, ISSUER_PATTERN, SUBJECT_PATTERN, WORD_PATTERN, DnsLabel, Part

Role = Literal["viewer", "approver", "operator", "developer", "auditor", "delegate", "tenant-admin"]
Claim = Annotated[str, Meta(min_length=1, max_length=200, pattern=CLAIM_PATTERN)]
Subject = Annotated[str, Meta(min_length=3, max_length=264, pattern=SUBJECT_PATTERN)]


class IssuerClaims(Part, frozen=True, kw_only=True):
    """Which claims of a token name its user and the user's groups."""

    user: Annotated[
        Claim, Meta(description="Claim that names the user for good; `email` only counts when `email_verified` is true beside it.")
    ] = "sub"
    groups: Annotated[Claim, Meta(description="Claim that lists the user's groups, up to 200; there need be none.")] = "groups"


class Issuer(Part, frozen=True, kw_only=True):
    """An OIDC provider whose access tokens are believed, for one audience. Both together belong to one tenant."""

    name: Annotated[DnsLabel, Meta(description="What stands before the names of its users and groups, as in `corp:ada@acme.example`.")]
    issuer: Annotated[
        str, Meta(min_length=8, max_length=512, pattern=ISSUER_PATTERN, description="Its address, just as `iss` of its tokens says it.")
    ]
    audience: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=253,
            pattern=WORD_PATTERN,
            description="What `aud` of its tokens for this tenant is, or holds.",
        ),
    ]
    jwks_uri: Annotated[
        Annotated[str, Meta(min_length=8, max_length=1024, pattern=ISSUER_PATTERN)] | None,
        Meta(description="Address of its keys; left out: what its discovery document says."),
    ] = None
    typ: Annotated[
        Literal["at+jwt", "JWT"],
        Meta(description="`typ` of its access tokens; `JWT` for a provider that does not mark them by RFC 9068. ID tokens are refused."),
    ] = "at+jwt"
    claims: Annotated[IssuerClaims, Meta(description="Which claims name the user and the groups.")] = IssuerClaims()


class RoleBinding(Part, frozen=True, kw_only=True):
    """Roles that all who are listed have in this tenant, or in some of its namespaces."""

    roles: Annotated[tuple[Role, ...], Meta(min_length=1, max_length=16, description="The roles.")]
    namespaces: Annotated[
        tuple[DnsLabel, ...],
        Meta(
            max_length=64,
            description=(
                "Where: of the roles only what is about objects in these namespaces, and their runs, is given; left out: all of it, in the"
                " whole tenant."
            ),
        ),
    ] = ()
    users: Annotated[tuple[Subject, ...], Meta(max_length=256, description="Users, as `issuer:name`.")] = ()
    groups: Annotated[tuple[Subject, ...], Meta(max_length=256, description="Groups, as `issuer:name`.")] = ()
    service_accounts: Annotated[
        tuple[DnsLabel, ...], Meta(max_length=256, description="Service accounts of the tenant: these roles beside their own.")
    ] = ()
    agents: Annotated[
        tuple[DnsLabel, ...],
        Meta(
            max_length=256,
            description=(
                "Agents of the tenant, whose runs may do no more than all roles that are bound to them allow; agents that no binding names"
                " are not bounded so."
            ),
        ),
    ] = ()


class TenantIdentity(Part, frozen=True, kw_only=True):
    """Who may come in with a token, and what they may do."""

    issuers: Annotated[tuple[Issuer, ...], Meta(max_length=8, description="OIDC providers whose tokens are believed.")] = ()
    role_bindings: Annotated[tuple[RoleBinding, ...], Meta(max_length=64, description="Who has which roles; without any, none.")] = ()
