"""Applying objects: each by itself, in any order, with the place of every flaw and nothing done twice."""

import asyncio
from typing import Any

import httpx2
import pytest

from api.problem import problem
from hansa import ids
from samples import SCRIPTED, agent
from stack import Stack

Item = dict[str, Any]


@pytest.fixture
def name() -> str:
    """A name that nobody has used."""
    return f"a-{ids.new_id().hex[-8:]}"


def provider(name: str, alias: str) -> Item:
    return {**SCRIPTED, "metadata": {"name": name}, "spec": {"plugin": "scripted", "models": [{"name": "m", "aliases": [alias]}]}}


async def apply(api: httpx2.AsyncClient, *manifests: Any, **more: Any) -> list[dict[str, Any]]:
    """What became of each manifest."""
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": each, **more} for each in manifests]})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert answer.json()["failed"] == sum(each["action"] == "failed" for each in results)
    assert len(results) == len(manifests)
    return results


def errors(result: dict[str, Any]) -> dict[str, str]:
    """Path -> what is said of it, with its suggestion."""
    assert result["action"] == "failed", result
    return {each["path"]: f"{each['message']} {each.get('suggestion', '')}" for each in result["errors"]}


async def test_objects_may_come_in_any_order(api: httpx2.AsyncClient, name: str) -> None:
    results = await apply(api, agent(name, model={"alias": f"{name}-model"}), provider(name, f"{name}-model"))
    assert [(each["kind"], each["name"], each["action"]) for each in results] == [
        ("Agent", name, "created"),
        ("ModelProvider", name, "created"),
    ]


async def test_one_refused_object_does_not_hold_up_the_others(api: httpx2.AsyncClient, name: str) -> None:
    results = await apply(api, agent(name), {"kind": "Agnet"}, agent(f"{name}-2", modle={}), 5, None, agent(f"{name}-3"))
    assert [each["action"] for each in results] == ["created", "failed", "failed", "failed", "failed", "created"]
    assert "did you mean `Agent`?" in errors(results[1])["kind"]
    assert "did you mean `model`?" in errors(results[2])["spec.modle"]
    assert results[2]["name"] == f"{name}-2"
    assert (await api.get(f"/v1/agents/{name}-3")).status_code == 200
    problem(await api.get(f"/v1/agents/{name}-2"), 404, "not_found")


async def test_each_error_carries_the_place_of_its_object(api: httpx2.AsyncClient, name: str) -> None:
    source = {"file": "agents/a.yaml", "line": 12, "column": 3}
    (result,) = await apply(api, agent(name, modle={}), source=source)
    assert all({key: each[key] for key in source} == source for each in result["errors"])
    await apply(api, agent(name), source=source)
    assert (await api.get(f"/v1/objects/Agent/{name}")).json()["source"] == source


async def test_all_flaws_of_an_object_are_named_at_once(api: httpx2.AsyncClient, name: str) -> None:
    (result,) = await apply(api, agent(name, limits={"turns": 0, "tokens": "many"}, instructions="", suspend="no"))
    assert errors(result).keys() == {"spec.limits.turns", "spec.limits.tokens", "spec.instructions", "spec.suspend"}
    assert "1" in errors(result)["spec.limits.turns"]
    assert "200" in errors(result)["spec.limits.turns"]


async def test_one_object_twice_in_a_request_is_refused(api: httpx2.AsyncClient, name: str) -> None:
    first, second = await apply(api, agent(name), agent(name, description="another"), source={"file": "a.yaml", "line": 7, "column": 1})
    assert first["action"] == "created"
    assert "a.yaml:7" in errors(second)["metadata.name"]
    assert (await api.get(f"/v1/agents/{name}")).json()["description"] == ""


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ({"runtime": {"name": "looop"}}, "spec.runtime.name", ["'looop'", "loaded: ", "loop", "hansa-looop"]),
        ({"tools": [{"plugin": "toolz"}]}, "spec.tools[0].plugin", ["'toolz'", "loaded: ", "tools", "hansa-toolz"]),
        (
            {"tools": [{"plugin": "tools", "allow": ["clock", "clok"]}]},
            "spec.tools[0].allow[1]",
            ["'clok'", "calculator", "clock", "did you mean `clock`?"],
        ),
        ({"model": {"alias": "gpt"}}, "spec.model.alias", ["'gpt'", "scripted", "ModelProvider"]),
        ({"model": {"ref": "scripted/ehco"}}, "spec.model.ref", ["'scripted/ehco'", "scripted/echo", "did you mean `scripted/echo`?"]),
        ({"model": {"alias": "scripted", "fallbacks": [{"alias": "gpt"}]}}, "spec.model.fallbacks[0].alias", ["'gpt'"]),
        ({"outputSchema": {"type": "objekt"}}, "spec.outputSchema.type", ["object"]),
        ({"outputSchema": {"type": "string", "pattern": "("}}, "spec.outputSchema", ["JSON Schema"]),
    ],
)
async def test_what_is_not_there_is_named_with_what_is(
    api: httpx2.AsyncClient, name: str, spec: dict[str, Any], path: str, words: list[str]
) -> None:
    (result,) = await apply(api, agent(name, **spec))
    assert errors(result).keys() == {path}
    for word in words:
        assert word in errors(result)[path]


