"""Every route is public or names a permission, and every one that does refuses: no credential, a wrong one, one without the
permission, another tenant's. The matrix is made from the routes themselves, so that a new route is in it from its first day.
"""

import asyncio
import re
from typing import get_origin
from uuid import UUID

import httpx2
import msgspec
import pytest
from litestar import get, post
from litestar.handlers import HTTPRouteHandler

from api.keys import Keys, bearer, make_keys
from api.problem import problem
from audit.trails import end, trail
from hansa import ids
from hansa.api.app import HANDLERS, audited_as, unaudited, unguarded
from hansa.api.services import STANDING
from hansa.audit.model import ACTIONS, Action
from hansa.auth.model import PERMISSIONS, ROLES, Principal
from routes import (
    ARCHIVES,
    BODIES,
    GUARDED,
    OF_TENANTS,
    OWNED,
    Place,
    call,
    case_of,
    lasting_headers,
    nowhere,
    path_of,
    settle,
    without_names,
)
from runs.checks import decided, rollout
from runs.engine import script
from samples import SCRIPTED, agent
from stack import Process, Stack

every_guarded_route = pytest.mark.parametrize(("method", "handler"), GUARDED, ids=case_of)


@pytest.fixture(scope="module")
def keys(stack: Stack) -> Keys:
    """A key of every role."""
    return asyncio.run(make_keys(stack))


@pytest.fixture
async def mine(api: httpx2.AsyncClient, stack: Stack) -> Place:
    """A place of tenant `default` where everything is."""
    return await settle(api, stack)


@pytest.fixture(scope="module")
def settled() -> dict[str, Place]:
    """The places of tests that only look."""
    return {}


@pytest.fixture
async def looked_at(request: pytest.FixtureRequest, api: httpx2.AsyncClient, stack: Stack, settled: dict[str, Place]) -> Place:
    """Such a place for a test that only looks, the same for all its cases: to make one costs more than to look at it."""
    name = request.function.__name__
    if name not in settled:
        settled[name] = await settle(api, stack)
    return settled[name]


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
        get("/placed", opt={"permission": "runs:read", "within": STANDING})(fine),
        get("/unplaced", opt={"permission": "secrets:read", "within": STANDING})(fine),
        get("/unreasoned", opt={"permission": "runs:read", "within": ""})(fine),
    ]
    wrong = ["/bare", "/made-up", "/unasked", "/unplaced", "/unreasoned"]
    assert [re.findall(r"/[a-z-]+", line)[0] for line in unguarded(routes)] == wrong


def test_every_route_that_changes_something_is_audited_or_says_why_not() -> None:
    assert unaudited(HANDLERS) == []


def test_a_route_that_changes_something_unseen_is_found() -> None:
    async def fine(principal: Principal) -> None: ...

    routes = [
        get("/reads", opt={})(fine),
        post("/audited", opt={"audit": Action.KEY_MADE})(fine),
        post("/one-of", opt={"audit": (Action.KEY_MADE, Action.KEY_REVOKED)})(fine),
        post("/reasoned", opt={"unaudited": "it is in the log"})(fine),
        post("/unseen", opt={})(fine),
        post("/without-a-reason", opt={"unaudited": ""})(fine),
        post("/made-up", opt={"audit": "key.juggled"})(fine),
        post("/both", opt={"audit": Action.KEY_MADE, "unaudited": "it is in the log"})(fine),
    ]
    wrong = ["/unseen", "/without-a-reason", "/made-up", "/both"]
    assert [re.findall(r"/[a-z-]+", line)[0] for line in unaudited(routes)] == wrong


def test_every_action_is_described() -> None:
    assert set(ACTIONS) == set(Action)


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
    method: str, handler: HTTPRouteHandler, control_plane: Process, keys: Keys, api: httpx2.AsyncClient, looked_at: Place
) -> None:
    missing = nowhere()
    foreign = await call(control_plane.url, method, handler, at=looked_at, headers=keys.other_tenant)
    nothing = await call(control_plane.url, method, handler, at=missing, headers=keys.other_tenant)
    problem(nothing, 404, "not_found")
    assert without_names(foreign, looked_at) == without_names(nothing, missing)
    assert (foreign.status_code, lasting_headers(foreign)) == (nothing.status_code, lasting_headers(nothing))
    # It is there for its own tenant, still: what was asked with the other key changed nothing.
    own = {"authorization": api.headers["authorization"]}
    for read in (each for each in GUARDED if each[0] == "GET" and each in OWNED and each[1].fn.__name__ != "stream_events"):
        assert (await call(control_plane.url, *read, at=looked_at, headers=own)).status_code == 200, read
    assert (await api.get(f"/v1/runs/{looked_at.run_id}")).json()["state"] == "completed"


