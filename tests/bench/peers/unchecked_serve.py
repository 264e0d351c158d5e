"""A control plane that checks no key, no permission and no rate: what these cost is seen beside it. Never to be served for real."""

from hansa.api import admission
from hansa.api.services import AnyRequest
from hansa.auth.model import Principal
from hansa.cli.control_plane import serve
from hansa.tenants.service import DEFAULT_TENANT, tenant_id

ANYONE = Principal(tenant_id=tenant_id(DEFAULT_TENANT), tenant=DEFAULT_TENANT, name="key:anyone", roles=("developer",))


async def anyone(request: AnyRequest) -> Principal:
    """Whoever calls."""
    return ANYONE


admission.principal = anyone
serve()
