"""What a Tenant object may contain. The object itself is in `model.py`; see there what holds for fields and their bounds."""

from typing import Annotated, Literal

from msgspec import Meta

from hansa_crds.identity import TenantIdentity
from hansa_crds.parts import DnsLabel, Part
from hansa_crds.policies import TenantAllowed
from hansa_crds.quotas import TenantQuotas


class TenantIsolation(Part, frozen=True, kw_only=True):
    """What a tenant shares with others, and what it has for itself. Its rows are behind row-level security in any case."""

    workers: Annotated[
        Literal["Shared", "Dedicated"],
        Meta(
            description=(
                "`Dedicated`: only workers that were started for it (HANSA_WORKER_TENANT) take its runs, and they take no others. Runs"
                " worked on when this changes are finished where they are."
            )
        ),
    ] = "Shared"


class TenantSpec(Part, frozen=True, kw_only=True):
    """Who shares the platform, kept apart from all others."""

    display_name: Annotated[str, Meta(max_length=200, description="Name for people.")] = ""
    namespaces: Annotated[
        tuple[DnsLabel, ...],
        Meta(
            max_length=64,
            description=(
                "Namespaces whose objects are this tenant's, each claimed by one tenant only. That of its own name always is; one in which"
                " objects stand can't be left out."
            ),
        ),
    ] = ()
    suspend: Annotated[bool, Meta(description="True: no run of it starts, and those under way are held until it is false.")] = False
    weight: Annotated[int, Meta(ge=1, le=1000, description="Share of the workers when tenants compete: 2 gets twice as much as 1.")] = 1
    quotas: Annotated[TenantQuotas, Meta(description="Bounds of what it may use.")] = TenantQuotas()
    identity: Annotated[TenantIdentity, Meta(description="Who may come in with a token, and what they may do.")] = TenantIdentity()
    allowed: Annotated[TenantAllowed, Meta(description="What its agents may use; left out: all there is.")] = TenantAllowed()
    isolation: Annotated[TenantIsolation, Meta(description="What it shares with others.")] = TenantIsolation()
    deletion_policy: Annotated[
        Literal["Retain", "Export", "Delete"],
        Meta(
            description=(
                "What deleting it does: `Retain` closes it and keeps all, to be restored; `Export` removes all, after writing a bundle that"
                " another installation can import; `Delete` removes all."
            )
        ),
    ] = "Retain"
    prevent_deletion: Annotated[bool, Meta(description="True: it can't be deleted until this is false.")] = False
