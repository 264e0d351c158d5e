"""What a Tenant object may contain. The object itself is in `model.py`; see there what holds for fields and their bounds."""

from typing import Annotated

from msgspec import Meta

from hansa_crds.parts import Part
from hansa_crds.policies import TenantAllowed


class TenantQuotas(Part, frozen=True, kw_only=True):
    """Bounds of what a tenant may use."""

    concurrent_runs: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Most runs worked on at once, over all workers; further ones wait; 0: no bound.")
    ] = 0
    requests_per_second: Annotated[
        int, Meta(ge=0, le=100_000, description="Most requests a second to the API; further ones are answered with 429; 0: no bound.")
    ] = 0


class TenantSpec(Part, frozen=True, kw_only=True):
    """Who shares the platform, kept apart from all others."""

    display_name: Annotated[str, Meta(max_length=200, description="Name for people.")] = ""
    suspend: Annotated[bool, Meta(description="True: no run of this tenant starts; runs under way go on.")] = False
    weight: Annotated[int, Meta(ge=1, le=1000, description="Share of the workers when tenants compete: 2 gets twice as much as 1.")] = 1
    quotas: Annotated[TenantQuotas, Meta(description="Bounds of what it may use.")] = TenantQuotas()
    allowed: Annotated[TenantAllowed, Meta(description="What its agents may use; left out: all there is.")] = TenantAllowed()
