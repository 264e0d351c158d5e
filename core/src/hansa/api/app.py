"""The Litestar application: every route, its permission, and how errors are answered."""

import inspect
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from hansa.api import (
    access,
    admission,
    agents,
    approvals,
    archives,
    catalog,
    dead_letters,
    health,
    messaging,
    objects,
    openapi,
    runs,
    sessions,
)
from hansa.api.problems import on_any_error, on_hansa_error, on_http_error
from hansa.api.services import Services
from hansa.auth.model import PERMISSIONS
from hansa.bus.subjects import keys_changed
from hansa.db.gathering import carrying
from hansa.errors import HansaError, Misconfigured

HANDLERS: tuple[HTTPRouteHandler, ...] = (
    *access.HANDLERS,
    *agents.HANDLERS,
    *approvals.HANDLERS,
    *archives.HANDLERS,
    *catalog.HANDLERS,
    *dead_letters.HANDLERS,
    *health.HANDLERS,
    *messaging.HANDLERS,
    *objects.HANDLERS,
    *openapi.HANDLERS,
    *runs.HANDLERS,
    *sessions.HANDLERS,
)


def create_app(services: Services) -> Litestar:
    """The application over a process's services. Raises `Misconfigured` when a route is not guarded."""
    wrong = unguarded(HANDLERS)
    if wrong:
        raise Misconfigured("; ".join(wrong))
    return Litestar(
        route_handlers=list(HANDLERS),
        dependencies={"principal": Provide(admission.principal)},
        exception_handlers={HansaError: on_hansa_error, HTTPException: on_http_error, Exception: on_any_error},
        openapi_config=None,
        request_max_body_size=services.settings.server.body_bytes,
        state=State({"services": services}),
        lifespan=[_attending],
        logging_config=None,
    )


@asynccontextmanager
async def _attending(app: Litestar) -> AsyncIterator[None]:
    """While the application serves, it hears when API keys have changed, counts requests, and sees to accounts."""
    services: Services = app.state.services
    bus, region = services.equipment.bus, services.equipment.region
    async with (
        bus.listen(keys_changed(region), services.authenticator.forget),
        carrying(services.rates.gatherer),
        services.messaging.looking(),
    ):
        yield


def unguarded(handlers: Iterable[HTTPRouteHandler]) -> list[str]:
    """What is wrong with the routes' guards: each is public, or names a permission and has its caller looked up."""
    found: list[str] = []
    for handler in handlers:
        place = f"route {' '.join(sorted(handler.paths))} ({handler.fn.__name__})"
        if handler.opt.get("public"):
            continue
        if handler.opt.get("permission") not in PERMISSIONS:
            found.append(f"{place} names no known permission and is not public")
        elif "principal" not in inspect.signature(handler.fn).parameters:
            found.append(f"{place} names a permission, and nobody asks who calls: it needs the parameter `principal`")
    return found
