"""Every route and method of the OpenAPI document, asked by anyone, by each role of another tenant and by each role of the own one; and
what no single request shows: streams, cursors, repeated keys, exports, values, files of runs, NATS, logs.

The oracle never asks whether an answer is right, only whether it tells of the tenant `default` to someone who is not of it.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from api.keys import issue
from api.sse import opened
from hansa.auth.model import PLATFORM, ROLES
from hansa.bus import reach
from hansa.bus.accounts import Accounts
from hansa.errors import Unavailable
from hansa.runs.model import canonical
from hansa.tenants.service import DEFAULT_TENANT, tenant_id
from isolation.labels import known_names, labels_of, names_in, scrape
from isolation.probes import Probes
from messaging.parties import accounts_of
from routes import GUARDED, LONG, OWNED, Place, call, nowhere, path_of, settle
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client

SECRET = "hush-of-default"
"""What the other tenant must never read."""
STRANGERS = "strangers"
"""Their tenant, which gets much here that other tests would find."""
AT_ONCE = 8
ENDLESS_SECONDS = 5.0
"""An answer that takes this long is one of the live stream: everything else takes milliseconds."""
FILES = agent("keeper", tools=[{"plugin": "tools", "allow": ["files_write", "files_read", "files_list"]}])
ECHO = agent("shared")
Headers = dict[str, str]


class Scene(msgspec.Struct, frozen=True):
    """A platform with the tenant `default`, which has everything, and keys of another: by role there, and one that may do all."""

    process: Process
    worker: Process
    stack: Stack
    victim: Place
    strangers: Mapping[str, Headers]
    own: Mapping[str, Headers]

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def stranger(self) -> Headers:
        return self.strangers["tenant-admin"]

    @property
    def owner(self) -> Headers:
        return {"authorization": f"Bearer {self.stack.key}"}

    def words(self) -> tuple[str, ...]:
        """What would betray the tenant."""
        return (*self.victim.ids(), self.victim.digest, SECRET, LONG[:60], "kept by the matrix")


async def set_scene(stack: Stack, process: Process, worker: Process, *, roles: Sequence[str] = tuple(ROLES)) -> Scene:
    """Make both tenants and their keys."""
    strangers = {role: await issue(stack, STRANGERS, name=f"probe-{role}", roles=[role]) for role in {*roles, "tenant-admin"}}
    own = {role: await issue(stack, "default", name=f"own-{role}", roles=[role]) for role in roles}
    async with stack.client(process) as owner, plain_client(process.url, headers=strangers["tenant-admin"]) as stranger:
        for client in (owner, stranger):
            applied = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in (SCRIPTED, ECHO, FILES)]})
            assert applied.json()["failed"] == 0, applied.text
            done = await client.post("/v1/agents/shared/runs", params={"wait": 10}, json={"input": "of each"})
            assert done.json()["state"] == "completed", done.text
        return Scene(process, worker, stack, await settle(owner, stack), strangers, own)


async def ask_routes(scene: Scene, probes: Probes, *, as_whom: Mapping[str, Headers] | None = None) -> None:
    """The matrix. `as_whom`: the strangers, by their role."""
    known = {(method, path_of(handler)): handler for method, handler in GUARDED}
    async with plain_client(scene.url) as client:
        document = (await client.get("/v1/openapi.json")).json()
    items = [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]
    documented = {(method.upper(), path) for path, method, operation in items if operation.get("security")}
    probes.expect("routes", "the document has all guarded routes and no other", holds=documented == known.keys(), told=str(documented))
    before, gate = await _state(scene), asyncio.Semaphore(AT_ONCE)
    assert all(text.startswith("200 ") for text in before.values()), before

    async def ask(method: str, path: str) -> None:
        handler, what, mine = known[method, path], f"{method} {path}", (method, known[method, path]) in OWNED
        async with gate:
            anonymous = await call(scene.url, method, handler, at=scene.victim, headers={})
            probes.expect("anonymous", what, holds=anonymous.status_code == 401, told=anonymous.text)
            probes.answer("anonymous", what, anonymous)
            for role, headers in (as_whom or scene.strangers).items():
                if handler.opt["permission"] in PLATFORM and handler.opt["permission"] in ROLES[role]:
                    continue  # for the platform's own people, who see all tenants
                try:
                    foreign = await asyncio.wait_for(call(scene.url, method, handler, at=scene.victim, headers=headers), ENDLESS_SECONDS)
                except TimeoutError:
                    probes.expect("other tenant", f"{what} by a {role}", holds=False, told="a stream that goes on")
                    continue
                probes.answer("other tenant", f"{what} by a {role}", foreign)
                if mine:
                    missing = nowhere()
                    nothing = await call(scene.url, method, handler, at=missing, headers=headers)
                    probes.alike("other tenant", f"{what} by a {role}", (foreign, scene.victim), (nothing, missing))
            for role, headers in scene.own.items():
                found = await call(scene.url, method, handler, at=nowhere(), headers=headers)
                may = handler.opt["permission"] in ROLES[role]
                probes.expect("roles", f"{what} by a {role}", holds=(found.status_code == 403) != may, told=found.text)
            acting = {**scene.stranger, "hansa-tenant": "default"}
            named = await call(scene.url, method, handler, at=scene.victim, headers=acting)
            invented = await call(scene.url, method, handler, at=scene.victim, headers={**acting, "hansa-tenant": "no-such-tenant"})
            probes.answer("other tenant", f"{what} in the name of default", named)
            probes.expect(
                "other tenant",
                f"{what} in the name of default and of a tenant that is not there",
                holds=named.status_code == invented.status_code in (403, 404),
                told=f"{named.status_code} {invented.status_code}",
            )

    for verb in ("GET", "POST", "DELETE", "PUT"):  # what takes something away comes late, and what makes something that it names the last
        await asyncio.gather(*(ask(*each) for each in sorted(documented & known.keys()) if each[0] == verb))
    probes.expect("routes", "all methods were asked", holds={method for method, _ in documented} <= {"GET", "POST", "DELETE", "PUT"})
    after = await _state(scene)
    for what, text in before.items():
        probes.expect("unchanged", what, holds=after[what] == text, told=f"{text} became {after[what]}")


async def _state(scene: Scene) -> dict[str, str]:
    """What the tenant itself sees of its place."""
    found: dict[str, str] = {}
    for method, handler in OWNED:
        if method == "GET" and handler.fn.__name__ != "stream_events":
            answer = await call(scene.url, method, handler, at=scene.victim, headers=scene.owner)
            found[path_of(handler)] = f"{answer.status_code} {answer.text}"
    return found


async def ask_beyond(scene: Scene, probes: Probes) -> None:
    """All that takes more than one request."""
    async with plain_client(scene.url, headers=scene.owner) as owner, plain_client(scene.url, headers=scene.stranger) as stranger:
        await _cursors(owner, stranger, probes)
        await _keys(owner, stranger, probes)
        await _values(owner, stranger, probes)
        await _archives(scene, owner, stranger, probes)
        await _streams(owner, stranger, probes)
        await _files(owner, stranger, probes)
    await _nats(scene, probes)
    await ask_metrics(scene, probes)
    for log in sorted(scene.stack.folder.glob("*.log")):
        probes.look("logs", log.name, "\n".join(line for line in log.read_text().splitlines() if SECRET in line or LONG[:60] in line))
    texts = [headers["authorization"].split()[1] for headers in (*scene.strangers.values(), *scene.own.values(), scene.owner)]
    everything = "\n".join(log.read_text() for log in scene.stack.folder.glob("*.log"))
    for text in texts:
        probes.expect("logs", "no key stands in a log", holds=text not in everything)


async def _cursors(owner: httpx2.AsyncClient, stranger: httpx2.AsyncClient, probes: Probes) -> None:
    for path in sorted({path_of(handler) for method, handler in GUARDED if method == "GET" and "{" not in path_of(handler)}):
        if handler_permission(path) in PLATFORM:
            continue
        page = await owner.get(path, params={"limit": 1})
        cursor = page.json().get("next") if page.status_code == 200 else None
        if cursor is not None:
            found = await stranger.get(path, params={"limit": 1, "after": cursor})
            probes.answer("cursors", path, found)
            probes.expect("cursors", path, holds=found.status_code == 400, told=found.text)


def handler_permission(path: str) -> str:
    """The permission that a GET of a path needs."""
    return next(str(handler.opt["permission"]) for method, handler in GUARDED if method == "GET" and path_of(handler) == path)


async def _keys(owner: httpx2.AsyncClient, stranger: httpx2.AsyncClient, probes: Probes) -> None:
    """The same idempotency key on the same route with the same body."""
    headers, body = {"idempotency-key": "of-both"}, {"input": "the same"}
    first = await owner.post("/v1/agents/shared/runs", headers=headers, json=body)
    second = await stranger.post("/v1/agents/shared/runs", headers=headers, json=body)
    probes.answer("repeated keys", "the stranger's", second)
    probes.expect("repeated keys", "not replayed", holds="idempotency-replayed" not in second.headers and first.text != second.text)
    other = await stranger.post("/v1/agents/shared/runs", headers={"idempotency-key": "of-default"}, json={"input": "another"})
    probes.expect("repeated keys", "with another body", holds=other.status_code == 202, told=other.text)


async def _values(owner: httpx2.AsyncClient, stranger: httpx2.AsyncClient, probes: Probes) -> None:
    """Small and large values, in the database and in the artifact store: who has not stored one can't read it."""
    for size in (5_000, 300_000):
        text = SECRET + "x" * size
        await owner.post("/v1/agents/shared/runs", params={"wait": 10}, json={"input": text})
        digest = f"sha256:{hashlib.sha256(canonical(text)).hexdigest()}"
        assert (await owner.get(f"/v1/values/{digest}")).status_code == 200
        found = await stranger.get(f"/v1/values/{digest}")
        probes.answer("values", f"of {size} bytes", found)
        probes.expect("values", f"of {size} bytes", holds=found.status_code == 404, told=found.text)


