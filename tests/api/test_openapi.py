"""The OpenAPI document says what the routes do, all of it and nothing else; and its page needs no other host."""

import hashlib
import re
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx2
import jsonschema_rs
import pytest

from api.asking import asking_run
from api.letters import dead_letter
from api.refused import refused_agent
from api.sse import read
from hansa.api.app import HANDLERS
from hansa.runs.model import canonical
from samples import agent
from stack import Process, Stack

METHODS = ("get", "post", "delete", "put", "patch", "head", "options", "trace")
PROBLEM = "application/problem+json"


@pytest.fixture
async def document(api: httpx2.AsyncClient) -> dict[str, Any]:
    """The document as anyone gets it, without a credential."""
    answer = await api.get("/v1/openapi.json", headers={"authorization": ""})
    assert answer.status_code == 200
    return answer.json()


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(method, path) -> operation."""
    return {(method.upper(), path): item[method] for path, item in document["paths"].items() for method in METHODS if method in item}


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """A validator of a schema of the document."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}, validate_formats=True)


def references(value: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(value, list):
        return {found for each in cast(list[Any], value) for found in references(each)}
    if not isinstance(value, dict):
        return set()
    fields = cast(dict[str, Any], value)
    own = {fields["$ref"]} if isinstance(fields.get("$ref"), str) else set[str]()
    return own | {found for each in fields.values() for found in references(each)}


async def test_the_document_has_every_route_and_nothing_else(document: dict[str, Any]) -> None:
    routes = {(method, path.replace(":str}", "}")) for handler in HANDLERS for path in handler.paths for method in handler.http_methods}
    assert operations(document).keys() == routes


async def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"].keys() >= {"title", "version"}
    assert document.keys() <= {"openapi", "info", "paths", "components", "servers", "tags", "security"}
    names: list[str] = []
    for (_, path), operation in operations(document).items():
        names.append(operation["operationId"])
        assert operation["summary"]
        in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path))
        assert all(each["required"] for each in operation["parameters"] if each["in"] == "path")
        assert len({(each["in"], each["name"]) for each in operation["parameters"]}) == len(operation["parameters"])
        assert operation["responses"]["default"]["content"].keys() == {PROBLEM}
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d|default", status)
            assert answer["description"]
        for scheme in operation.get("security", []):
            assert scheme.keys() <= document["components"]["securitySchemes"].keys()
    assert len(set(names)) == len(names)


async def test_every_schema_is_one_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = references(document)
    assert {each.removeprefix("#/components/schemas/") for each in found} == document["components"]["schemas"].keys()
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
        validator(document, schema)


async def test_every_operation_says_which_permission_it_needs(document: dict[str, Any]) -> None:
    said = {operation["operationId"]: operation.get("x-permission") for operation in operations(document).values()}
    assert said == {handler.fn.__name__: handler.opt.get("permission") for handler in HANDLERS}
    for operation in operations(document).values():
        assert ("security" in operation) == ("x-permission" in operation)


