"""/livez and /readyz, without a credential. Ready means: can serve. NATS being away makes things slower, not wrong."""

from typing import Any

import msgspec
from litestar import Response, get

from hansa.api import answers
from hansa.api.services import AnyRequest, services
from hansa.errors import Unavailable
from hansa.plugins.model import PluginState


class Check(msgspec.Struct, frozen=True):
    """One part and how it does."""

    name: str
    ok: bool
    detail: str = ""


@get("/livez", opt={"public": True, "answer": dict[str, str]})
async def livez(request: AnyRequest) -> Response[bytes]:
    """The process lives and its event loop turns."""
    return answers.value({"status": "ok"})


@get("/readyz", opt={"public": True, "answer": dict[str, Any]})
async def readyz(request: AnyRequest) -> Response[bytes]:
    """200 when requests can be served; `degraded` when something is away that only makes them slower."""
    found = services(request)
    try:
        await found.equipment.database.call("SELECT 1")
        database = Check("postgres", True)
    except Unavailable as error:
        database = Check("postgres", False, error.detail)
    away = sum(each.trouble is not None for each in found.equipment.database.own)
    told = f"{away} own databases of tenants can't be used: their conditions DatabaseReady say why"  # not whose: anybody may ask
    own = [Check("postgres of tenants", False, told)] if away else []
    nats = Check("nats", found.equipment.bus.connected, "" if found.equipment.bus.connected else "not connected: work is found by polling")
    failed = [info.name for info in found.plugins.infos if info.state is PluginState.FAILED]
    plugins = Check("plugins", not failed, f"failed: {', '.join(failed)}" if failed else "")
    status = "unavailable" if not database.ok else "ok" if nats.ok and plugins.ok and not own else "degraded"
    return answers.value({"status": status, "checks": [database, nats, plugins, *own]}, status=200 if database.ok else 503)


HANDLERS = (livez, readyz)