async def _archives(scene: Scene, owner: httpx2.AsyncClient, stranger: httpx2.AsyncClient, probes: Probes) -> None:
    """Another tenant's session, brought as a file under its own id, becomes one's own and tells nothing of the first."""
    path = f"/v1/sessions/{scene.victim.session_id}"
    archive, before = (await owner.get(f"{path}/export")).content, (await owner.get(path)).text
    taken = await stranger.post("/v1/sessions:import", content=archive)
    probes.expect("exports", "a foreign session's archive is taken as any", holds=taken.status_code == 201, told=taken.text)
    probes.expect("exports", "and the session itself is as it was", holds=(await owner.get(path)).text == before)


async def _streams(owner: httpx2.AsyncClient, stranger: httpx2.AsyncClient, probes: Probes) -> None:
    """A stream that is open while the other tenant's runs speak."""
    sessions = [(await client.post("/v1/sessions", json={"agent": "shared"})).json()["id"] for client in (owner, stranger)]
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(opened(stranger, sessions[1]))
        said = [{"type": "user.message", "content": text} for text in (SECRET, "mine")]
        await owner.post(f"/v1/sessions/{sessions[0]}/events", json=said[0])
        await stranger.post(f"/v1/sessions/{sessions[1]}/events", json=said[1])
        for message in await reader.until("run.completed"):
            probes.look("streams", message.type, str(message.data))