LIVES = ("delete_tenant", "restore_tenant", "import_tenant")
"""Routes that need a tenant in a state of its own: the test after the next one has them."""


@pytest.mark.parametrize(
    ("method", "handler"), [each for each in GUARDED if audited_as(each[1]) and each[1].fn.__name__ not in LIVES], ids=case_of
)
async def test_the_audit_trail_says_of_a_change_what_its_route_names(
    method: str, handler: HTTPRouteHandler, stack: Stack, api: httpx2.AsyncClient, mine: Place
) -> None:
    json = None
    match handler.fn.__name__:
        case "apply_objects":
            json = {"objects": [{"manifest": agent(f"audited-{ids.new_id().hex[-8:]}")}]}
        case "delete_objects":
            json = {"objects": [{"kind": "Agent", "name": mine.name}]}
        case "take_over_object":
            json = {"manager": "git", "origin": "https://git.example/matrix//"}
        case "resume_run":
            later = {"input": "later", "start_at": "2999-01-01T00:00:00Z"}
            run = (await api.post(f"/v1/agents/{mine.name}/runs", json=later)).json()
            assert (await api.post(f"/v1/runs/{run['id']}/suspend")).status_code == 202
            mine = msgspec.structs.replace(mine, run_id=UUID(run["id"]))
        case "retry_rollout":
            mine = msgspec.structs.replace(mine, name=f"refused-{ids.new_id().hex[-8:]}")
            checked = agent(mine.name, rollout=rollout(script({"text": "no"}), contains=["yes"]))
            assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": checked}]})).json()["failed"] == 0
            assert (await decided(api, mine.name))["ready"]["reason"] == "Refused"
        case _:
            pass
    last = await end(stack)
    answer = await call(str(api.base_url), method, handler, at=mine, headers={"authorization": api.headers["authorization"]}, json=json)
    assert answer.is_success, answer.text
    (found,) = await trail(stack, after=last)
    assert found["action"] in audited_as(handler)
    assert found["actor"]["name"].startswith("key:")
    assert found["origin"]["request_id"] == answer.headers["x-request-id"]


async def test_the_audit_trail_says_of_a_tenants_life_what_its_routes_name(stack: Stack, api: httpx2.AsyncClient) -> None:
    name, last = f"life-{ids.new_id().hex[-8:]}", await end(stack)
    manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
    asked = [
        await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]}),
        await api.delete(f"/v1/tenants/{name}", params={"confirm": name, "policy": "Retain"}),
        await api.post(f"/v1/tenants/{name}/restore"),
        await api.post("/v1/tenants:import", params={"name": f"{name}-again"}, content=ARCHIVES["import_tenant"]()),
        await api.delete(f"/v1/tenants/{name}", params={"confirm": name, "policy": "Delete"}),
    ]
    assert [each.is_success for each in asked] == [True] * 5, [each.text for each in asked]
    told = [each["action"] for each in await trail(stack, after=last) if each["action"].startswith("tenant.")]
    assert [each for each in told if each not in ("tenant.created", "tenant.changed")] == [
        Action.TENANT_ARCHIVED,
        Action.TENANT_RESTORED,
        Action.TENANT_IMPORTED,
        Action.TENANT_DELETED,
    ]
    declared = {action for _, handler in GUARDED if handler.fn.__name__ in LIVES for action in audited_as(handler)}
    assert set(told) - {"tenant.created", "tenant.changed"} == declared


@pytest.mark.parametrize(("method", "handler"), [each for each in OF_TENANTS if each[0] == "GET" and each not in OWNED], ids=case_of)
async def test_a_list_holds_nothing_of_another_tenant(
    method: str, handler: HTTPRouteHandler, control_plane: Process, keys: Keys, api: httpx2.AsyncClient, looked_at: Place
) -> None:
    own = {**SCRIPTED, "metadata": {"name": "matrix-models"}, "spec": {"plugin": "scripted", "models": [{"name": "echo"}]}}
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": own}]})).json()["failed"] == 0
    text = (await call(control_plane.url, method, handler, at=looked_at, headers=keys.other_tenant)).text
    assert ('"data":' in text) == (get_origin(handler.opt["answer"]) is list)
    for secret in (looked_at.name, *looked_at.ids(), "matrix-models"):
        assert secret not in text
