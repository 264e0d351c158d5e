"""What a Tenant object may contain. The object itself is in `model.py`; see there what holds for fields and their bounds."""

from typing import Annotated

from msgspec import Meta

from hansa_crds.identity import TenantIdentity
from hansa_crds.parts import Part
from hansa_crds.policies import TenantAllowed
from hansa_crds.quotas import TenantQuotas


class TenantSpec(Part, frozen=True, kw_only=True):
    """Who shares the platform, kept apart from all others."""

    display_name: Annotated[str, Meta(max_length=200, description="Name for people.")] = ""
    suspend: Annotated[bool, Meta(description="True: no run of it starts, and those under way are held until it is false.")] = False
    weight: Annotated[int, Meta(ge=1, le=1000, description="Share of the workers when tenants compete: 2 gets twice as much as 1.")] = 1
    quotas: Annotated[TenantQuotas, Meta(description="Bounds of what it may use.")] = TenantQuotas()
    identity: Annotated[TenantIdentity, Meta(description="Who may come in with a token, and what they may do.")] = TenantIdentity()
    allowed: Annotated[TenantAllowed, Meta(description="What its agents may use; left out: all there is.")] = TenantAllowed()
