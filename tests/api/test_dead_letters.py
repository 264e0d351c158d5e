"""Dead letters over REST and on the command line: found, looked at, sent again."""

import json
from pathlib import Path
from uuid import uuid4

import httpx2

from api.letters import KIND, buried, dead_letter
from api.problem import problem
from cli.command import hansa
from stack import Process, Stack


async def test_a_message_that_nobody_receives_is_listed_with_the_reason(api: httpx2.AsyncClient, stack: Stack) -> None:
    message_id = await dead_letter(api, stack)
    letter = (await api.get("/v1/dead-letters")).json()["data"][0]
    assert letter["id"] == str(message_id)
    assert (letter["kind"], letter["attempts"], letter["payload"]) == (KIND, 0, {"secret": "of default"})
    assert f"nothing here receives messages of the kind '{KIND}'" in letter["reason"]
    assert (await api.get(f"/v1/dead-letters/{message_id}")).json() == letter


async def test_one_that_is_sent_again_comes_back_if_it_fails_again(api: httpx2.AsyncClient, stack: Stack) -> None:
    message_id = await dead_letter(api, stack)
    first = (await api.get(f"/v1/dead-letters/{message_id}")).json()
    path, key = f"/v1/dead-letters/{message_id}/retry", {"idempotency-key": str(uuid4())}
    retried = await api.post(path, headers=key)
    assert (retried.status_code, retried.json()) == (202, first)
    await buried(api, message_id)
    assert (await api.get(f"/v1/dead-letters/{message_id}")).json()["buried_at"] > first["buried_at"]
    again = await api.post(path, headers=key)
    assert (again.status_code, again.text, again.headers["idempotency-replayed"]) == (202, retried.text, "true")


async def test_what_is_no_dead_letter_is_not_found(api: httpx2.AsyncClient) -> None:
    for method, path in (("GET", f"/v1/dead-letters/{uuid4()}"), ("POST", f"/v1/dead-letters/{uuid4()}/retry")):
        found = problem(await api.request(method, path), 404, "not_found")
        assert "there is no dead letter" in found["detail"]
    problem(await api.post("/v1/dead-letters/what/retry"), 422, "invalid")


async def test_pages_follow_each_other(api: httpx2.AsyncClient, stack: Stack) -> None:
    newest = [str(await dead_letter(api, stack)) for _ in range(3)][::-1]
    first = (await api.get("/v1/dead-letters", params={"limit": 2})).json()
    second = (await api.get("/v1/dead-letters", params={"limit": 2, "after": first["next"]})).json()
    assert [letter["id"] for letter in first["data"] + second["data"]][:3] == newest


async def test_the_command_line_lists_shows_and_sends_again(
    api: httpx2.AsyncClient, stack: Stack, control_plane: Process, tmp_path: Path
) -> None:
    message_id = str(await dead_letter(api, stack))
    place = {"HANSA_URL": control_plane.url, "HANSA_API_KEY": stack.key}
    table = hansa("dead-letters", "--limit", "1", cwd=tmp_path, **place)
    assert table.status == 0, table.err
    assert message_id in table.out.splitlines()[1]
    listed = json.loads(hansa("dead-letters", "list", "-o", "json", cwd=tmp_path, **place).out)
    assert listed[0]["id"] == message_id
    shown = hansa("dead-letters", "show", message_id, "-o", "json", cwd=tmp_path, **place)
    assert json.loads(shown.out)["payload"] == {"secret": "of default"}
    again = hansa("dead-letters", "retry", message_id, cwd=tmp_path, **place)
    assert (again.status, again.err) == (0, f"message {message_id} ({KIND}): sent again\n")
    missing = hansa("dead-letters", "show", str(uuid4()), cwd=tmp_path, **place)
    assert missing.status == 66
    assert "there is no dead letter" in missing.err
