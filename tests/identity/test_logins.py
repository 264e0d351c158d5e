"""Who comes in with a token is in the tenant's audit trail, and who is refused there; however often either knocks."""

from typing import Any

from api.problem import problem
from audit.trails import trail
from identity.place import Town
from stack import Stack

Json = dict[str, Any]
VIEWER: Json = {"roles": ["viewer"], "users": ["corp:ada"]}


async def test_who_comes_in_is_told_once_and_who_is_refused_too(town: Town, stack: Stack) -> None:
    name = await town.make(VIEWER)
    for _ in range(3):
        assert (await town.ask(town.provider.mint(claims={"aud": name}, groups=["crew"]))).status_code == 200
    forged = town.provider.mint(claims={"aud": name}, by="stranger")
    for path in ("/v1/whoami", "/v1/runs", "/v1/agents", "/v1/agents/echo"):
        problem(await town.ask(forged, path), 401, "unauthenticated")
    for path in ("/v1/runs/1/cancel", "/v1/runs/2/cancel"):
        headers = {"authorization": f"Bearer {town.provider.mint(claims={'aud': name})}"}
        problem(await town.client.post(path, headers=headers), 403, "forbidden")
    problem(await town.ask(town.provider.mint(claims={"aud": name, "iss": "https://id.acme.example"})), 401, "unauthenticated")
    found = [each for each in await trail(stack, name) if not each["action"].startswith(("object.", "tenant."))]
    assert [(each["action"], each["actor"]["name"], each["outcome"]) for each in found] == [
        ("login.done", "user:corp:ada", "done"),
        ("login.refused", "issuer:corp", "refused"),
        ("access.refused", "user:corp:ada", "refused"),
    ]
    assert found[0]["actor"]["kind"] == "user"
    assert found[0]["after"] == {"groups": ["corp:crew"]}
    assert "signature" in found[1]["reason"]
    assert found[0]["origin"]["address"] == "127.0.0.1"