async def test_a_provider_of_an_unknown_kind_names_the_known_ones(api: httpx2.AsyncClient, name: str) -> None:
    (result,) = await apply(api, {**provider(name, name), "spec": {"plugin": "scriptd", "models": [{"name": "m"}]}})
    said = errors(result)["spec.plugin"]
    for word in ("'scriptd'", "openai", "did you mean `scripted`?", "hansa-scriptd"):
        assert word in said


async def test_the_same_again_changes_nothing(api: httpx2.AsyncClient, name: str) -> None:
    (first,) = await apply(api, agent(name))
    stored = (await api.get(f"/v1/objects/Agent/{name}")).json()
    (second,) = await apply(api, {key: agent(name)[key] for key in reversed(agent(name))})
    assert (first["generation"], first["revision"]) == (second["generation"], second["revision"]) == (1, 1)
    assert second["action"] == "unchanged"
    assert (await api.get(f"/v1/objects/Agent/{name}")).json() == stored


async def test_only_a_changed_spec_makes_a_revision(api: httpx2.AsyncClient, name: str) -> None:
    labeled = {**agent(name), "metadata": {"name": name, "labels": {"team": "a"}}}
    results = [(await apply(api, each))[0] for each in (agent(name), labeled, agent(name, description="new"), agent(name))]
    assert [(each["action"], each["generation"], each["revision"]) for each in results] == [
        ("created", 1, 1),
        ("configured", 2, 1),
        ("configured", 3, 2),
        ("configured", 4, 3),
    ]
    revisions = (await api.get(f"/v1/agents/{name}/revisions")).json()["data"]
    assert [each["revision"] for each in revisions] == [3, 2, 1]
    assert revisions[0]["digest"] == revisions[2]["digest"] != revisions[1]["digest"]
    assert [each["manifest"]["spec"].get("description") for each in revisions] == [None, "new", None]


async def test_a_deleted_agent_keeps_its_revisions_and_goes_on_counting(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, agent(name))
    assert (await api.delete(f"/v1/agents/{name}")).status_code == 204
    problem(await api.delete(f"/v1/agents/{name}"), 404, "not_found")
    problem(await api.delete(f"/v1/objects/Agent/{name}"), 404, "not_found")
    problem(await api.post(f"/v1/agents/{name}/runs", json={"input": 1}), 404, "not_found")
    assert len((await api.get(f"/v1/agents/{name}/revisions")).json()["data"]) == 1
    (again,) = await apply(api, agent(name, description="back"))
    assert (again["action"], again["revision"]) == ("created", 2)


async def test_a_provider_in_use_is_not_deleted(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, provider(name, f"{name}-model"), agent(f"{name}-by-alias", model={"alias": f"{name}-model"}))
    await apply(api, agent(f"{name}-by-ref", model={"ref": f"{name}/m"}))
    found = problem(await api.delete(f"/v1/objects/ModelProvider/{name}"), 409, "conflict")
    assert f"{name}-by-alias, {name}-by-ref" in found["detail"]
    for each in ("by-alias", "by-ref"):
        assert (await api.delete(f"/v1/agents/{name}-{each}")).status_code == 204
    assert (await api.delete(f"/v1/objects/ModelProvider/{name}")).status_code == 204
    problem(await api.delete(f"/v1/objects/ModelProvider/{name}"), 404, "not_found")


async def test_a_provider_whose_models_others_offer_too_is_deleted(api: httpx2.AsyncClient, name: str) -> None:
    await apply(api, provider(name, "twice"), provider(f"{name}-2", "twice"), agent(f"{name}-user", model={"alias": "twice"}))
    assert (await api.delete(f"/v1/objects/ModelProvider/{name}")).status_code == 204
    found = problem(await api.delete(f"/v1/objects/ModelProvider/{name}-2"), 409, "conflict")
    assert f"{name}-user" in found["detail"]
    await api.delete(f"/v1/agents/{name}-user")
    await api.delete(f"/v1/objects/ModelProvider/{name}-2")


