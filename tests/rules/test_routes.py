"""Every route is public or names a permission, and every one that does refuses: no credential, a wrong one, one without the
permission, another tenant's. The matrix is made from the routes themselves, so that a new route is in it from its first day.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable
from typing import Any, get_origin
from uuid import UUID

import httpx2
import msgspec
import pytest
from litestar import get
from litestar.handlers import HTTPRouteHandler

from api.asking import asking_run
from api.keys import Keys, bearer, make_keys
from api.letters import dead_letter
from api.problem import problem
from hansa import clock, ids
from hansa.api.app import HANDLERS, unguarded
from hansa.auth.model import PERMISSIONS, PLATFORM, ROLES, Principal
from hansa.runs.log.archive import FORMAT, Writer
from hansa.runs.model import canonical
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client

BODIES: dict[str, Any] = {
    "apply_objects": {"objects": []},
    "start_run": {"input": "hello"},
    "open_session": {"agent": "{name}"},
    "post_event": {"type": "user.message", "content": "hello"},
    "send_event": {"data": "hello"},
    "resume_run": {},
    "fork_run": {"at": 1},
    "decide_approval": {"decision": "deny"},
    "make_api_key": {"name": "of the matrix", "roles": ["viewer"]},
    "rotate_api_key": {},
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


def account() -> bytes:
    """A service account that nobody has made."""
    return msgspec.json.encode({"name": f"a-{ids.new_id().hex[-10:]}", "roles": ["viewer"]})


ARCHIVES: dict[str, Callable[[], bytes]] = {"import_session": archive, "make_service_account": account}
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
    return Place(name, ids.new_id(), ids.new_id(), ids.new_id(), ids.new_id(), name[-12:])


async def call(url: str, method: str, handler: HTTPRouteHandler, *, at: Place, headers: dict[str, str]) -> httpx2.Response:
    """Ask a route for something at a place."""
    body = None
    if handler.fn.__name__ in ARCHIVES:
        body = ARCHIVES[handler.fn.__name__]()
    elif "body" in handler.opt:
        body = msgspec.json.encode(BODIES[handler.fn.__name__]).replace(b"{name}", at.name.encode())
    path = path_of(handler).format(**msgspec.to_builtins(at))
    async with plain_client(url, headers=headers) as client:
        return await client.request(method, path, content=body)


GUARDED = [(method, handler) for handler in HANDLERS if not handler.opt.get("public") for method in sorted(handler.http_methods)]
OF_TENANTS = [(method, handler) for method, handler in GUARDED if handler.opt["permission"] not in PLATFORM]
"""Routes that show what one tenant has, as against those that show all tenants to the platform's own people."""
OWNED = [each for each in OF_TENANTS if re.search(r"\{\w+\}", path_of(each[1]) + str(BODIES.get(each[1].fn.__name__)))]
every_guarded_route = pytest.mark.parametrize(("method", "handler"), GUARDED, ids=case_of)


@pytest.fixture(scope="module")
def keys(stack: Stack) -> Keys:
    """A key of every role."""
    return asyncio.run(make_keys(stack))


@pytest.fixture
async def mine(api: httpx2.AsyncClient, stack: Stack) -> Place:
    """A place of tenant `default` where everything is."""
    name = "matrix"
    applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": agent(name)}]})
    assert applied.json()["failed"] == 0, applied.text
    run = (await api.post(f"/v1/agents/{name}/runs", params={"wait": 10}, json={"input": LONG})).json()
    approval = (await asking_run(api))[1]["id"]
    digest = f"sha256:{hashlib.sha256(canonical(LONG)).hexdigest()}"
    letter = await dead_letter(api, stack)
    assert (await api.post("/v1/service-accounts", json={"name": name, "roles": ["viewer"]})).status_code in (201, 409)
    key = (await api.post("/v1/api-keys", json={"name": "matrix", "roles": ["viewer"]})).json()["id"]
    return Place(name, UUID(run["id"]), UUID(run["session_id"]), UUID(approval), letter, key, digest=digest)


def test_every_route_is_public_or_guarded() -> None:
    assert unguarded(HANDLERS) == []


def test_only_these_routes_are_public() -> None:
    public = {path_of(handler) for handler in HANDLERS if handler.opt.get("public")}
    assert public == {"/livez", "/readyz", "/v1/openapi.json", "/docs", "/docs/{name}"}


def test_an_unguarded_route_is_found() -> None:
    async def fine(principal: Principal) -> None: ...

    async def nobody_asked() -> None: ...

    routes = [
        get("/fine", opt={"permission": "runs:read"})(fine),
        get("/public", opt={"public": True})(nobody_asked),
        get("/bare")(fine),
        get("/made-up", opt={"permission": "runs:juggle"})(fine),
        get("/unasked", opt={"permission": "runs:read"})(nobody_asked),
    ]
    assert [re.findall(r"/[a-z-]+", line)[0] for line in unguarded(routes)] == ["/bare", "/made-up", "/unasked"]