async def test_real_answers_are_as_documented(api: httpx2.AsyncClient, document: dict[str, Any], echo: str, stack: Stack) -> None:
    """Each GET and POST is asked, with a right request, a wrong one, and for something that is not there."""
    manifest = agent("documented", tools=[{"plugin": "tools", "allow": ["clock"]}], outputSchema={"type": "object"})
    objects = {"objects": [{"manifest": manifest, "source": {"file": "a.yaml", "line": 1, "column": 1}}, {"manifest": {"kind": "Agnet"}}]}
    assert (await api.post("/v1/objects:apply", json=objects)).json()["failed"] == 1
    long = {"any": ["thing" * 500]}
    run = (await api.post("/v1/agents/echo/runs", params={"wait": 10}, json={"input": long})).json()
    broken = (await api.post("/v1/agents/documented/runs", params={"wait": 10}, json={"input": "#script nonsense"})).json()
    assert broken["error"], broken
    bodies: dict[str, Any] = {
        "apply_objects": objects,
        "plan_objects": {**objects, "delete": [{"kind": "Agent", "name": "documented"}]},
        "delete_objects": {"objects": [{"kind": "Agent", "name": "none"}]},
        "take_over_object": {"manager": "rest"},
        "put_source": {"origin": "https://git.example/x//", "seen_at": "2026-01-01T00:00:00Z", "errors": [{"message": "m", "line": 1}]},
        "start_run": {"input": "hello"},
        "open_session": {"agent": "echo"},
        "post_event": {"type": "user.message", "content": "hello"},
        "send_event": {"data": 1},
        "resume_run": {"as": "retry"},
        "fork_run": {"at": 1},
        "decide_approval": {"decision": "approve"},
        "make_api_key": {"name": "documented", "roles": ["viewer"], "scopes": ["runs:read"], "expires_at": "2999-01-01T00:00:00Z"},
        "rotate_api_key": {"grace_seconds": 5},
        "put_secret": {"name": "echo", "value": "documented value"},
        "make_service_account": {"name": "echo", "roles": ["viewer"]},
        "rotate_data_key": {},
        "make_nats_credentials": {"name": "documented"},
    }
    await api.delete("/v1/service-accounts/echo")
    await refused_agent(api, "refused")
    key = (await api.post("/v1/api-keys", json={"name": "documented", "roles": ["viewer"]})).json()["id"]
    asking, approval = await asking_run(api)
    letter = str(await dead_letter(api, stack))
    digest = f"sha256:{hashlib.sha256(canonical(long)).hexdigest()}"
    places = [
        {
            "digest": digest,
            "name": "echo",
            "run_id": run["id"],
            "session_id": run["session_id"],
            "approval_id": approval["id"],
            "message_id": letter,
            "key_id": key,
        },
        {"name": "default", "run_id": run["id"], "session_id": run["session_id"], "approval_id": "1"},
        {"name": "documented", "run_id": broken["id"], "session_id": broken["session_id"], "approval_id": "1"},
        {"name": "refused", "run_id": run["id"], "session_id": run["session_id"], "approval_id": "1"},
        {"name": "asking", "run_id": asking["id"], "session_id": asking["session_id"], "approval_id": "1"},
        {"name": "none", "run_id": str(uuid4()), "session_id": str(uuid4()), "approval_id": str(uuid4()), "message_id": str(uuid4())},
        {"name": "none", "kind": "None", "run_id": "none", "session_id": "none", "approval_id": "none", "event": "e" * 300},
    ]
    anywhere = {
        "kind": "Agent",
        "event": "e",
        "message_id": "none",
        "digest": "none",
        "key_id": "none",
        "deletion_id": "none",
        "source_id": "documented",
    }
    seen: set[tuple[str, str]] = set()
    for (method, path), operation in operations(document).items():
        if method == "DELETE" or "text/event-stream" in operation["responses"]["200" if method == "GET" else "default"]["content"]:
            continue
        for place in places:
            body = bodies.get(operation["operationId"])
            for sent in [body, {"wrong": 1}] if body is not None else [None]:
                answer = await api.request(method, path.format(**{**anywhere, **place}), json=sent)
                status = str(answer.status_code)
                expected = operation["responses"].get(status, operation["responses"]["default"])
                assert answer.status_code < 300 or status not in operation["responses"]
                assert answer.status_code < 500, answer.text
                seen.add((operation["operationId"], "done" if answer.is_success else "refused"))
                content = answer.headers["content-type"].split(";")[0]
                if content in expected["content"] and content.endswith("json"):
                    validator(document, expected["content"][content]["schema"]).validate(answer.json())
                else:
                    assert content in expected["content"] or "*/*" in expected["content"], (path, content)
    done = {name for name, outcome in seen if outcome == "done"}
    assert done == {each["operationId"] for (method, _), each in operations(document).items() if method != "DELETE"} - {
        "stream_events",
        "docs_asset",
        "resume_run",
        "import_session",  # takes no JSON: tests of archives
        "import_tenant",
        *("get_deletion", "get_deleted"),  # of tenants that are gone: tests of a tenant's life
    }
    events = await read(api, run["session_id"], run["id"])
    event = validator(document, {"$ref": "#/components/schemas/Event"})
    assert [event.validate(message.data) for message in events if message.id] == [None] * 4


async def test_a_right_request_by_the_document_is_taken_and_a_wrong_one_is_not(document: dict[str, Any]) -> None:
    schema = operations(document)["POST", "/v1/agents/{name}/runs"]["requestBody"]["content"]["application/json"]["schema"]
    found = validator(document, schema)
    assert found.is_valid({"input": None, "session_id": str(uuid4()), "revision": 1})
    assert not found.is_valid({})
    assert not found.is_valid({"input": 1, "inptu": 2})
    assert not found.is_valid({"input": 1, "revision": 0})


async def test_a_resumed_run_is_answered_as_documented(api: httpx2.AsyncClient, document: dict[str, Any]) -> None:
    run, _ = await asking_run(api)
    assert (await api.post(f"/v1/runs/{run['id']}/suspend")).json()["state"] == "suspended"
    answer = await api.post(f"/v1/runs/{run['id']}/resume", json={})
    assert answer.status_code == 202
    content = operations(document)["POST", "/v1/runs/{run_id}/resume"]["responses"]["202"]["content"]["application/json"]
    validator(document, content["schema"]).validate(answer.json())


async def test_the_page_and_all_its_parts_come_from_this_host(api: httpx2.AsyncClient) -> None:
    page = await api.get("/docs", headers={"authorization": ""})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http:" not in page.headers["content-security-policy"]
    parts = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(parts) == 4
    for part in parts:
        assert part.startswith("/docs/")
        answer = await api.get(part, headers={"authorization": ""})
        assert answer.status_code == 200
        assert len(answer.content) > 50
        if part.endswith(".css"):
            assert not re.search(r"@import|url\(\s*['\"]?+(?!data:)", answer.text)
    assert not re.search(r"https?://", page.text + (await api.get("/docs/start.js")).text)


async def test_the_page_has_no_other_parts(api: httpx2.AsyncClient) -> None:
    for name in ("swagger-ui.css.map", "..%2f..%2fopenapi.py", "%2e%2e", "index.html"):
        assert (await api.get(f"/docs/{name}")).status_code == 404


def test_a_control_plane_does_not_load_what_no_route_uses(control_plane: Process) -> None:
    """Litestar would import Pydantic, which takes 0.14 s and 10 MB."""
    loaded = Path(f"/proc/{control_plane.pid}/maps").read_text()
    assert "httptools" in loaded
    assert "pydantic" not in loaded
