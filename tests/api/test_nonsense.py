"""Whatever is sent to any route, with a valid key: never a 5xx, and every refusal is a problem with all its parts."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api.problem import MEMBERS
from hansa.api.app import HANDLERS
from samples import SCRIPTED
from stack import Process, Stack

ROUTES = [(method, path.replace(":str}", "}")) for each in HANDLERS for path in each.paths for method in sorted(each.http_methods)]
WORDS = (
    "input",
    "session_id",
    "revision",
    "objects",
    "manifest",
    "source",
    "agent",
    "type",
    "content",
    "manager",
    "origin",
    "commit",
    "delete",
    "namespace",
    "kind",
    "metadata",
    "name",
    "spec",
    "apiVersion",
    "labels",
    "model",
    "alias",
    "tools",
    "line",
    "\x00",
    "\ud83d",
    "wait",
    "limit",
    "after",
    "until",
)
VALUES = ["Agent", "ModelProvider", "Region", "hansa.dev/v1alpha1", "user.message", "rest", "echo", "scripted", 2**31, 2**63, 1e308, -1]

PHASES = (Phase.explicit, Phase.generate)
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
PARTS = ("name", "kind", "run_id", "session_id", "approval_id", "event", "message_id", "digest", "key_id", "deletion_id", "source_id")
"""Every part of a path that a route may have."""


def _item(made: tuple[Any, Any]) -> dict[str, Any]:
    return {"manifest": made[0], "source": made[1]}


def _broken(body: bytes, place: int, piece: bytes) -> bytes:
    return body[: place % (len(body) + 1)] + piece + body[place % (len(body) + 1) :]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.sampled_from(VALUES)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=5),
    max_leaves=12,
)
items = st.tuples(values | st.just(SCRIPTED), values).map(_item)
likely: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    dict[str, Any](),
    optional={
        "input": values,
        "objects": st.lists(items, max_size=3),
        "agent": values,
        "type": st.sampled_from(["user.message", "x"]),
        "content": values,
        "session_id": values | st.uuids().map(str),
        "revision": st.integers(),
    },
)
bodies = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.one_of(values, likely).map(lambda value: json.dumps(value).encode()),
    likely.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.tuples(likely, st.integers(0, 400), st.binary(min_size=1, max_size=3)).map(
        lambda made: _broken(json.dumps(made[0]).encode(), *made[1:])
    ),
)
queries = st.dictionaries(
    st.sampled_from(["limit", "after", "wait", "until", "kind", "agent", "state", "session_id", "x"]) | st.text(max_size=5),
    st.sampled_from(["0", "1", "200", "-1", "Agent", "running", "%"]) | st.uuids().map(str) | st.text(max_size=20),
    max_size=3,
)
names = st.sampled_from(["echo", "scripted", "Agent", "Region", "local"]) | st.uuids().map(str) | st.text(min_size=1, max_size=30)
headers = st.dictionaries(
    st.sampled_from(
        ["idempotency-key", "last-event-id", "traceparent", "content-type", "accept", "content-encoding", "x-http-method-override"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40).map(str.strip),
    max_size=2,
)


@pytest.fixture(scope="module")
def client(stack: Stack, control_plane: Process) -> Iterator[httpx2.Client]:
    """A client that blocks, which is how hypothesis calls."""
    headers = {"authorization": f"Bearer {stack.key}"}
    with httpx2.Client(base_url=control_plane.url, headers=headers, trust_env=False, verify=False, timeout=20) as found:
        yield found


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda value: str(value))
def test_no_nonsense_breaks_a_route(client: httpx2.Client, method: str, path: str) -> None:
    @settings(max_examples=25, deadline=None, database=None, derandomize=True, phases=PHASES, suppress_health_check=SLOW)
    @given(names, queries, headers, bodies if method == "POST" else st.none())
    def send(name: str, query: dict[str, str], extra: dict[str, str], body: bytes | None) -> None:
        place = {part: quote(name, safe="", errors="surrogatepass") for part in PARTS}
        params = "&".join(f"{quote(key, errors='surrogatepass')}={quote(value, errors='surrogatepass')}" for key, value in query.items())
        sent: list[Any] = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in extra.items()]
        with client.stream(method, f"{path.format(**place)}?{params}", content=body, headers=sent) as answer:
            if answer.is_success and "event-stream" in answer.headers.get("content-type", ""):
                return
            answer.read()
        assert answer.status_code < 500, answer.text
        if not answer.is_success:
            assert answer.headers["content-type"] == "application/problem+json", answer.text
            assert answer.json().keys() >= MEMBERS
            assert answer.json()["status"] == answer.status_code

    send()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "POST", "DELETE"])
def test_a_method_that_is_not_possible_is_refused_with_those_that_are(client: httpx2.Client, method: str) -> None:
    answer = client.request(method, "/v1/agents")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


def test_an_address_where_nothing_is_is_refused_with_a_problem(client: httpx2.Client) -> None:
    for path in ("/", "/v1", "/v1/agents/a/b/c", "/v2/agents", "//v1/agents", "/v1/objects:nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        assert answer.json().keys() >= MEMBERS


def test_the_callers_trace_is_told_in_the_error(client: httpx2.Client) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    good = client.get("/v1/runs/1", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}).json()["trace_id"]
    assert good == trace
    for wrong in ("", "00-xyz-1-01", f"00-{'0' * 32}-1-01", "0" * 500):
        told = client.get("/v1/runs/1", headers={"traceparent": wrong}).json()["trace_id"]
        assert len(told) == 32
        assert told not in (trace, "0" * 32)
