"""What runs may do, and who sees what came of them, where roles are bound in single namespaces of a tenant."""

import asyncio
from typing import Any

import httpx2
import pytest

from api.problem import problem
from api.sse import opened
from hansa import ids
from hansa.db.pool import open_database
from hansa.runs.admitting.store import LOOKED
from hansa.runs.worlds import find_world
from hansa.tenants.service import tenant_id
from isolation.neighbours import Headers, applied, keys_of, manifest, tenant
from runs.engine import Engine, until
from samples import SCRIPTED, agent
from stack import Process, plain_client

Json = dict[str, Any]
ROLES = ("developer", "viewer")
STEPS: Json = {"runtime": {"name": "steps"}}
CALLS = [["call", "near", [["sleep", 0]]], ["call", "far", [["sleep", 0]]]]


class Place:
    """A tenant with agents `near` and `caller` in its west and `far` in its east."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.east, self.west = f"{name}-east", f"{name}-west"
        self.owner: Headers = {"authorization": f"Bearer {engine.stack.key}", "hansa-tenant": name}
        self.bound: dict[str, Headers] = {}

    def client(self, who: str = "") -> httpx2.AsyncClient:
        """Of one who may all, or who has a role somewhere, as `viewer@west`."""
        return plain_client(self.engine.control_plane.url, headers=self.bound[who] if who else self.owner)

    async def bind(self, *more: Json, roles: tuple[str, ...] = ROLES) -> None:
        async with self.engine.client() as platform:
            (found,) = await applied(platform, tenant(self.name, roles, *more))
        assert found["action"] in ("created", "configured"), found

    async def apply(self, *manifests: Json, who: str = "") -> list[Json]:
        async with self.client(who) as client:
            return await applied(client, *manifests)

    @property
    def caller(self) -> Json:
        return manifest(agent("caller", tools=[{"agent": "near"}, {"agent": "far"}], **STEPS), self.west)

    async def run(self, name: str, steps: Any, *, who: str = "") -> Json:
        async with self.client(who) as client:
            answer = await client.post(f"/v1/agents/{name}/runs", params={"wait": 20}, json={"input": steps})
        assert answer.json()["state"] == "completed", answer.text
        return answer.json()

    async def known_to(self, name: str, revision: int) -> list[str]:
        """The agents of which its model is told."""
        async with open_database(self.engine.stack.settings.database) as database, database.tenant(tenant_id(self.name)) as connection:
            return [each.name for each in (await find_world(connection, name, revision)).agents]

    async def runs_of(self, name: str) -> list[Json]:
        async with self.client() as client:
            return (await client.get("/v1/runs", params={"agent": name})).json()["data"]


@pytest.fixture
async def place(engine: Engine, steady: Process) -> Place:
    assert steady.alive
    found = Place(engine, f"rooms-{ids.new_id().hex[-8:]}")
    await found.bind()
    async with found.client() as client:
        found.bound |= await keys_of(client, ROLES)
    sides = [manifest({**SCRIPTED, "spec": {**SCRIPTED["spec"]}}, found.west), manifest(agent("near", **STEPS), found.west)]
    results = await found.apply(*sides, manifest(agent("far", **STEPS), found.east), found.caller)
    assert {each["action"] for each in results} == {"created"}, results
    return found


def refused(run: Json, place: Place) -> bool:
    """Whether the run called `near`, and was told why it may not call `far`."""
    near, far = run["output"]
    assert near == ["slept"], run
    return "stands in a namespace in which this run may not call agents" in str(far) and f"no further than {place.west}," in str(far)


async def test_a_run_calls_agents_only_where_whoever_started_it_may(place: Place) -> None:
    assert (await place.run("caller", CALLS))["output"] == [["slept"], ["slept"]]
    run = await place.run("caller", CALLS, who="developer@west")
    assert refused(run, place)
    assert run["started_by"]["may"] == [f"runs:start@{place.west}"]
    assert len(await place.runs_of("far")) == 1
    assert (await place.runs_of("near"))[0]["started_by"]["may"] == [f"runs:start@{place.west}"], "it is handed on as it is"


async def test_a_run_calls_agents_only_where_whoever_applied_its_agent_may(place: Place) -> None:
    async with place.client() as client:
        assert (await client.delete("/v1/agents/caller")).status_code == 204
    (found,) = await place.apply(place.caller, who="developer@west")
    assert (found["action"], found["note"].split(": ")[-1]) == ("created", place.west)
    assert refused(await place.run("caller", CALLS), place)
    assert await place.known_to("caller", found["revision"]) == ["near"], "what the others are there for is none of its business"
    await place.apply(place.caller)
    assert await place.known_to("caller", found["revision"]) == ["far", "near"]
    assert (await place.run("caller", CALLS))["output"] == [["slept"], ["slept"]]


async def test_a_run_calls_agents_only_where_its_agent_is_bound(place: Place) -> None:
    await place.bind({"roles": ["operator"], "agents": ["caller"], "namespaces": [place.west]})
    assert refused(await place.run("caller", CALLS), place)
    await place.bind({"roles": ["viewer"], "agents": ["caller"], "namespaces": [place.east, place.west]})
    assert "may not call agents" in str((await place.run("caller", CALLS))["output"])


async def test_an_event_is_heard_only_where_whoever_published_it_may(place: Place) -> None:
    async with place.client() as client:
        waiting = [
            (await client.post(f"/v1/agents/{name}/runs", json={"input": [["event", "news", None]]})).json() for name in ("near", "far")
        ]

        async def state(run: Json) -> str:
            return (await client.get(f"/v1/runs/{run['id']}")).json()["state"]

        async def all_wait() -> bool:
            return [await state(each) for each in waiting] == ["waiting"] * 2

        await until(all_wait, "both wait")
        assert (await place.run("caller", [["publish", "news", 1]], who="developer@west"))["output"] == ["published"]

        async def heard() -> bool:
            return await state(waiting[0]) == "completed"

        await until(heard, "the one in the west has heard it")
        assert await state(waiting[1]) == "waiting"
        await place.run("caller", [["publish", "news", 2]])

        async def heard_too() -> bool:
            return await state(waiting[1]) == "completed"

        await until(heard_too, "everybody hears one who may everywhere")
        assert (await client.get(f"/v1/runs/{waiting[1]['id']}")).json()["output"] == [2]


async def test_an_agent_that_is_made_anew_elsewhere_shows_nobody_there_what_it_did_before(place: Place) -> None:
    run = await place.run("near", [["sleep", 0]])
    async with place.client() as client:
        assert (await client.delete("/v1/agents/near")).status_code == 204
    assert (await place.apply(manifest(agent("near", **STEPS), place.east)))[0]["revision"] == 2, "alike, and another one's past"
    session, runs = f"/v1/sessions/{run['session_id']}", "/v1/agents/near/runs"
    async with place.client("developer@east") as east, place.client("developer@west") as west:
        assert [each["name"] for each in (await east.get("/v1/agents")).json()["data"]] == ["far", "near"]
        assert [each["revision"] for each in (await east.get("/v1/agents/near/revisions")).json()["data"]] == [2]
        for path in (f"/v1/runs/{run['id']}", f"{session}/events", f"{session}/export", f"/v1/runs/{run['id']}/replay"):
            problem(await east.get(path), 404, "not_found")
            assert (await west.get(path)).status_code == 200, path
        assert (await east.get("/v1/runs", params={"agent": "near"})).json()["data"] == []
        past: list[Json] = [{"revision": 1}, {"session_id": run["session_id"]}]
        for more in past:
            problem(await east.post(runs, json={"input": [], **more}), 404, "not_found")
        assert (await east.post(runs, json={"input": []}, params={"wait": 20})).json()["output"] == []
        # Who saw it before still does, and starts nothing of it any more.
        assert [each["id"] for each in (await west.get("/v1/runs", params={"agent": "near"})).json()["data"]] == [run["id"]]
        problem(await west.get("/v1/agents/near"), 404, "not_found")
        problem(await west.post(f"{session}/events", json={"type": "user.message", "content": []}), 404, "not_found")
        problem(await west.post(f"/v1/runs/{run['id']}/fork", json={"at": 1}), 404, "not_found")


async def test_a_session_whose_namespace_nobody_knows_is_seen_by_those_of_the_whole_tenant(place: Place) -> None:
    run = await place.run("near", [["sleep", 0]])
    sql = "UPDATE hansa.sessions SET namespace = NULL WHERE tenant_id = $1 AND id = $2"
    await place.engine.fetch(sql, tenant_id(place.name), run["session_id"])
    async with place.client("developer@west") as west, place.client() as owner:
        problem(await west.get(f"/v1/runs/{run['id']}"), 404, "not_found")
        assert (await west.get("/v1/sessions")).json()["data"] == []
        assert (await owner.get(f"/v1/runs/{run['id']}")).status_code == 200


async def test_one_who_may_see_is_told_what_else_it_needs(place: Place) -> None:
    run = await place.run("near", [["sleep", 0]])
    both = [{"roles": ["developer"], "serviceAccounts": ["viewer-east"], "namespaces": [place.east]}]
    await place.bind(*both, {"roles": ["viewer"], "serviceAccounts": ["viewer-east"], "namespaces": [place.west]})
    async with place.client("viewer@east") as client:
        assert (await client.get(f"/v1/runs/{run['id']}")).status_code == 200
        told = problem(await client.post(f"/v1/runs/{run['id']}/cancel", json={}), 403, "forbidden")
        assert f"needs the permission runs:cancel in the namespace '{place.west}'" in told["detail"]
        refused = problem(await client.delete("/v1/agents/near"), 403, "forbidden")
        assert "needs the permission objects:write there, which you have in" in refused["detail"]
        assert place.east in refused["detail"]


async def test_a_stream_ends_soon_after_the_binding_is_taken_away(place: Place) -> None:
    run = await place.run("near", [["sleep", 0]])
    async with place.client("viewer@west") as client, opened(client, run["session_id"]) as reader:
        await reader.until("run.completed")
        await place.bind(roles=())
        problem(await client.get(f"/v1/runs/{run['id']}"), 403, "forbidden")
        assert all(not each.type for each in await reader.rest(seconds=15)), "nothing comes but the end"


async def test_of_two_who_want_one_name_in_two_namespaces_one_has_it(place: Place) -> None:
    async def wanted(who: str, namespace: str, name: str) -> Json:
        (found,) = await place.apply(manifest(agent(name, model={"alias": "scripted"}, **STEPS), namespace), who=who)
        return found

    models = [manifest({**SCRIPTED, "metadata": {"name": "scripted-east"}}, place.east)]
    assert (await place.apply(*models, who="developer@east"))[0]["action"] == "created"
    for number in range(6):
        name = f"wanted-{number}"
        found = await asyncio.gather(wanted("developer@east", place.east, name), wanted("developer@west", place.west, name))
        assert sorted(each["action"] for each in found) == ["created", "failed"], found
        (lost,) = [each for each in found if each["action"] == "failed"]
        (error,) = lost["errors"]
        assert (error["code"], f"the name '{name}' is not free" in error["message"]) == ("conflict", True), error
        assert place.name not in error["message"], "it is not said where it stands, nor whose it is"


async def test_what_others_have_is_not_there_to_be_referred_to(place: Place) -> None:
    (found,) = await place.apply(manifest(agent("lost", **STEPS), place.east), who="developer@east")
    (error,) = found["errors"]
    assert (error["path"], error["code"]) == ("spec.model.alias", "reference")
    assert "offered: none" in error["message"]
    async with place.client("viewer@east") as client:
        assert (await client.get("/v1/models")).json()["data"] == []


async def test_of_an_agent_that_is_made_anew_elsewhere_a_fork_tells_nothing(place: Place) -> None:
    run = await place.run("near", [["sleep", 0]])
    async with place.client() as owner, place.client("developer@west") as west:
        assert (await owner.delete("/v1/agents/near")).status_code == 204

        async def told() -> Json:
            return problem(await west.post(f"/v1/runs/{run['id']}/fork", json={"at": 1}), 404, "not_found")

        missing = (await told())["detail"]
        for held in (False, True):
            assert (await place.apply(manifest(agent("near", suspend=held, **STEPS), place.east)))[0]["action"] != "failed"
            assert (await told())["detail"] == missing


async def test_whoever_makes_an_agent_anew_bounds_all_its_revisions(place: Place) -> None:
    """Also those of before, in which sessions go on, and while the new one is being checked."""
    async with place.client() as owner, place.client("developer@west") as west:
        before = await owner.post("/v1/agents/caller/runs", params={"wait": 20}, json={"input": CALLS})
        assert before.json()["output"] == [["slept"], ["slept"]]
        assert (await west.delete("/v1/agents/caller")).status_code == 204
        checked = {**place.caller["spec"], "rollout": {"smoke": {"input": [["sleep", 3600]]}}}
        assert (await place.apply({**place.caller, "spec": checked}, who="developer@west"))[0]["action"] == "created"
        session = {"session_id": before.json()["session_id"]}
        run = (await owner.post("/v1/agents/caller/runs", params={"wait": 20}, json={"input": CALLS, **session})).json()
    assert run["revision"] == 1
    assert refused(run, place), "who is asked has more, whoever made the agent has not"


async def test_lists_go_through_a_bounded_part_of_what_others_have(place: Place) -> None:
    """However many they are: pages go on where the last one has ended its look, and none that is empty is said to be the end."""
    mine = [(await place.run("near", [["sleep", 0]]))["id"] for _ in range(3)]
    tenant, many = tenant_id(place.name), 2 * LOOKED + 5
    fill = [
        "INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, revision, namespace) SELECT $1,"
        " ('ff' || substr(md5(n::text), 1, 30))::uuid, 'far', 1, 1, 1, $2 FROM generate_series(1, $3::integer) n",
        "INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, input)"
        " SELECT tenant_id, id, id, 1, 'far', 1, 'completed', '1' FROM hansa.sessions WHERE tenant_id = $1 AND namespace = $2 AND $3 > 0",
        "INSERT INTO hansa.approvals (tenant_id, id, run_id, step, kind, subject) SELECT tenant_id, id, id, '1', 'question', '{}'"
        " FROM hansa.runs WHERE tenant_id = $1 AND agent = 'far' AND $2 <> '' AND $3 > 0",
        "INSERT INTO hansa.approvals (tenant_id, id, run_id, step, kind, subject) SELECT tenant_id, id, id, '1', 'question', '{}'"
        " FROM hansa.runs WHERE tenant_id = $1 AND agent = 'near' AND $2 <> '' AND $3 > 0",
    ]
    for sql in fill:
        await place.engine.fetch(sql, tenant, place.east, many)

    async def walk(client: httpx2.AsyncClient, path: str, **query: Any) -> tuple[list[str], list[int]]:
        found, sizes = list[str](), list[int]()
        while True:
            page = (await client.get(path, params={"limit": 2, **query})).json()
            found += [each["id"] for each in page["data"]]
            sizes.append(len(page["data"]))
            assert page["has_more"] == (page["next"] is not None)
            if not page["has_more"]:
                return found, sizes
            query["after"] = page["next"]

    async with place.client("viewer@west") as west, place.client("viewer@east") as east:
        for path in ("/v1/runs", "/v1/approvals", "/v1/sessions"):
            found, sizes = await walk(west, path)
            assert len(found) == len(set(found)) == 3, (path, sizes)
            assert path == "/v1/sessions" or found == mine[::-1]
            assert sizes == [0, 0, 2, 1], "two looks at what is nothing to this one"
            first = (await east.get(path, params={"limit": 2})).json()
            assert (len(first["data"]), first["has_more"]) == (2, True)
        assert await walk(west, "/v1/runs", agent="far") == ([], [0, 0, 0])
        assert await walk(west, "/v1/approvals", state="pending") == (mine[::-1], [0, 0, 2, 1])
        assert await walk(west, "/v1/runs", agent="near") == (mine[::-1], [2, 1])
