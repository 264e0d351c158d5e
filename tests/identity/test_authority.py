"""An agent may never do more than whoever started its run, than its owner, than the roles that its tenant binds to it."""

import json
from collections.abc import Iterable
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.keys import bearer
from hansa.auth.api_keys import check_within
from hansa.auth.bindings import authority_of, bound_of, bound_to, places_of
from hansa.auth.model import IN_NAMESPACES, PERMISSIONS, ROLES, Bound, Principal, RolesIn, Starter, permissions_of
from hansa.errors import Forbidden
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


def binding(roles: list[Role], agents: list[str], namespaces: list[str]) -> RoleBinding:
    return RoleBinding(roles=tuple(roles), agents=tuple(agents), namespaces=tuple(namespaces))


PLACES = ("east", "west")
SAID = st.lists(st.sampled_from(["runs:start", "runs:start@east", "runs:start@west", "runs:start@gone"]), unique=True)
STARTERS = st.none() | st.builds(starter, st.none() | SAID)
AGENTS = st.lists(st.sampled_from(["a", "b"]), max_size=2)
WHERE = st.lists(st.sampled_from(PLACES), unique=True)
BINDINGS = st.lists(st.builds(binding, st.lists(st.sampled_from(get_args(Role)), min_size=1, max_size=3), AGENTS, WHERE), max_size=4)


def may(said: Iterable[str] | None, place: str) -> bool:
    """What words of an authority mean, the slow way."""
    return said is None or "runs:start" in said or f"runs:start@{place}" in said


def test_the_roles_that_a_tenant_can_bind_are_all_but_the_platforms_own() -> None:
    assert set(get_args(Role)) == ROLES.keys() - {"platform-admin", "reconciler"}


@given(STARTERS, STARTERS, BINDINGS)
def test_authority_only_shrinks_along_a_chain(caller: Starter | None, owner: Starter | None, bindings: list[RoleBinding]) -> None:
    first = authority_of(bound_of("a", bindings, owner), caller)
    second = authority_of(bound_of("b", bindings, None), Starter("agent:a", "agent", None, tuple(first)))
    named = [each for each in bindings if "a" in each.agents]
    for place in (*PLACES, "gone", "elsewhere"):
        here = [role for each in named if not each.namespaces or place in each.namespaces for role in each.roles]
        bound = not named or "runs:start" in permissions_of(here, None)
        limits = [None if each is None else each.may for each in (caller, owner)]
        assert may(first, place) == (bound and all(may(limit, place) for limit in limits)), place
        assert may(first, place) or not may(second, place), place
        places = places_of("runs:start", first)
        assert may(first, place) == (places is None or place in places)


@given(st.lists(st.sampled_from(sorted(ROLES)), max_size=2), WHERE, BINDINGS, st.none() | st.lists(st.sampled_from(sorted(PERMISSIONS))))
def test_a_binding_in_a_namespace_gives_what_is_of_a_namespace_and_there_only(
    own: list[str], where: list[str], bindings: list[RoleBinding], scopes: list[str] | None
) -> None:
    bound = bound_to([*bindings, RoleBinding(roles=("tenant-admin",), users=("u:x",), namespaces=tuple(where))], user="u:x")
    within = bound.within if where else ()
    caller = Principal(UUID(int=0), "t", "user:u:x", tuple(own), None if scopes is None else tuple(scopes), within=within)
    for permission in PERMISSIONS:
        everywhere = permission in permissions_of(own, scopes)
        reach = caller.reach(permission)
        assert (reach is None) == everywhere == caller.may(permission)
        if reach is not None:
            gives = permission in IN_NAMESPACES and (scopes is None or permission in scopes)
            assert reach == (frozenset(where) if gives else frozenset())
            assert not caller.may_in(permission, None)
    if "runs:start" not in permissions_of(own, scopes):
        allowed = scopes is None or "runs:start" in scopes
        assert caller.starter.may == (tuple(f"runs:start@{each}" for each in sorted(where)) if allowed else ())


def test_nobody_makes_a_key_that_may_more_in_a_namespace() -> None:
    maker = Principal(UUID(int=0), "t", "key:x", ("auditor",), within=(RolesIn("east", ("developer",)),))
    check_within(maker, Bound(("viewer",), (RolesIn("east", ("developer",)),)), None)
    check_within(maker, Bound((), (RolesIn("west", ("viewer", "auditor")),)), None)
    for beyond in (Bound(("developer",)), Bound((), (RolesIn("west", ("developer",)),)), Bound((), (RolesIn("east", ("tenant-admin",)),))):
        with pytest.raises(Forbidden, match=r"may not .*objects:"):
            check_within(maker, beyond, None)
    check_within(maker, Bound((), (RolesIn("west", ("developer",)),)), ["runs:read"])
