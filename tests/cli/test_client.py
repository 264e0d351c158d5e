"""The client repeats what is safe to repeat and nothing else, and turns every answer into an error that says what to do."""

import threading
import time

import pytest

from cli.scripted_server import Reply, Request, ScriptedServer, as_json, page, problem, refused_port, run
from hansa.cli.client import Api, segment
from hansa.cli.connection import Target
from hansa.cli.usage import UsageError, json_value
from hansa.egress.local import open_local_client
from hansa.errors import (
    Conflict,
    Forbidden,
    HansaError,
    Invalid,
    LimitExceeded,
    Malformed,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

RUNS = "POST /v1/agents/echo/runs"


def start(api: Api, *, key: str, patience: float) -> str:
    return str(api.post("/v1/agents/echo/runs", {"input": "hi"}, key=key, patience=patience)["id"])


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "malformed", Malformed),
        (401, "unauthenticated", Unauthenticated),
        (403, "forbidden", Forbidden),
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (413, "too_large", TooLarge),
        (422, "invalid", Invalid),
        (429, "limit_exceeded", LimitExceeded),
        (503, "unavailable", Unavailable),
        (404, "a_code_of_tomorrow", NotFound),
        (418, "teapot", Malformed),
        (500, "internal", HansaError),
    ],
)
def test_a_refusal_is_the_error_that_the_server_meant(
    server: ScriptedServer, api: Api, status: int, code: str, kind: type[HansaError]
) -> None:
    server.on("GET /v1/runs", problem(status, code, "why", errors=[{"path": "a.b", "code": "type", "message": "m"}], hint="do"))
    with pytest.raises(HansaError, match="why") as caught:
        api.get("/v1/runs")
    assert type(caught.value) is kind
    assert caught.value.errors[0].path == "a.b"
    assert "do" in caught.value.hint


def test_a_refused_key_is_named_by_where_it_came_from_and_never_shown(server: ScriptedServer, api: Api) -> None:
    server.on("GET /v1/runs", problem(401, "unauthenticated", "checksum of the key is wrong (typo or truncated?)"))
    with pytest.raises(Unauthenticated, match="checksum") as caught:
        api.get("/v1/runs")
    assert "HANSA_API_KEY" in caught.value.hint
    assert "key-of-the-test" not in caught.value.hint + caught.value.detail
    assert caught.value.exit_code == 77


def test_a_server_that_is_not_hansa_is_told_from_one_that_is(server: ScriptedServer, api: Api) -> None:
    server.on("GET /v1/runs", Reply(502, "<html>bad gateway</html>", (), "text/html"))
    with pytest.raises(Unavailable, match="502 with text/html instead of JSON"):
        api.get("/v1/runs")


def test_nobody_listening_is_said_with_the_address_and_what_to_do() -> None:
    with (
        refused_port() as port,
        open_local_client(f"http://127.0.0.1:{port}", {}, 2.0) as client,
        pytest.raises(Unavailable, match=f"nothing answers at http://127.0.0.1:{port}") as caught,
    ):
        Api(client, Target("", "", "the-source", "")).get("/v1/runs")
    assert "the-source" in caught.value.hint
    assert "hansa up" in caught.value.hint


def test_a_start_with_a_key_is_repeated_with_the_same_key_until_it_is_answered(server: ScriptedServer, api: Api) -> None:
    server.on(RUNS, Reply(200, "{", cut=True), problem(503, "unavailable", "restarting"), as_json(run(), 202))
    assert start(api, key="k1", patience=10) == "run-1"
    assert [request.headers["idempotency-key"] for request in server.seen(RUNS)] == ["k1"] * 3


def test_a_start_without_a_key_is_sent_once(server: ScriptedServer, api: Api) -> None:
    server.on(RUNS, Reply(200, "{", cut=True), as_json(run(), 202))
    with pytest.raises(Unavailable):
        start(api, key="", patience=10)
    assert len(server.seen(RUNS)) == 1


def test_what_is_wrong_with_a_request_is_not_tried_again(server: ScriptedServer, api: Api) -> None:
    server.on(RUNS, problem(422, "invalid", "no"), as_json(run()))
    with pytest.raises(Invalid):
        start(api, key="k1", patience=10)
    assert len(server.seen(RUNS)) == 1