async def test_an_unknown_kind_is_named_with_the_known_ones(api: httpx2.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        assert "Agent" in problem(await api.request(method, "/v1/objects/Agnet/x"), 404, "not_found")["detail"]


async def test_tenants_and_regions_are_not_deleted(api: httpx2.AsyncClient) -> None:
    for path in ("/v1/objects/Tenant/default", "/v1/objects/Region/local"):
        problem(await api.delete(path), 409, "conflict")


@pytest.mark.parametrize(
    "manifest",
    [
        agent("nul", description="a\x00b"),
        agent("nul", outputSchema={"type": "object", "properties": {"a\x00": {"type": "string"}}}),
        agent("nul", examples=[{"input": "x", "output": ["\x00"]}]),
    ],
)
async def test_a_nul_character_in_a_manifest_is_refused(api: httpx2.AsyncClient, manifest: Item) -> None:
    (result,) = await apply(api, manifest)
    ((path, said),) = errors(result).items()
    assert "NUL" in said
    assert path.startswith("spec.")
    assert (await api.get("/v1/agents")).status_code == 200


async def test_requests_that_write_the_same_objects_do_not_block_each_other(api: httpx2.AsyncClient, name: str) -> None:
    def batch(mark: str) -> list[Item]:
        return [agent(f"{name}-{number}", description=mark) for number in range(20)]

    rounds = [batch("0"), list(reversed(batch("1"))), batch("2"), list(reversed(batch("3")))]
    for results in await asyncio.gather(*(apply(api, *each) for each in rounds)):
        assert {each["action"] for each in results} <= {"created", "configured"}
    told = {(await api.get(f"/v1/agents/{name}-{number}")).json()["description"] for number in range(20)}
    assert len(told) == 1, "a request was done in parts"
    revisions = [each["revision"] for each in (await api.get(f"/v1/agents/{name}-0/revisions")).json()["data"]]
    assert revisions == [4, 3, 2, 1]


async def test_too_many_objects_are_refused_with_the_most(api: httpx2.AsyncClient) -> None:
    objects: list[Item] = [{"manifest": None}] * 501
    answer = await api.post("/v1/objects:apply", json={"objects": objects})
    assert "500" in problem(answer, 422, "invalid")["detail"]


async def test_nobody_writes_into_another_tenant(api: httpx2.AsyncClient, other: httpx2.AsyncClient, name: str) -> None:
    foreign = {**agent(name), "metadata": {"name": name, "namespace": "default"}}
    tenant = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "default"}, "spec": {"suspend": True}}
    first, second = await apply(other, foreign, tenant)
    assert "'other'" in errors(first)["metadata.namespace"]
    assert "platform:write" in errors(second)["kind"]
    own = {**agent(name), "metadata": {"name": name, "namespace": "other"}}
    assert (await apply(other, own))[0]["action"] == "created"
    problem(await api.get(f"/v1/agents/{name}"), 404, "not_found")
    assert (await api.post("/v1/agents/echo/runs", json={"input": 1})).status_code in (202, 404)


async def messaging_is_ready(client: httpx2.AsyncClient) -> None:
    """Wait until NATS knows the tenant `default`: till then its status may change between two looks at it."""
    async with asyncio.timeout(20):
        while True:
            status = (await client.get("/v1/objects/Tenant/default")).json()["status"]
            if {each["type"]: each["status"] for each in status["conditions"]}.get("MessagingReady") == "True":
                return
            await asyncio.sleep(0.05)


async def test_the_tenant_and_the_region_are_there_before_anyone_has_applied_them(own_stack: Stack) -> None:
    async with own_stack.client(own_stack.serve()) as client:
        await messaging_is_ready(client)
        for kind, name in (("Tenant", "default"), ("Region", "local")):
            listed = (await client.get("/v1/objects", params={"kind": kind})).json()["data"]
            assert [(each["kind"], each["name"], each["manager"]) for each in listed] == [(kind, name, "platform")]
            shown = (await client.get(f"/v1/objects/{kind}/{name}")).json()
            assert shown == listed[0]
            (applied,) = await apply(client, shown["manifest"])
            assert (applied["action"], applied["generation"]) == ("created", 1)
        everything = (await client.get("/v1/objects")).json()["data"]
        assert [(each["kind"], each["name"], each["manager"]) for each in everything] == [
            ("Region", "local", "rest"),
            ("Tenant", "default", "rest"),
        ]
