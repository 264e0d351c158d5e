"""The control plane, as far as the operator speaks to it: its REST API, with a credential of the role `reconciler`.

Objects that are handed in together go in one request. Raises `Away`, `Missing`, `Clash`, `Denied` and `Refused`.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from hansa_operator.errors import Away, Clash, Denied, Misconfigured, Missing, Refused
from hansa_operator.lanes import Lanes
from hansa_operator.transport import Answer, Http

SERVER = "the control plane"
PAGE = 200
BODY_BYTES = 600_000
"""Most bytes of manifests in one request; the control plane takes 1 MiB."""
FEW = 3
"""So many objects are asked for one by one for each page that the tenant's list has; of more the list is read."""
DELETE_SECONDS = APPLY_SECONDS = 120.0
GREET_SECONDS = 2.0
"""A leader that has just begun waits no longer for a control plane that is away."""


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with an object, and where."""

    path: str = ""
    code: str = ""
    message: str = ""
    suggestion: str | None = None
    hint: str | None = None

    @property
    def text(self) -> str:
        """For people."""
        parts = [each for each in (self.message, self.suggestion, self.hint) if each]
        more = "".join(f"{', ' if each[0].islower() else '. '}{each}" if number else each for number, each in enumerate(parts))
        return f"{self.path}: {more}" if self.path else more


class Result(msgspec.Struct, frozen=True):
    """What became of an object. `tenant`: whose it is, if not the credential's own; `status`: what the platform knows of it, if it says."""

    kind: str = ""
    name: str = ""
    action: str = ""
    generation: int | None = None
    revision: int | None = None
    note: str = ""
    tenant: str = ""
    errors: tuple[Problem, ...] = ()
    status: dict[str, Any] | None = None


class Stored(msgspec.Struct, frozen=True):
    """An object as the control plane keeps it."""

    kind: str
    name: str
    manager: str = ""
    origin: str | None = None
    manifest: dict[str, Any] = {}
    status: dict[str, Any] | None = None


class TenantState(msgspec.Struct, frozen=True):
    """A tenant as the control plane shows it; `conditions` in the form of Kubernetes."""

    name: str
    state: str = ""
    generation: int = 0
    conditions: list[dict[str, Any]] = []


class Sent(msgspec.Struct, frozen=True):
    """An object on its way: its manifest as JSON text."""

    manifest: bytes


class Key(msgspec.Struct):
    """The API key, from its file."""

    file: Path
    text: str = ""

    def read(self) -> None:
        """Read it (again). Raises `Misconfigured` if there is none."""
        try:
            found = self.file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"HANSA_OPERATOR_KEY_FILE={self.file} can't be read: {error}") from None
        if not found:
            raise Misconfigured(f"HANSA_OPERATOR_KEY_FILE={self.file} is empty")
        self.text = found

    def headers(self) -> Mapping[str, str]:
        """What a request says of who asks."""
        return {"authorization": f"Bearer {self.text}", "accept": "application/json"}


