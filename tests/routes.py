"""Every route of the API, asked for something at a place: what tests of refusals and of isolation have in common.

Made from the routes themselves, so that a new route is in it from its first day. Who adds a route with a body adds a right one to BODIES,
and who adds a part of a path adds it to `Place` and makes it in `settle`.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx2
import msgspec
from litestar.handlers import HTTPRouteHandler

from api.asking import asking_run
from api.letters import dead_letter
from hansa import clock, ids
from hansa.api.app import HANDLERS
from hansa.auth.model import PLATFORM
from hansa.runs.leaving.bundle import FORMAT as BUNDLE
from hansa.runs.leaving.bundle import TENANT, Head
from hansa.runs.leaving.bundle import Writer as Bundle
from hansa.runs.log.archive import FORMAT, Writer
from hansa.runs.model import canonical
from samples import agent
from stack import Stack, plain_client

BODIES: dict[str, Any] = {
    "apply_objects": {"objects": []},
    "plan_objects": {"objects": []},
    "delete_objects": {"objects": []},
    "take_over_object": {},
    "put_source": {"origin": "https://git.example/matrix//", "seen_at": "2026-01-01T00:00:00Z"},
    "start_run": {"input": "hello"},
    "open_session": {"agent": "{name}"},
    "post_event": {"type": "user.message", "content": "hello"},
    "send_event": {"data": "hello"},
    "resume_run": {},
    "fork_run": {"at": 1},
    "decide_approval": {"decision": "deny"},
    "make_api_key": {"name": "of the matrix", "roles": ["viewer"]},
    "rotate_api_key": {},
    "put_secret": {"name": "of-the-matrix", "value": "nothing to see"},
    "rotate_data_key": {},
    "make_nats_credentials": {"name": "of the matrix"},
}
"""A right body of each route that takes one; `{name}` stands for the name of an agent."""


def archive() -> bytes:
    """An export of a session that is nowhere, with nothing in it."""
    writer = Writer()
    head = {
        "format": FORMAT,
        "id": ids.new_id(),
        "agent": "none",
        "created_at": clock.now(),
        "last_seq": 0,
        "forked_from": None,
        "forked_seq": None,
    }
    return writer.line("session", head) + writer.end()


def bundle() -> bytes:
    """An export of a tenant that is nowhere, with nothing in it."""
    writer = Bundle(0.0)
    head = Head(BUNDLE, f"none-{ids.new_id().hex[-8:]}", "", None)
    return writer.member(TENANT, msgspec.json.encode(head)) + writer.end()


def account() -> bytes:
    """A service account that nobody has made."""
    return msgspec.json.encode({"name": f"a-{ids.new_id().hex[-10:]}", "roles": ["viewer"]})


ARCHIVES: dict[str, Callable[[], bytes]] = {"import_session": archive, "import_tenant": bundle, "make_service_account": account}
"""A right body of each route that takes another one than JSON, or one that only works once: made anew for each request."""


LONG = "mine " * 1000
"""An input that is kept as a value."""


class Place(msgspec.Struct, frozen=True):
    """Values for the parts of a path."""

    name: str
    run_id: UUID
    session_id: UUID
    approval_id: UUID
    message_id: UUID
    key_id: str
    deletion_id: UUID
    source_id: str
    event: str = "ready"
    kind: str = "Agent"
    digest: str = f"sha256:{'0' * 64}"

    def ids(self) -> list[str]:
        """What would betray it."""
        return [str(each) for each in (self.run_id, self.session_id, self.approval_id, self.message_id, self.key_id)]


def path_of(handler: HTTPRouteHandler) -> str:
    """The one path of a route, as in `/v1/runs/{run_id}`."""
    (path,) = handler.paths
    return path.replace(":str}", "}")


def case_of(value: Any) -> str:
    """How a case of the matrix is called."""
    return value.fn.__name__ if isinstance(value, HTTPRouteHandler) else str(value)


def nowhere() -> Place:
    """A place where nothing is."""
    name = f"none-{ids.new_id().hex[-8:]}"
    return Place(name, ids.new_id(), ids.new_id(), ids.new_id(), ids.new_id(), name[-12:], ids.new_id(), name)


async def call(
    url: str, method: str, handler: HTTPRouteHandler, *, at: Place, headers: dict[str, str], json: Any = None
) -> httpx2.Response:
    """Ask a route for something at a place, with a right body: `json`, or that of the examples."""
    body = None
    if json is not None:
        body = msgspec.json.encode(json)
    elif handler.fn.__name__ in ARCHIVES:
        body = ARCHIVES[handler.fn.__name__]()
    elif "body" in handler.opt:
        body = msgspec.json.encode(BODIES[handler.fn.__name__]).replace(b"{name}", at.name.encode())
    path = path_of(handler).format(**msgspec.to_builtins(at))
    async with plain_client(url, headers=headers) as client:
        return await client.request(method, path, content=body)


GUARDED = [(method, handler) for handler in HANDLERS if not handler.opt.get("public") for method in sorted(handler.http_methods)]
OF_TENANTS = [(method, handler) for method, handler in GUARDED if handler.opt["permission"] not in PLATFORM]
"""Routes that show what one tenant has, as against those that show all tenants to the platform's own people."""
OWNED = [each for each in OF_TENANTS if each[0] != "PUT" and re.search(r"\{\w+\}", path_of(each[1]) + str(BODIES.get(each[1].fn.__name__)))]
"""Those that name something of the tenant's; PUT makes what it names."""


async def settle(api: httpx2.AsyncClient, stack: Stack) -> Place:
    """Make a place of tenant `default` where everything is; `api` is a client of it that may do all."""
    name = "matrix"
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent(name)}], "force": True})
    assert applied.json()["failed"] == 0, applied.text
    assert (await api.put(f"/v1/sources/{name}", json=BODIES["put_source"])).status_code == 200
    run = (await api.post(f"/v1/agents/{name}/runs", params={"wait": 10}, json={"input": LONG})).json()
    approval = (await asking_run(api))[1]["id"]
    digest = f"sha256:{hashlib.sha256(canonical(LONG)).hexdigest()}"
    letter = await dead_letter(api, stack)
    key = (await api.post("/v1/api-keys", json={"name": "matrix", "roles": ["viewer"]})).json()["id"]
    assert (await api.post("/v1/service-accounts", json={"name": name, "roles": ["viewer"]})).status_code in (201, 409)
    assert (await api.post("/v1/secrets", json={"name": name, "value": "kept by the matrix"})).status_code == 201
    return Place(name, UUID(run["id"]), UUID(run["session_id"]), UUID(approval), letter, key, ids.new_id(), name, digest=digest)


def without_names(answer: httpx2.Response, place: Place) -> str:
    """The body to the byte, but for what names the place and the request."""
    text = re.sub(r'"(trace|request)_id":"[0-9a-f]+",?', "", answer.text)
    for part in (place.name, *place.ids(), place.digest):
        text = text.replace(part, "X")
    return text


def lasting_headers(answer: httpx2.Response) -> dict[str, str]:
    """Headers but for those that differ each time: the date, the request's id, and the length of what names the place."""
    return {name: value for name, value in answer.headers.items() if name not in ("date", "content-length", "x-request-id")}
