"""What a Tenant says of those who may come in: judged when it is applied, and kept where a token's issuer is looked up."""

from uuid import UUID

from hansa.auth import store
from hansa.db.pool import Connection
from hansa.egress.judge import judge_url
from hansa.egress.policy import EgressPolicy
from hansa.egress.refusal import EgressRefused
from hansa.errors import FieldError, Invalid
from hansa_crds import TenantIdentity

HINT = "the operator can admit it: HANSA_EGRESS_ISSUERS_ALLOW"


def refused_issuers(identity: TenantIdentity, policy: EgressPolicy) -> tuple[FieldError, ...]:
    """Addresses that the door would not let out: told when they are written, not when the first token comes. Names are not resolved."""
    found: list[FieldError] = []
    for number, issuer in enumerate(identity.issuers):
        for field, address in (("issuer", issuer.issuer), ("jwksUri", issuer.jwks_uri)):
            try:
                if address is not None:
                    judge_url(address, policy)
            except EgressRefused as error:
                found.append(FieldError(f"spec.identity.issuers[{number}].{field}", "reference", f"{error.detail}; {HINT}"))
    named = {issuer.name for issuer in identity.issuers}
    for number, binding in enumerate(identity.role_bindings):
        for field, subjects in (("users", binding.users), ("groups", binding.groups)):
            for at, subject in enumerate(subjects):
                if subject.partition(":")[0] not in named:
                    place = f"spec.identity.roleBindings[{number}].{field}[{at}]"
                    known = ", ".join(sorted(named)) or "none"
                    found.append(FieldError(place, "reference", f"names no issuer of the tenant; its issuers are: {known}"))
    return tuple(found)


async def keep_issuers(connection: Connection, tenant_id: UUID, identity: TenantIdentity) -> None:
    """Keep the issuers of the connection's tenant. Raises `Invalid` when one belongs to another tenant, with its audience."""
    taken = await store.replace_issuers(connection, tenant_id, identity.issuers)
    if taken is not None:
        place = f"spec.identity.issuers[{identity.issuers.index(taken)}].audience"
        message = "this issuer and audience stand here twice or belong to another tenant: give each tenant an audience of its own"
        raise Invalid(f"{place}: {message}", errors=(FieldError(place, "duplicate", message),))