class Platform:
    """See the module. `origin`: who this cluster is, as the owner of objects. `sent(objects)` is told of each request."""

    def __init__(self, http: Http, key: Key, *, batch: int, sent: Callable[[int], None]) -> None:
        self.origin = ""
        self.home = ""
        """The tenant of the credential itself, once it was asked for: what a result without a tenant belongs to."""
        self._http = http
        self._key = key
        self._sent = sent
        self._pages_had: dict[str, int] = {}
        self._applying = Lanes[Sent, Result](self._apply, most=batch, size=lambda item: len(item.manifest), bytes_most=BODY_BYTES)
        self._deleting = Lanes[Mapping[str, str], Result](self._delete, most=batch, size=lambda _: 200, bytes_most=BODY_BYTES)
        self._looking = Lanes[str, Stored | None](self._look, most=10_000, size=lambda _: 0, bytes_most=BODY_BYTES)

    async def close(self) -> None:
        """Give up what is under way."""
        for lanes in (self._applying, self._deleting, self._looking):
            await lanes.close()

    async def apply(self, manifest: Mapping[str, Any]) -> Result:
        """Have an object be as it is written, owned by this cluster. What is wrong with it stands in the result."""
        return await self._applying.put(str(manifest["kind"]), Sent(msgspec.json.encode(manifest)))

    async def delete(self, tenant: str, kind: str, name: str) -> Result:
        """Have an object of a tenant be gone, if it is this cluster's."""
        return await self._deleting.put(tenant if kind not in ("Tenant", "Region") else "", {"kind": kind, "name": name})

    async def look(self, tenant: str, kind: str, name: str) -> Stored | None:
        """An object as it is kept; None: it is not there."""
        return await self._looking.put(f"{tenant}/{kind}", name)

    async def owns(self, tenant: str, kind: str, name: str) -> bool:
        """Whether an object is there and this cluster's."""
        stored = await self.look(tenant, kind, name)
        return stored is not None and stored.origin == self.origin

    async def objects(self, tenant: str, kind: str, *, own: bool = False) -> AsyncIterator[Stored]:
        """The objects of a kind in a tenant; `own`: only those of this cluster."""
        query = {"kind": kind, "limit": str(PAGE), **({"manager": "kubernetes", "origin": self.origin} if own else {})}
        count = 0
        async for item in self._pages("/v1/objects", query, tenant):
            count += 1
            yield msgspec.convert(item, Stored)
        self._pages_had[f"{tenant}/{kind}"] = 1 + count // PAGE

    async def tenants(self) -> AsyncIterator[TenantState]:
        """All tenants."""
        async for item in self._pages("/v1/tenants", {"limit": str(PAGE)}, ""):
            yield msgspec.convert(item, TenantState)

    async def tenant(self, name: str) -> TenantState | None:
        """One tenant; None: there is none."""
        try:
            return msgspec.convert(await self._ask("GET", f"/v1/tenants/{quote(name, safe='')}"), TenantState)
        except Missing:
            return None

    async def set_secret(self, tenant: str, name: str, value: str, *, once: str) -> None:
        """Make the next version of a secret; with the same `once` again, nothing more happens for a day."""
        body = {"name": name, "value": value}
        await self._ask("POST", "/v1/secrets", body, tenant=tenant, headers={"idempotency-key": once})

    async def delete_secret(self, tenant: str, name: str) -> None:
        """Delete a secret; one that is not there, or that something names, is left."""
        try:
            await self._ask("DELETE", f"/v1/secrets/{quote(name, safe='')}", tenant=tenant)
        except (Missing, Clash):
            return

    async def greet(self) -> None:
        """Learn whose the credential is, and so whether it is let in."""
        self.home = str((await self._ask("GET", "/v1/whoami", timeout=GREET_SECONDS)).get("tenant", ""))

    async def ready(self) -> bool:
        """Whether it is there."""
        try:
            return (await self._http.ask("GET", "/readyz", timeout=5.0)).status == 200
        except Away:
            return False

    async def _apply(self, _: str, items: Sequence[Sent]) -> Sequence[Result]:
        objects = [{"manifest": msgspec.Raw(item.manifest), "source": None} for item in items]
        body = {"manager": "kubernetes", "origin": self.origin, "objects": objects}
        self._sent(len(items))
        if not self.home:
            await self.greet()
        try:
            answer = await self._ask("POST", "/v1/objects:apply", body, timeout=APPLY_SECONDS)
        except Denied:
            raise
        except Refused as error:
            if len(items) > 1:  # one that can't be in any request holds up no other
                half = len(items) // 2
                return [*await self._apply("", items[:half]), *await self._apply("", items[half:])]
            return [Result(action="failed", errors=(Problem(code=str(error.body.get("code", "invalid")), message=error.message),))]
        return _results(answer, len(items))

    async def _delete(self, tenant: str, items: Sequence[Mapping[str, str]]) -> Sequence[Result]:
        # Each of these was deleted by somebody who may: that many go at once is no accident of ours to prevent.
        body = {"manager": "kubernetes", "origin": self.origin, "objects": items, "allow_mass_delete": True}
        try:
            answer = await self._ask("POST", "/v1/objects:delete", body, tenant=tenant, timeout=DELETE_SECONDS)
        except Missing:
            return [Result(action="absent") for _ in items]  # the tenant itself is gone, and all that it had
        except Clash as error:
            known = await self.tenant(tenant) if tenant else None
            if known is None or known.state == "active":
                raise
            # Archived or going: nobody acts in it, and what it has stays with it.
            return [Result(action="absent", note=error.message) for _ in items]
        return _results(answer, len(items))

    async def _look(self, lane: str, names: Sequence[str]) -> Sequence[Stored | None]:
        tenant, kind = lane.split("/")
        found: dict[str, Stored] = {}
        if len(names) > FEW * self._pages_had.get(lane, 1):
            wanted = set(names)
            async for each in self.objects(tenant, kind):
                if each.name in wanted:
                    found[each.name] = each
            return [found.get(name) for name in names]
        for name in set(names):
            try:
                answer = await self._ask("GET", f"/v1/objects/{kind}/{quote(name, safe='')}", tenant=tenant)
            except Missing:
                continue
            found[name] = msgspec.convert(answer, Stored)
        return [found.get(name) for name in names]

    async def _pages(self, path: str, query: Mapping[str, str], tenant: str) -> AsyncIterator[Any]:
        after = ""
        while True:
            asked = {**query, "after": after} if after else query
            page = await self._ask("GET", f"{path}?{urlencode(asked)}", tenant=tenant)
            items: list[Any] = page.get("data") or []
            for item in items:
                yield item
            after = str(page.get("next") or "")
            if not page.get("has_more") or not after:
                return

    async def _ask(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        tenant: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> dict[str, Any]:
        sent = {**(headers or {}), **({"hansa-tenant": tenant} if tenant else {})}
        answer = await self._http.ask(method, path, value=value, headers=sent, timeout=timeout)
        if answer.status == 401:  # the key may have been changed
            self._key.read()
            answer = await self._http.ask(method, path, value=value, headers=sent, timeout=timeout)
        return _value(answer)


def _results(answer: Mapping[str, Any], count: int) -> list[Result]:
    results = msgspec.convert(answer.get("results"), list[Result])
    if len(results) != count:
        raise Away(SERVER, f"answered {len(results)} results for {count} objects")
    return results


def _value(answer: Answer) -> dict[str, Any]:
    body: Any = answer.json()
    if answer.status in (200, 201, 202):
        if isinstance(body, dict):
            return body  # pyright: ignore[reportUnknownVariableType]
        raise Away(SERVER, "answered something else than JSON")
    if answer.status == 204:
        return {}
    problem: dict[str, Any] = body if isinstance(body, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    text = ". ".join(str(problem[name]) for name in ("detail", "hint") if problem.get(name)) or f"answered {answer.status}"
    match answer.status:
        case 401 | 403:
            raise Denied(SERVER, answer.status, text, body=problem)
        case 404:
            raise Missing(SERVER, 404, text, body=problem)
        case 409:
            raise Clash(SERVER, 409, text, body=problem)
        case status if status in (408, 421, 425, 429) or status >= 500 or status < 400:
            raise Away(SERVER, text, retry_after=answer.retry_after, busy=status == 429)
        case status:
            raise Refused(SERVER, status, text, body=problem)
