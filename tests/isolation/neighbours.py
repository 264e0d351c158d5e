"""Questions to a running platform, asked by one whose roles hold in one namespace of a tenant, about what is in another namespace of it."""

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import msgspec

from api.keys import bearer
from hansa import ids
from hansa.auth.model import ROLES
from isolation.probes import Probes
from routes import BODIES, GUARDED, OWNED, Place, call, nowhere, path_of
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client

Json = dict[str, Any]
Headers = dict[str, str]
HUSH = "hush-of-the-east"
HUSHED = "hushed"
"""What the neighbours must never read; the second is the name of a model."""
ENDLESS_SECONDS = 5.0
AT_ONCE = 8
ASKING = [{"plugin": "tools", "allow": ["clock"], "requireApproval": ["clock"]}]
CALL_CLOCK = f"#script {json.dumps([{'tool_calls': [{'name': 'clock', 'arguments': {}}]}, {'text': HUSH}])}"


class House(msgspec.Struct, frozen=True):
    """A tenant with namespaces east and west. `owner`: may all in the tenant; `bound`: keys by role and namespace, as `viewer@west`."""

    url: str
    name: str
    owner: Headers
    bound: Mapping[str, Headers]
    victim: Place

    @property
    def east(self) -> str:
        return f"{self.name}-east"

    @property
    def west(self) -> str:
        return f"{self.name}-west"

    @property
    def words(self) -> tuple[str, ...]:
        """What would betray what is in the east."""
        victim = self.victim
        return (*(str(each) for each in (victim.run_id, victim.session_id, victim.approval_id)), victim.name, HUSH, HUSHED)


def manifest(kind: Json, namespace: str, name: str = "") -> Json:
    """An object in a namespace."""
    return {**kind, "metadata": {"name": name or kind["metadata"]["name"], "namespace": namespace}}


def tenant(name: str, roles: Sequence[str], *more: Json) -> Json:
    """The Tenant, which binds every role in both namespaces."""
    places = [(role, side) for role in roles for side in ("east", "west")]
    bindings = [{"roles": [role], "serviceAccounts": [f"{role}-{side}"], "namespaces": [f"{name}-{side}"]} for role, side in places]
    spec = {"namespaces": [f"{name}-east", f"{name}-west"], "identity": {"roleBindings": [*bindings, *more]}}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


async def applied(client: httpx2.AsyncClient, *manifests: Json, **more: Any) -> list[Json]:
    """What became of objects."""
    answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests], **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


async def build(stack: Stack, process: Process, *, roles: Sequence[str] = ("tenant-admin", "viewer")) -> House:
    """Make such a tenant, with an agent and all that comes of one in its east."""
    name = f"house-{ids.new_id().hex[-8:]}"
    owner = {"authorization": f"Bearer {stack.key}", "hansa-tenant": name}
    async with stack.client(process) as platform:
        (made,) = await applied(platform, tenant(name, roles))
        assert made["action"] == "created", made
    async with plain_client(process.url, headers=owner) as client:
        bound = await keys_of(client, roles)
        victim = await _settle(client, name)
    return House(process.url, name, owner, bound, victim)


async def keys_of(client: httpx2.AsyncClient, roles: Sequence[str]) -> dict[str, Headers]:
    """Keys of service accounts that have what `tenant` binds and nothing else, as `viewer@west`."""
    bound: dict[str, Headers] = {}
    for role, side in itertools.product(roles, ("east", "west")):
        account = f"{role}-{side}"
        assert (await client.post("/v1/service-accounts", json={"name": account})).status_code == 201
        key = await client.post("/v1/api-keys", json={"name": account, "service_account": account})
        assert key.status_code == 201, key.text
        bound[f"{role}@{side}"] = bearer(key.json()["key"])
    return bound


async def _settle(client: httpx2.AsyncClient, name: str) -> Place:
    east, lodger = f"{name}-east", f"lodger-{name}"
    spec = {"plugin": "scripted", "models": [{"name": "echo", "aliases": [HUSHED]}]}
    lodging = agent(lodger, tools=ASKING, description=HUSH, model={"alias": HUSHED})
    results = await applied(client, manifest({**SCRIPTED, "spec": spec}, east, HUSHED), manifest(lodging, east))
    assert {each["action"] for each in results} == {"created"}, results
    done = (await client.post(f"/v1/agents/{lodger}/runs", params={"wait": 20}, json={"input": HUSH})).json()
    assert done["state"] == "completed", done
    asking = (await client.post(f"/v1/agents/{lodger}/runs", json={"input": CALL_CLOCK})).json()
    async with asyncio.timeout(20):
        while not (waits := (await client.get(f"/v1/runs/{asking['id']}")).json()["waits"]):
            await asyncio.sleep(0.05)
    assert (await client.put(f"/v1/sources/{lodger}", json=BODIES["put_source"])).status_code == 200
    found = {"run_id": done["id"], "session_id": done["session_id"], "approval_id": waits[0]["key"]}
    return msgspec.structs.replace(nowhere(), name=lodger, source_id=lodger, **found)


