"""/v1/secrets: set and listed, never given back; keys changed under load; what is refused says nothing of the value."""

import asyncio
import hashlib
import secrets as randomness
from typing import Any

import asyncpg
import httpx2
import pytest

from api.keys import Keys, issue
from api.problem import problem
from hansa import ids
from stack import Process, Stack, plain_client

CANARY = f"canary-{randomness.token_hex(16)}"

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no value": ({"name": "smtp"}, "give `value`, or `source` and `path`"),
    "value and source": ({"name": "smtp", "value": CANARY, "source": "folder", "path": "a"}, "give `value`, or `source` and `path`"),
    "source without path": ({"name": "smtp", "source": "folder"}, "give `value`, or `source` and `path`"),
    "unknown source": ({"name": "smtp", "source": "floppy", "path": "a"}, "'floppy' (loaded: "),
    "path upwards": ({"name": "smtp", "source": "folder", "path": "../other"}, "no part may begin with a dot"),
    "short": ({"name": "smtp", "value": "a#b#c"}, "shorter than 8"),
    "name": ({"name": "SMTP", "value": CANARY}, "lower-case"),
    "misspelt": ({"name": "smtp", "valeu": CANARY}, "did you mean `value`?"),
    "no text": ({"name": "smtp", "value": [CANARY]}, "value"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_secret_is_refused_and_its_value_not_told(api: httpx2.AsyncClient, wrong: str) -> None:
    body, told = WRONG[wrong]
    answer = await api.post("/v1/secrets", json=body)
    assert told in problem(answer, 422, "invalid")["detail"]
    assert CANARY not in answer.text
    assert "a#b#c" not in answer.text


async def test_a_secret_is_listed_and_never_given_back(api: httpx2.AsyncClient) -> None:
    for version in (1, 2):
        made = await api.post("/v1/secrets", json={"name": "listed", "value": f"{CANARY} {version}"})
        assert (made.status_code, made.json()["version"]) == (201, version)
        assert CANARY not in made.text
    shown = await api.get("/v1/secrets/listed")
    assert (shown.json()["versions"], shown.json()["source"]) == ([1, 2], None)
    listed = (await api.get("/v1/secrets", params={"limit": 200})).json()["data"]
    assert shown.json() in listed
    assert CANARY not in shown.text + str(listed)
    assert (await api.delete("/v1/secrets/listed")).status_code == 204
    problem(await api.get("/v1/secrets/listed"), 404, "not_found")
    problem(await api.delete("/v1/secrets/listed"), 404, "not_found")


async def test_a_repeated_request_sets_once_and_nothing_guessable_is_kept_of_it(api: httpx2.AsyncClient, stack: Stack) -> None:
    key, body = {"idempotency-key": str(ids.new_id())}, {"name": "once", "value": "a rather poor password"}
    answers = [await api.post("/v1/secrets", json=body, headers=key) for _ in range(2)]
    assert {each.content for each in answers} == {answers[0].content}
    problem(await api.post("/v1/secrets", json={**body, "value": "quite another"}, headers=key), 422, "invalid")
    connection = await asyncpg.connect(stack.admin_url)
    try:
        rows = await connection.fetch("SELECT digest, answer::text FROM hansa.idempotency_keys WHERE key = $1", key["idempotency-key"])
    finally:
        await connection.close()
    assert len(rows) == 1
    assert rows[0]["digest"] != hashlib.sha256(answers[0].request.content).digest()
    assert body["value"] not in rows[0]["answer"]


async def test_a_viewer_sees_no_secrets_and_an_operator_only_their_names(
    api: httpx2.AsyncClient, control_plane: Process, keys: Keys
) -> None:
    for role, reading, writing in (("viewer", 403, 403), ("operator", 200, 403), ("developer", 200, 201)):
        async with plain_client(control_plane.url, headers=keys.of_role[role]) as client:
            assert (await client.get("/v1/secrets")).status_code == reading
            assert (await client.post("/v1/secrets", json={"name": "of-roles", "value": CANARY})).status_code == writing


async def test_a_data_key_is_rotated_while_secrets_are_set(api: httpx2.AsyncClient, stack: Stack, control_plane: Process) -> None:
    headers = await issue(stack, "rotating", name="rotating", roles=["tenant-admin"])
    async with plain_client(control_plane.url, headers=headers) as client:
        assert (await client.get("/v1/secret-keys")).json() == {
            "generation": 0,
            "total": 0,
            "left": 0,
            "damaged": [],
            "finished": True,
        }

        async def put(number: int) -> None:
            answer = await client.post("/v1/secrets", json={"name": f"s-{number}", "value": f"{CANARY} {number}"})
            assert answer.status_code == 201, answer.text

        await asyncio.gather(*map(put, range(6)))
        rotating = asyncio.create_task(client.post("/v1/secret-keys", json={"generation": 2}))
        await asyncio.gather(*map(put, range(6)))
        assert (await rotating).json()["generation"] == 2
        done = (await client.post("/v1/secret-keys", json={"generation": 2})).json()
        assert (done["total"], done["left"], done["finished"]) == (12, 0, True)
        assert (
            "neither the newest (2) nor the next"
            in problem(await client.post("/v1/secret-keys", json={"generation": 9}), 409, "conflict")["detail"]
        )


async def test_a_process_with_a_wrong_key_says_what_to_do_and_no_more(api: httpx2.AsyncClient, stack: Stack) -> None:
    assert (await api.post("/v1/secrets", json={"name": "wrong-key", "value": CANARY})).status_code == 201
    wrong = stack.folder / "wrong-keys"
    wrong.write_text("this key never wrapped anything at all\n")
    process = stack.serve(HANSA_SECRETS_KEY_FILE=str(wrong))
    async with stack.client(process) as client:
        found = problem(await client.post("/v1/secrets", json={"name": "wrong-key", "value": CANARY}), 503, "secrets_refused")
        assert "is not in the file" in found["detail"]
        assert "Put back" in found["hint"]
        wrong.unlink()
        found = problem(await client.post("/v1/secrets", json={"name": "wrong-key", "value": CANARY}), 503, "secrets_away")
        assert found["retryable"] is True
        assert (await client.get("/v1/secrets/wrong-key")).json()["version"] == 1
    process.stop()
    assert CANARY not in process.log.read_text()
