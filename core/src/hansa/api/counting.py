"""Counts every request by its route, for `hansa.telemetry.metrics`. A route is called as the OpenAPI document writes it; what a caller
writes where nothing is, is called `none`.
"""

from collections.abc import Set
from typing import Any

from hansa import clock
from hansa.telemetry.metrics import Metrics

NONE = "none"


class Counted:
    """An ASGI application around the API, whose `routes` these are, as its router calls them."""

    def __init__(self, app: Any, metrics: Metrics, routes: Set[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = clock.monotonic()

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                found = scope.get("path_template")
                route = found if found in self._routes else NONE
                self._metrics.request(scope["method"], route, message["status"], clock.monotonic() - begun)
            await send(message)

        await self._app(scope, receive, answer)