async def _files(owner: httpx2.AsyncClient, stranger: httpx2.AsyncClient, probes: Probes) -> None:
    """Files that a run of the other tenant has written, by their place on the machine."""
    written = await _tools(owner, [("files_write", {"path": "secret.txt", "text": SECRET})])
    run = written["id"]
    asked = [f"../{run}/secret.txt", f"/../{run}/secret.txt", "secret.txt", f"x/../../{run}/secret.txt"]
    found = await _tools(stranger, [("files_read", {"path": path}) for path in asked] + [("files_list", {"path": ".."})])
    events = (await stranger.get(f"/v1/sessions/{found['session_id']}/events", params={"limit": 200})).json()["data"]
    results = [each for each in events if each["type"].startswith("tool.")]
    probes.expect("files", "all were asked for", holds=len(results) >= len(asked) + 1, told=str(events))
    for each in results:
        probes.look("files", each["type"], json.dumps({**each, "data": {**each["data"], "arguments": None}}))


async def _tools(client: httpx2.AsyncClient, calls: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    turns: list[dict[str, Any]] = [{"tool_calls": [{"name": name, "arguments": arguments}]} for name, arguments in calls]
    script = f"#script {json.dumps([*turns, {'text': 'done'}])}"
    return (await client.post("/v1/agents/keeper/runs", params={"wait": 20}, json={"input": script})).json()


async def _nats(scene: Scene, probes: Probes) -> None:
    """Without credentials nothing is heard, and with those of one tenant nothing of another."""
    refused = {"anonymous": "", "a token": "guessed", "a key of the API": scene.owner["authorization"].removeprefix("Bearer ")}
    for what, token in refused.items():
        client, options = Client(), dict[str, Any]({"token": token} if token else {})
        try:
            await client.connect(scene.stack.servers.nats.url, allow_reconnect=False, connect_timeout=2, error_cb=_quiet, **options)
            probes.expect("NATS", what, holds=False, told="was let in")
        except NatsError:
            probes.expect("NATS", what, holds=True)
        finally:
            await client.close()
    async with accounts_of(scene.stack) as accounts:
        found = await _reached(accounts)
    probes.counts["NATS"] += found.probes
    probes.leaks += [f"NATS: {leak}" for leak in (*found.leaks, *found.broken)]


async def ask_metrics(scene: Scene, probes: Probes) -> None:
    """What Prometheus reads says nothing of anybody, whoever reads it."""
    names = await known_names(scene.stack)
    for process in (scene.process, scene.worker):
        page = await scrape(process)
        probes.answer("metrics", f"port {process.metrics}", page)
        for label, value in labels_of(page.text):
            told = names_in(value, names)
            probes.expect("metrics", label, holds=not told, told=f"{value!r} names {told}")


async def _reached(accounts: Accounts) -> reach.Reach:
    """What the other tenant reaches. Its account is there as soon as a control plane has looked after the server's accounts."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await reach.probe(accounts, tenant_id(STRANGERS), tenant_id(DEFAULT_TENANT))
            except Unavailable:
                await asyncio.sleep(0.3)


async def _quiet(_: Exception) -> None:
    """A refused login is what is hoped for."""
