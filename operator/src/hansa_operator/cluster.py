"""The API server, as far as the operator speaks to it: what its ClusterRole lets it, in five verbs and a stream.

Raises `Away`, `Missing`, `Clash`, `Denied` and `Refused`. Bodies are plain data.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from hansa_operator.errors import Away, Clash, Denied, Missing, Refused
from hansa_operator.model import MANAGER
from hansa_operator.transport import Answer, Http

SERVER = "the API server"
CHUNK = 500
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Cluster:
    """See the module."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def get(self, path: str) -> dict[str, Any]:
        """One object."""
        return _value(await self._http.ask("GET", path))

    async def each(self, path: str, *, selector: str = "", names_only: bool = False) -> AsyncIterator[dict[str, Any]]:
        """The objects of a collection, in chunks; `names_only`: their metadata alone."""
        more: str | None = ""
        headers = {"accept": NAMES_ONLY} if names_only else None
        while more is not None:
            query = {"limit": str(CHUNK), **({"labelSelector": selector} if selector else {}), **({"continue": more} if more else {})}
            page = _value(await self._http.ask("GET", f"{path}?{urlencode(query)}", headers=headers))
            items: list[dict[str, Any]] = page.get("items") or []
            for item in items:
                yield item
            more = page.get("metadata", {}).get("continue") or None

    async def merge(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a patch into an object or its status. With `metadata.resourceVersion` or `uid` in it: only into that one."""
        return _value(await self._http.ask("PATCH", f"{path}?fieldManager={MANAGER}", value=patch, headers={"content-type": MERGE}))

    async def apply(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply; fields of ours that another manager took are taken back."""
        query = f"?fieldManager={MANAGER}&force=true"
        return _value(await self._http.ask("PATCH", path + query, value=body, headers={"content-type": APPLY}))

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in a collection."""
        return _value(await self._http.ask("POST", f"{path}?fieldManager={MANAGER}", value=body))

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object, if it still has the version that `body` has."""
        return _value(await self._http.ask("PUT", f"{path}?fieldManager={MANAGER}", value=body))

    async def delete(self, path: str, *, uid: str = "") -> None:
        """Delete an object; that with this uid, if one is given. What is not there is as wanted."""
        options = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            _value(await self._http.ask("DELETE", path, value=options))
        except Missing:
            return

    async def watch(self, path: str, *, selector: str, version: str, silence: float) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Events (type, object) after a version, until the stream ends, bookmarks too. Raises `Away` when the version is too old."""
        query = urlencode(
            {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "labelSelector": selector,
                "timeoutSeconds": str(int(silence * 4)),
            }
        )
        async for line in self._http.lines(f"{path}?{query}", silence=silence):
            try:
                event = msgspec.json.decode(line)
                type_, found = str(event["type"]), event["object"]
            except (msgspec.DecodeError, KeyError, TypeError):
                raise Away(SERVER, "the stream broke off") from None
            if type_ == "ERROR":
                raise Away(SERVER, f"the watch ended: {found.get('message', '')}")
            yield type_, found


def _value(answer: Answer) -> dict[str, Any]:
    body: Any = answer.json()
    if 200 <= answer.status < 300 and isinstance(body, dict):
        return body  # pyright: ignore[reportUnknownVariableType]
    message = str(body.get("message", "")) if isinstance(body, dict) else ""  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    text = message or f"answered {answer.status}"
    match answer.status:
        case 401 | 403:
            raise Denied(SERVER, answer.status, text)
        case 404 | 410:
            raise Missing(SERVER, answer.status, text)
        case 409:
            raise Clash(SERVER, answer.status, text)
        case status if status == 429 or status >= 500 or 200 <= status < 300:
            raise Away(SERVER, text, retry_after=answer.retry_after, busy=status == 429)
        case status:
            raise Refused(SERVER, status, text)