def test_every_route_with_a_body_has_an_example_here() -> None:
    assert {handler.fn.__name__ for _, handler in GUARDED if "body" in handler.opt} == BODIES.keys() | ARCHIVES.keys()


def test_every_permission_guards_something() -> None:
    named = {handler.opt["permission"] for _, handler in GUARDED}
    assert named | {"platform:write", "tenants:act", "users:act"} == PERMISSIONS.keys()


@every_guarded_route
async def test_without_a_right_credential_nobody_gets_in(
    method: str, handler: HTTPRouteHandler, stack: Stack, api: httpx2.AsyncClient
) -> None:
    key = stack.key
    typo = key[:-1] + ("A" if key[-1] != "A" else "B")
    refused = {
        "no credential was sent": dict[str, str](),
        "not of the Bearer scheme": {"authorization": f"Basic {key}"},
        "the checksum of the API key is wrong": bearer(typo),
        "does not have the form": bearer("hsa_live_short"),
    }
    for said, headers in refused.items():
        answer = await call(str(api.base_url), method, handler, at=nowhere(), headers=headers)
        assert said in problem(answer, 401, "unauthenticated")["detail"]
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert key not in answer.text + str(answer.headers)
        assert key[-36:] not in answer.text + str(answer.headers)


@every_guarded_route
async def test_a_role_does_what_it_has_the_permission_for_and_nothing_else(
    method: str, handler: HTTPRouteHandler, control_plane: Process, keys: Keys
) -> None:
    needed = handler.opt["permission"]
    having = [role for role, permissions in ROLES.items() if needed in permissions]
    for role, headers in {**keys.of_role, "none": keys.without_role}.items():
        answer = await call(control_plane.url, method, handler, at=nowhere(), headers=headers)
        if role in having:
            assert answer.status_code in (200, 201, 202, 204, 404), (role, answer.text)
        else:
            found = problem(answer, 403, "forbidden")
            assert needed in found["detail"]
            assert found["hint"] == f"Roles that have it: {', '.join(having)}."


@pytest.mark.parametrize(("method", "handler"), OWNED, ids=case_of)
async def test_what_another_tenant_has_is_not_there(
    method: str, handler: HTTPRouteHandler, control_plane: Process, keys: Keys, api: httpx2.AsyncClient, mine: Place
) -> None:
    missing = nowhere()
    foreign = await call(control_plane.url, method, handler, at=mine, headers=keys.other_tenant)
    nothing = await call(control_plane.url, method, handler, at=missing, headers=keys.other_tenant)
    problem(nothing, 404, "not_found")
    assert _without_names(foreign, mine) == _without_names(nothing, missing)
    assert (foreign.status_code, _headers(foreign)) == (nothing.status_code, _headers(nothing))
    # It is there for its own tenant, still: what was asked with the other key changed nothing.
    own = {"authorization": api.headers["authorization"]}
    for read in (each for each in GUARDED if each[0] == "GET" and each in OWNED and each[1].fn.__name__ != "stream_events"):
        assert (await call(control_plane.url, *read, at=mine, headers=own)).status_code == 200, read
    assert (await api.get(f"/v1/runs/{mine.run_id}")).json()["state"] == "completed"


@pytest.mark.parametrize(("method", "handler"), [each for each in OF_TENANTS if each[0] == "GET" and each not in OWNED], ids=case_of)
async def test_a_list_holds_nothing_of_another_tenant(
    method: str, handler: HTTPRouteHandler, control_plane: Process, keys: Keys, api: httpx2.AsyncClient, mine: Place
) -> None:
    own = {**SCRIPTED, "metadata": {"name": "matrix-models"}, "spec": {"plugin": "scripted", "models": [{"name": "echo"}]}}
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": own}]})).json()["failed"] == 0
    text = (await call(control_plane.url, method, handler, at=mine, headers=keys.other_tenant)).text
    assert ('"data":' in text) == (get_origin(handler.opt["answer"]) is list)
    for secret in (mine.name, *mine.ids(), "matrix-models"):
        assert secret not in text


def _without_names(answer: httpx2.Response, place: Place) -> str:
    """The body to the byte, but for what names the place and the request."""
    text = re.sub(r'"trace_id":"[0-9a-f]{32}"', "", answer.text)
    for part in (place.name, *place.ids(), place.digest):
        text = text.replace(part, "X")
    return text


def _headers(answer: httpx2.Response) -> dict[str, str]:
    """Headers but for the date and the length."""
    return {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
