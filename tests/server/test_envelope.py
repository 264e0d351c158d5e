"""What stands on every answer: headers that browsers obey, an id to ask for, and for which pages of other origins it is meant."""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from api.problem import problem
from api.sse import opened
from server.wire import Answered, dialled, get
from stack import Process, Stack

ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
FRIEND, STRANGER = "https://console.example.org", "https://console.example.org.evil.example"


@pytest.fixture(scope="module")
def plane(stack: Stack) -> Process:
    """A control plane for the pages of a friend, with few streams."""
    return stack.serve(
        HANSA_SERVER_CORS_ORIGINS=f"{FRIEND}, http://localhost:5173",
        HANSA_SERVER_STREAMS_PER_PRINCIPAL="2",
        HANSA_SERVER_STREAMS_PER_TENANT="3",
        HANSA_SERVER_PROXIES="127.0.0.1",
    )


async def ask(process: Process, request: bytes) -> Answered:
    """One request by hand."""
    async with dialled(process) as wire:
        await wire.send(request)
        return await wire.answer()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/whoami", "/v1/openapi.json", "/nothing", "/docs", "/docs/swagger-ui.css"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PATCH"])
async def test_every_answer_forbids_browsers_what_nobody_needs(control_plane: Process, path: str, method: str) -> None:
    found = await ask(control_plane, f"{method} {path} HTTP/1.1\r\nHost: hansa\r\n\r\n".encode())
    assert found.headers.items() >= ALWAYS.items()
    assert "server" not in found.headers
    assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert "camera=()" in found.headers["permissions-policy"]
    public = found.status == 200 and path.startswith("/docs/")
    assert found.headers["cache-control"] == ("max-age=3600" if public else "no-store")
    assert not {name for name in found.headers if name.startswith("access-control-")}


async def test_an_answer_to_what_is_not_http_has_the_same_headers(control_plane: Process) -> None:
    found = await ask(control_plane, b"nonsense\r\n\r\n")
    found.problem(400, "malformed")
    assert found.headers.items() >= ALWAYS.items()
    assert found.headers["cache-control"] == "no-store"
    assert "server" not in found.headers


async def test_the_data_of_a_tenant_is_stored_by_no_cache(api: httpx2.AsyncClient) -> None:
    for path in ("/v1/runs", "/v1/agents", "/v1/whoami", "/v1/api-keys"):
        answer = await api.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


@pytest.mark.parametrize("given", ["abc-1", "0" * 128, "a.b_c~d:e"])
async def test_a_request_keeps_the_id_that_it_came_with(api: httpx2.AsyncClient, given: str) -> None:
    answer = await api.get("/v1/runs/none", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == problem(answer, 422, "invalid")["request_id"] == given


@pytest.mark.parametrize("given", ["", "0" * 129, "a b", 'a"}', "ä", "a\tb", "<b>"])
async def test_an_id_that_could_harm_a_log_is_replaced(control_plane: Process, given: str) -> None:
    found = await ask(control_plane, get("/nothing", f"X-Request-Id: {given}"))
    own = found.problem(404, "not_found")["request_id"]
    assert own != given
    assert len(own) == 16


async def test_the_id_that_people_are_told_leads_to_the_line_of_the_log(
    control_plane: Process, stack: Stack, api: httpx2.AsyncClient
) -> None:
    admin = await asyncpg.connect(stack.admin_url)
    try:
        await admin.execute("ALTER TABLE hansa.dead_letters RENAME TO lost_letters")
        found = problem(await api.get("/v1/dead-letters", headers={"x-request-id": "find-me-1"}), 500, "internal")
    finally:
        await admin.execute("ALTER TABLE hansa.lost_letters RENAME TO dead_letters")
        await admin.close()
    assert found["request_id"] == "find-me-1"
    line = next(line for line in control_plane.log.read_text().splitlines() if "api.broke" in line and "find-me-1" in line)
    assert found["trace_id"] in line
    assert (await api.get("/v1/dead-letters")).status_code == 200


async def test_a_friends_page_may_read_and_ask(plane: Process) -> None:
    found = await ask(plane, get("/v1/whoami", f"Origin: {FRIEND}"))
    assert found.headers["access-control-allow-origin"] == FRIEND
    assert "x-request-id" in found.headers["access-control-expose-headers"]
    assert found.headers["vary"] == "origin"
    preflight = ("Origin: " + FRIEND, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
    answer = await ask(plane, get("/v1/sessions", *preflight).replace(b"GET", b"OPTIONS", 1))
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, FRIEND)
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert "POST" in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize("origin", [STRANGER, "null", "https://CONSOLE.example.org", "http://console.example.org", "*", ""])
async def test_no_other_page_may(plane: Process, origin: str) -> None:
    for method in (b"GET", b"OPTIONS"):
        request = get("/v1/whoami", f"Origin: {origin}", "Access-Control-Request-Method: POST").replace(b"GET", method, 1)
        found = await ask(plane, request)
        assert not {name for name in found.headers if name.startswith("access-control-")}
        assert found.headers["vary"] == "origin"


async def test_nobody_is_ever_allowed_to_send_cookies(plane: Process) -> None:
    found = await ask(plane, get("/v1/whoami", f"Origin: {FRIEND}", "Cookie: a=b"))
    assert "access-control-allow-credentials" not in found.headers
    assert "set-cookie" not in found.headers


async def test_streams_of_a_key_and_of_a_tenant_are_bounded(
    plane: Process, stack: Stack, api: httpx2.AsyncClient, echo_session: str
) -> None:
    path = f"/v1/sessions/{echo_session}/events/stream"
    said = {"type": "user.message", "content": "hello"}
    run = (await api.post(f"/v1/sessions/{echo_session}/events", json=said)).json()["id"]
    async with stack.client(plane) as one, stack.client(plane) as two:
        two.headers["authorization"] = f"Bearer {(await one.post('/v1/api-keys', json=KEY)).json()['key']}"
        async with opened(one, echo_session), opened(one, echo_session):
            found = await one.get(path)
            assert "this key reads 2 event streams" in problem(found, 429, "limit_exceeded")["detail"]
            assert int(found.headers["retry-after"]) > 0
            async with opened(two, echo_session):
                assert "tenant 'default' reads 3" in problem(await two.get(path), 429, "limit_exceeded")["detail"]
        # A place is given back as soon as its reader is seen to have gone; that of one who reads to the end, then.
        for _ in range(3):
            async with asyncio.timeout(10):
                while (await one.get(path, params={"until": run})).status_code == 429:
                    await asyncio.sleep(0.05)


KEY: dict[str, Any] = {"name": "a reader", "roles": ["viewer"]}


@pytest.fixture
async def echo_session(api: httpx2.AsyncClient, echo: str) -> str:
    """A session of the agent that echoes."""
    return (await api.post("/v1/sessions", json={"agent": echo})).json()["id"]