def test_the_pause_that_the_server_asks_for_is_kept(server: ScriptedServer, api: Api) -> None:
    server.on(RUNS, problem(429, "limit_exceeded", "slowly", ("retry-after", "1")), as_json(run(), 202))
    began = time.monotonic()
    start(api, key="k1", patience=10)
    assert time.monotonic() - began >= 1.0


def test_a_pause_longer_than_the_patience_is_not_waited_for(server: ScriptedServer, api: Api) -> None:
    server.on(RUNS, problem(429, "limit_exceeded", "slowly", ("retry-after", "3600")))
    began = time.monotonic()
    with pytest.raises(LimitExceeded, match="slowly"):
        start(api, key="k1", patience=3)
    assert time.monotonic() - began < 2


def test_lists_are_read_over_as_many_pages_as_they_take(server: ScriptedServer, api: Api) -> None:
    server.on("GET /v1/runs", page({"id": 1}, {"id": 2}, after="c1"), page({"id": 3}, after="c2"), page({"id": 4}))
    assert [each["id"] for each in api.entries("/v1/runs", {"agent": "", "state": "failed"}, 300)] == [1, 2, 3, 4]
    queries = [request.query for request in server.seen("GET /v1/runs")]
    assert [query.get("after") for query in queries] == [None, "c1", "c2"]
    assert all(query["state"] == "failed" and "agent" not in query and int(query["limit"]) <= 200 for query in queries)


def test_no_more_is_read_than_was_asked_for(server: ScriptedServer, api: Api) -> None:
    server.on("GET /v1/runs", page({"id": 1}, {"id": 2}, after="c1"))
    assert len(api.entries("/v1/runs", {}, 2)) == 2
    assert server.seen("GET /v1/runs")[0].query == {"limit": "2"}
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed_with_the_key(server: ScriptedServer, api: Api) -> None:
    with ScriptedServer() as elsewhere:
        elsewhere.on("GET /v1/runs", page())
        server.on("GET /v1/runs", Reply(307, "", (("location", f"{elsewhere.url}/v1/runs"),)))
        with pytest.raises(Unavailable, match="307"):
            api.get("/v1/runs")
        assert elsewhere.requests == []


def test_names_can_not_leave_their_part_of_the_path(server: ScriptedServer, api: Api) -> None:
    with pytest.raises(NotFound):
        api.get(f"/v1/runs/{segment('../../readyz?x=1#y')}")
    assert server.requests[0].path == "/v1/runs/..%2F..%2Freadyz%3Fx%3D1%23y"
    assert server.requests[0].query == {}


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_what_would_be_another_path_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="is no name and no id"):
        segment(name)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 3000 + "]" * 3000, "{", "'a'", ""])
def test_what_is_no_json_is_wrong_usage_however_deep(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--json is not JSON"):
        json_value(text, "--json")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:7420", "http://", "http://[::1", ""])
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(Invalid):
        open_local_client(url, {}, 1.0)


def test_many_threads_share_one_client(server: ScriptedServer, api: Api) -> None:
    def echo(request: Request) -> Reply:
        time.sleep(0.02)
        return as_json({"id": request.body["input"]}, 202)

    server.on(RUNS, echo)
    found: list[int] = []

    def ask(number: int) -> None:
        found.append(api.post("/v1/agents/echo/runs", {"input": number}, key=str(number))["id"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(found) == list(range(40))


def test_a_server_that_never_answered_is_waited_for_shortly_and_people_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with refused_port() as port, open_local_client(f"http://127.0.0.1:{port}", {}, 5.0) as client:
        lost = Api(client, Target(f"http://127.0.0.1:{port}", "k", "HANSA_URL", "HANSA_API_KEY"))
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="nothing answers"):
            start(lost, key="k", patience=120.0)
        assert 5.0 < time.monotonic() - begun < 15.0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"nothing answers at http://127.0.0.1:{port}")
    assert "trying again for" in told[0]


def test_all_entries_of_a_list_are_read_however_many_pages_they_are(server: ScriptedServer, api: Api) -> None:
    pages = [page(*({"name": f"a{number}-{entry}"} for entry in range(200)), after=f"page-{number}") for number in range(3)]
    server.on("GET /v1/agents", *pages, page({"name": "last"}))
    assert len(api.entries("/v1/agents", {}, None)) == 601
    assert [request.query.get("after") for request in server.requests] == [None, "page-0", "page-1", "page-2"]
