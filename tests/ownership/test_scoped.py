"""A key that has one permission in the whole tenant does with it all that the permission says, whatever it may not read."""

import httpx2
import pytest

from api.problem import problem
from ownership.asking import actions, apply, delete, error, git, stored
from ownership.test_sources import heading, told
from samples import agent
from stack import Process, plain_client


async def scoped(api: httpx2.AsyncClient, name: str, *scopes: str) -> dict[str, str]:
    return heading(await api.post("/v1/api-keys", json={"name": name, "roles": ["tenant-admin"], "scopes": scopes}))


@pytest.fixture
def url(control_plane: Process) -> str:
    return control_plane.url


async def test_who_may_only_start_runs_is_told_how_its_run_ended(api: httpx2.AsyncClient, url: str, name: str) -> None:
    await apply(api, agent(name))
    async with plain_client(url, headers=await scoped(api, name, "runs:start")) as starter:
        answer = await starter.post(f"/v1/agents/{name}/runs", params={"wait": 20}, json={"input": "hello"})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["state"], answer.json()["output"]) == ("completed", "hello")
        problem(await starter.get(f"/v1/runs/{answer.json()['id']}"), 403, "forbidden")


async def test_who_may_only_write_objects_applies_and_deletes_them(api: httpx2.AsyncClient, url: str, name: str) -> None:
    async with plain_client(url, headers=await scoped(api, name, "objects:write")) as writer:
        assert actions(await apply(writer, agent(name))) == ["created"]
        assert "offered: " in error((await apply(writer, agent(name, model={"alias": "gone"})))[0])["message"]
        assert actions(await delete(writer, ("Agent", name))) == ["deleted"]
        problem(await api.get(f"/v1/agents/{name}"), 404, "not_found")


async def test_who_may_only_take_objects_over_is_shown_what_it_took(api: httpx2.AsyncClient, url: str, name: str) -> None:
    await apply(api, agent(name))
    owner = {key: git(name)[key] for key in ("manager", "origin")}
    async with plain_client(url, headers=await scoped(api, name, "objects:takeover")) as taker:
        taken = await taker.post(f"/v1/objects/Agent/{name}/takeover", json=owner)
        assert (taken.status_code, taken.json()) == (200, await stored(api, "Agent", name)), taken.text
        problem(await taker.post(f"/v1/objects/Agent/{name}-gone/takeover", json=owner), 404, "not_found")


async def test_who_reads_no_sources_is_told_whose_one_is_and_may_forget_it(api: httpx2.AsyncClient, url: str, name: str) -> None:
    owner = (await api.put(f"/v1/sources/{name}", json=told(name))).json()["owner"]
    async with plain_client(url, headers=await scoped(api, name, "objects:write")) as writer:
        for refused in (await writer.put(f"/v1/sources/{name}", json=told(name, 9)), await writer.delete(f"/v1/sources/{name}")):
            assert owner in problem(refused, 409, "conflict")["detail"]
    async with plain_client(url, headers=await scoped(api, name, "objects:write", "objects:takeover")) as taker:
        assert (await taker.delete(f"/v1/sources/{name}")).status_code == 204
