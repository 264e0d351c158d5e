"""Reading an agent: what its status follows from is asked at once, and of model providers no more than those that offer what it names."""

from typing import Any

import httpx2
import msgspec

from hansa.apply.rollout import store
from hansa.db.pool import open_database
from hansa.tenants.service import tenant_id
from samples import SCRIPTED, agent
from stack import Stack

TENANT = "reading"
THERE = {"hansa-tenant": TENANT}


def provider(name: str, model: str, *aliases: str) -> dict[str, Any]:
    spec = {**SCRIPTED["spec"], "models": [{"name": model, "aliases": list(aliases)}]}
    return {**SCRIPTED, "metadata": {"name": name, "namespace": TENANT}, "spec": spec}


def reader(name: str, **model: Any) -> dict[str, Any]:
    made = agent(name, model=model)
    return {**made, "metadata": {**made["metadata"], "namespace": TENANT}}


async def apply(api: httpx2.AsyncClient, *manifests: dict[str, Any]) -> None:
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
    assert answer.json()["failed"] == 0, answer.text


async def around(stack: Stack, *names: str) -> tuple[set[str], list[str]]:
    """Agents that are told of, and providers that come with them."""
    async with open_database(stack.settings.database) as database, database.tenant(tenant_id(TENANT)) as connection:
        told = store.read(await store.told(connection, names))
    return {each.name for each in told.facts}, [each.metadata.name for each in told.around.providers]


async def test_providers_come_along_only_if_they_offer_what_is_named_or_nobody_does(stack: Stack, api: httpx2.AsyncClient) -> None:
    await apply(api, {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": TENANT}, "spec": {}})
    await apply(api, provider("one", "m", "quick"), provider("two", "m", "quick", "slow"), provider("three", "m"), provider("four", "n"))
    await apply(
        api,
        reader("by-alias", alias="slow"),
        reader("by-two", alias="quick", fallbacks=[{"ref": "three/m"}]),
        reader("by-ref", ref="four/n"),
    )
    for names, providers in (
        (("by-alias",), ["two"]),
        (("by-two",), ["one", "three", "two"]),
        (("by-ref", "nobody"), ["four"]),
        (("by-alias", "by-ref"), ["four", "two"]),
        (("nobody",), []),
    ):
        assert await around(stack, *names) == (set(names) - {"nobody"}, providers)
    one = (await api.get("/v1/agents/by-two", headers=THERE)).json()
    (same,) = [each for each in (await api.get("/v1/agents", headers=THERE)).json()["data"] if each["name"] == "by-two"]
    stored = (await api.get("/v1/objects/Agent/by-two", headers=THERE)).json()
    assert one == same
    assert one["status"] == stored["status"]
    assert {each["status"] for each in one["status"]["conditions"]} == {"True"}

    async with open_database(stack.settings.database) as database, database.tenant(tenant_id(TENANT)) as connection:
        # The API does not delete what is named; a row may be lost all the same.
        await connection.execute("DELETE FROM hansa.objects WHERE kind = 'ModelProvider' AND name = 'three'")
    assert await around(stack, "by-two", "by-ref") == ({"by-two", "by-ref"}, ["four", "one", "two"])
    conditions = (await api.get("/v1/agents/by-two", headers=THERE)).json()["status"]["conditions"]
    (resolved,) = [each for each in conditions if each["type"] == "ResolvedRefs"]
    assert (resolved["status"], resolved["reason"]) == ("False", "NotResolved")
    assert "no ModelProvider offers the model 'three/m'; offered: four/n, one/m, two/m" in resolved["message"]


async def test_a_manifest_that_a_newer_version_wrote_breaks_no_reading(stack: Stack, api: httpx2.AsyncClient) -> None:
    """Whatever stands in the place of a list or an object: the agent is shown, and said not to be understood."""
    tenant = tenant_id(TENANT)
    await apply(api, {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": TENANT}, "spec": {}})
    await apply(api, provider("one", "m", "quick"), reader("newer", alias="quick"))
    made = reader("newer", alias="quick")
    for spec in ({"model": "quick", "tools": {"a": 1}}, {"model": {"fallbacks": 7}, "tools": ["x"]}, {"model": None, "tools": None}, {}):
        text = msgspec.json.encode({**made, "spec": spec}).decode()
        async with open_database(stack.settings.database) as database, database.tenant(tenant) as connection:
            await connection.execute("UPDATE hansa.objects SET manifest = $1 WHERE tenant_id = $2 AND name = 'newer'", text, tenant)
        found = await api.get("/v1/agents/newer", headers=THERE)
        assert found.status_code == 200, found.text
        said = {each["type"]: each["reason"] for each in found.json()["status"]["conditions"]}
        assert said["Compatible"] == "NotUnderstood", (spec, said)
    await apply(api, reader("newer", alias="quick"))
