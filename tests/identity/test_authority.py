"""An agent may never do more than whoever started its run, than its owner, than the roles that its tenant binds to it."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.keys import bearer
from hansa.auth.bindings import authority_of, bound_of
from hansa.auth.model import IN_RUNS, ROLES, Starter, permissions_of
from hansa_crds import RoleBinding
from hansa_crds.identity import Role
from identity.place import Town, issuer, tenant
from samples import agent
from stack import Process

Json = dict[str, Any]


def calling(name: str, said: Any) -> str:
    """What makes the scripted model call an agent and then say what came of it."""
    turns = [{"tool_calls": [{"name": name, "arguments": {"input": said}}]}, {"text": "done"}]
    return "#script " + json.dumps(turns)


class Crew:
    """Agents `front`, which may call `middle`, which may call `leaf`, in a tenant of their own."""

    def __init__(self, town: Town, name: str) -> None:
        self.town = town
        self.name = name
        self.here = {"hansa-tenant": name}

    async def applied(self, headers: dict[str, str] | None = None) -> list[Json]:
        manifests = [agent("leaf"), agent("middle", tools=[{"agent": "leaf"}]), agent("front", tools=[{"agent": "middle"}])]
        answer = await self.town.client.post(
            "/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]}, headers=headers or self.here
        )
        return answer.json()["results"]

    async def bind(self, *bindings: Json) -> None:
        (found,) = await self.town.apply(tenant(self.name, issuer(self.town.provider, self.name), bindings=list(bindings)))
        assert found["action"] in ("configured", "unchanged"), found

    async def told(self, said: str) -> str:
        """What `front` was told of its call."""
        answer = await self.town.client.post("/v1/agents/front/runs", params={"wait": 20}, json={"input": said}, headers=self.here)
        assert answer.json()["state"] == "completed", answer.text
        return await self._outcome(answer.json()["session_id"])

    async def told_middle(self) -> str:
        """What `middle` was told, last."""
        (run,) = (await self.town.client.get("/v1/runs", params={"agent": "middle", "limit": 1}, headers=self.here)).json()["data"]
        return await self._outcome(run["session_id"])

    async def runs_of(self, name: str) -> int:
        return len((await self.town.client.get("/v1/runs", params={"agent": name}, headers=self.here)).json()["data"])

    async def _outcome(self, session: str) -> str:
        events = (await self.town.client.get(f"/v1/sessions/{session}/events", headers=self.here)).json()["data"]
        (told,) = [event["data"] for event in events if event["type"] in ("tool.completed", "run.returned")]
        return str(told.get("content", told.get("output")))


@pytest.fixture
async def crew(town: Town, shared_worker: Process) -> Crew:
    assert shared_worker.alive
    found = Crew(town, await town.make())
    assert {each["action"] for each in await found.applied()} == {"created"}
    return found


async def test_an_agent_that_is_bound_to_less_calls_nobody(crew: Crew) -> None:
    assert await crew.told(calling("middle", calling("leaf", "hi"))) == "done"
    assert (await crew.told_middle(), await crew.runs_of("leaf")) == ("hi", 1)
    await crew.bind({"roles": ["viewer"], "agents": ["front"]})
    refused = await crew.told(calling("middle", "hi"))
    assert "'front' may not call agents" in refused
    assert "runs:start" in refused
    assert await crew.runs_of("middle") == 1
    await crew.bind({"roles": ["viewer"], "agents": ["front"]}, {"roles": ["operator"], "agents": ["front", "leaf"]})
    assert await crew.told(calling("middle", "hi")) == "hi"


async def test_an_agent_that_is_called_is_bound_too(crew: Crew) -> None:
    await crew.bind({"roles": ["viewer"], "agents": ["middle"]}, {"roles": ["tenant-admin"], "agents": ["front"]})
    assert await crew.told(calling("middle", calling("leaf", "hi"))) == "done"
    assert "'middle' may not call agents" in await crew.told_middle()
    assert await crew.runs_of("leaf") == 0


async def test_an_agent_is_never_more_than_its_owner(crew: Crew, town: Town) -> None:
    asked = {"name": "deploys", "roles": ["developer"], "scopes": ["objects:write", "objects:read"]}
    key = (await town.client.post("/v1/api-keys", json=asked, headers=crew.here)).json()["key"]
    notes = {each["name"]: each.get("note", "") for each in await crew.applied(bearer(key))}
    assert ("runs:start" in notes["front"], notes["leaf"]) == (True, "")
    assert "'front' may not call agents" in await crew.told(calling("middle", "hi"))
    await crew.applied()  # by one who may
    assert await crew.told(calling("middle", "hi")) == "hi"


async def test_a_child_has_what_its_caller_handed_on(crew: Crew, town: Town) -> None:
    await crew.told(calling("middle", "hi"))
    (run,) = (await town.client.get("/v1/runs", params={"agent": "middle"}, headers=crew.here)).json()["data"]
    assert run["started_by"] == {"name": "agent:front", "kind": "agent", "may": ["runs:start"]}


def starter(may: list[str] | None) -> Starter:
    return Starter("x", "user", None, None if may is None else tuple(may))


def binding(roles: list[Role], agents: list[str]) -> RoleBinding:
    return RoleBinding(roles=tuple(roles), agents=tuple(agents))


STARTERS = st.none() | st.builds(starter, st.none() | st.lists(st.sampled_from(sorted(IN_RUNS)), unique=True))
AGENTS = st.lists(st.sampled_from(["a", "b"]), max_size=2)
BINDINGS = st.lists(st.builds(binding, st.lists(st.sampled_from(get_args(Role)), min_size=1, max_size=3), AGENTS), max_size=4)


def test_the_roles_that_a_tenant_can_bind_are_all_but_the_platforms_own() -> None:
    assert set(get_args(Role)) == ROLES.keys() - {"platform-admin", "reconciler"}


@given(STARTERS, STARTERS, BINDINGS)
def test_authority_only_shrinks_along_a_chain(caller: Starter | None, owner: Starter | None, bindings: list[RoleBinding]) -> None:
    first = authority_of(bound_of("a", bindings, owner), caller)
    second = authority_of(bound_of("b", bindings, None), Starter("agent:a", "agent", None, tuple(first)))
    assert second <= first <= IN_RUNS
    for limit in (caller, owner):
        assert limit is None or limit.may is None or first <= set(limit.may)
    named = [each.roles for each in bindings if "a" in each.agents]
    assert not named or first <= permissions_of((role for roles in named for role in roles), None)
