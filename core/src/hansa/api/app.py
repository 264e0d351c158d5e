"""The Litestar application: every route, its permission, and how errors are answered."""

import inspect
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin

from hansa.api import (
    access,
    admission,
    agents,
    approvals,
    archives,
    audit,
    catalog,
    dead_letters,
    health,
    messaging,
    objects,
    openapi,
    refusals,
    runs,
    secrets,
    sessions,
    sources,
    tenants,
    usage,
)
from hansa.api.problems import on_any_error, on_hansa_error, on_http_error
from hansa.api.services import Services
from hansa.audit.model import ACTIONS, Action
from hansa.auth.model import IN_NAMESPACES, PERMISSIONS
from hansa.bus.subjects import keys_changed
from hansa.db.gathering import carrying
from hansa.errors import HansaError, Misconfigured

HANDLERS: tuple[HTTPRouteHandler, ...] = (
    *access.HANDLERS,
    *agents.HANDLERS,
    *approvals.HANDLERS,
    *archives.HANDLERS,
    *audit.HANDLERS,
    *catalog.HANDLERS,
    *dead_letters.HANDLERS,
    *health.HANDLERS,
    *messaging.HANDLERS,
    *objects.HANDLERS,
    *openapi.HANDLERS,
    *runs.HANDLERS,
    *secrets.HANDLERS,
    *sessions.HANDLERS,
    *sources.HANDLERS,
    *tenants.HANDLERS,
    *usage.HANDLERS,
)


class App(Litestar):
    """Litestar without its plugins for Pydantic and attrs, of which no route has a use: to import Pydantic takes 0.14 s and 10 MB. There is
    no public way to leave them out."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def create_app(services: Services) -> Litestar:
    """The application over a process's services. Raises `Misconfigured` when a route is not guarded or not audited."""
    wrong = [*unguarded(HANDLERS), *unaudited(HANDLERS)]
    if wrong:
        raise Misconfigured("; ".join(wrong))
    return App(
        route_handlers=list(HANDLERS),
        dependencies={"principal": Provide(admission.principal)},
        after_exception=[refusals.told],
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

    async def forget(payload: bytes) -> None:
        await services.authenticator.forget(payload)
        await services.tenants.forget(payload)

    async with (
        services.issuer_keys,
        bus.listen(keys_changed(region), forget),
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
        elif "within" in handler.opt and handler.opt["permission"] not in IN_NAMESPACES:
            found.append(f"{place} admits by namespace (`within`), and {handler.opt['permission']} is no permission of a namespace")
        elif not handler.opt.get("within", "said"):
            found.append(f"{place} admits by namespace and does not say what it shows (`within`)")
        elif "principal" not in inspect.signature(handler.fn).parameters:
            found.append(f"{place} names a permission, and nobody asks who calls: it needs the parameter `principal`")
    return found


def unaudited(handlers: Iterable[HTTPRouteHandler]) -> list[str]:
    """Routes that may change something and neither name what the audit trail says of it (`audit`: an action, or a tuple of those that it
    may be) nor why it says nothing (`unaudited`)."""
    found: list[str] = []
    for handler in handlers:
        place = f"route {' '.join(sorted(handler.paths))} ({handler.fn.__name__})"
        changing = not handler.http_methods <= {"GET", "HEAD", "OPTIONS"}
        named, reason = audited_as(handler), handler.opt.get("unaudited")
        if changing and not named and not reason:
            found.append(f"{place} changes something: it needs `audit` with an action, or `unaudited` with a reason")
        elif any(action not in ACTIONS for action in named) or (named and reason):
            found.append(f"{place} names an unknown audit action, or both an action and a reason why there is none")
    return found


def audited_as(handler: HTTPRouteHandler) -> tuple[Action, ...]:
    """What the audit trail may say of a route."""
    named: Action | tuple[Action, ...] = handler.opt.get("audit", ())
    return named if isinstance(named, tuple) else (named,)