async def ask_neighbours(house: House, probes: Probes, *, side: str = "west") -> None:
    """Every route, by those whose roles hold in one namespace, about what is in the east."""
    before, gate = await _state(house), asyncio.Semaphore(AT_ONCE)
    assert all(text.startswith("200 ") for text in before.values()), before

    async def ask(method: str, handler: Any, role: str, headers: Headers) -> None:
        what, permission = f"{method} {path_of(handler)} by a {role} in the {side}", handler.opt["permission"]
        async with gate:
            try:
                asked = call(house.url, method, handler, at=house.victim, headers=headers)
                foreign = await asyncio.wait_for(asked, ENDLESS_SECONDS)
            except TimeoutError:
                probes.expect("neighbours", what, holds=False, told="a stream that goes on")
                return
            probes.answer("neighbours", what, foreign)
            if "within" not in handler.opt or permission not in ROLES[role]:
                probes.expect("neighbours", what, holds=foreign.status_code == 403, told=f"{foreign.status_code} {foreign.text}")
            elif (method, handler) in OWNED:
                missing = nowhere()
                nothing = await call(house.url, method, handler, at=missing, headers=headers)
                probes.alike("neighbours", what, (foreign, house.victim), (nothing, missing))
            else:  # a source of which the tenant's own tell is theirs
                wanted = 409 if method == "PUT" else 200
                probes.expect("neighbours", what, holds=foreign.status_code == wanted, told=f"{foreign.status_code} {foreign.text}")

    for verb in ("GET", "POST", "PUT", "DELETE"):
        routes = [handler for method, handler in GUARDED if method == verb]
        asking = [(role, headers) for who, headers in house.bound.items() for role, _, at in [who.partition("@")] if at == side]
        await asyncio.gather(*(ask(verb, handler, role, headers) for handler in routes for role, headers in asking))
    async with plain_client(house.url, headers=house.bound[f"tenant-admin@{side}"]) as client:
        await _lists(house, client, probes)
        await _objects(house, client, probes)
    after = await _state(house)
    for what, text in before.items():
        probes.expect("unchanged", what, holds=after[what] == text, told=f"{text} became {after[what]}")


async def _state(house: House) -> dict[str, str]:
    """What the tenant's own see of what is in the east."""
    victim = house.victim
    paths = [
        f"/v1/objects/Agent/{victim.name}",
        f"/v1/agents/{victim.name}/revisions",
        f"/v1/runs/{victim.run_id}",
        f"/v1/sessions/{victim.session_id}/events",
        f"/v1/approvals/{victim.approval_id}",
    ]
    async with plain_client(house.url, headers=house.owner) as client:
        answers = [await client.get(path) for path in paths]
        sources = (await client.get("/v1/sources")).json()["data"]
    kept = {"/v1/sources": f"200 {[each for each in sources if each['id'] == victim.source_id]}"}
    return kept | {path: f"{each.status_code} {each.text}" for path, each in zip(paths, answers, strict=True)}


async def _lists(house: House, client: httpx2.AsyncClient, probes: Probes) -> None:
    """Lists with filters that name what is in the east."""
    victim, none = house.victim, nowhere()
    asked = [
        ("/v1/runs", {"agent": victim.name}, {"agent": none.name}),
        ("/v1/runs", {"session_id": str(victim.session_id)}, {"session_id": str(none.session_id)}),
        ("/v1/sessions", {"agent": victim.name}, {"agent": none.name}),
        ("/v1/objects", {"namespace": house.east}, {"namespace": none.name}),
        ("/v1/objects", {"kind": "Agent", "namespace": house.east}, {"kind": "Agent", "namespace": none.name}),
        ("/v1/objects", {"kind": "Tenant"}, {"kind": "Region"}),
        ("/v1/objects", {"namespace": "*", "manager": "rest", "origin": ""}, {"namespace": "*", "manager": "rest", "origin": "none"}),
        ("/v1/approvals", {"state": "pending"}, {"state": "expired"}),
    ]
    for path, foreign, missing in asked:
        found, nothing = await client.get(path, params=foreign), await client.get(path, params=missing)
        probes.answer("neighbours", f"GET {path} {foreign}", found)
        holds = found.status_code == 200 and found.text == nothing.text
        probes.expect("neighbours", f"GET {path} {foreign}", holds=holds, told=f"{found.text} {nothing.text}")


async def _objects(house: House, client: httpx2.AsyncClient, probes: Probes) -> None:
    """Applying, planning and deleting what is in the east, or would be."""
    victim, west = house.victim.name, house.west
    over = [manifest(agent(victim), each) for each in (house.east, west, house.name)]
    free = manifest(agent("free"), house.east)
    wrong = manifest(agent("wrong", model={"alias": "no-such-model"}), west)
    borrowed = manifest(agent("borrowed", tools=[{"toolServer": "no-such-server"}]), west)
    names = [{"kind": "Agent", "name": victim, **more} for more in ({}, {"namespace": house.east})]
    for force, each in itertools.product((False, True), (*over, free, wrong, borrowed)):
        for verb, more in (("apply", {}), ("plan", {"delete": names})):
            what = f"{verb} {each['metadata']}, force {force}"
            found = await client.post(f"/v1/objects:{verb}", json={"objects": [{"manifest": each}], "force": force, **more})
            _answered(probes, what, found)
            failed = [each["action"] in ("failed", "absent") for each in found.json().get("results", [])]
            probes.expect("neighbours", what, holds=bool(failed) and all(failed), told=found.text)
    found = await client.post("/v1/objects:delete", json={"objects": names, "allow_mass_delete": True})
    _answered(probes, "delete", found)
    told = [each["action"] for each in found.json()["results"]]
    probes.expect("neighbours", "delete", holds=told == ["absent", "failed"], told=found.text)


def _answered(probes: Probes, what: str, found: httpx2.Response) -> None:
    probes.expect("neighbours", what, holds=found.status_code == 200, told=found.text)
    for word in (HUSH, HUSHED, "key:", "service:", "people"):  # neither what it says nor whose it is
        probes.expect("neighbours", f"{what} does not say {word!r}", holds=word not in found.text, told=found.text)
