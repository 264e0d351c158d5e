"""What a Tenant allows: refused when objects are applied, and refused at use when it was tightened after they were."""

from typing import Any

import httpx2
import pytest

from hansa import ids
from samples import SCRIPTED, agent

Manifest = dict[str, Any]
SECOND: Manifest = {
    **SCRIPTED,
    "metadata": {"name": "second"},
    "spec": {"plugin": "scripted", "models": [{"name": "large", "aliases": ["big"]}]},
}


class Owner:
    """Who makes a tenant and works in it."""

    def __init__(self, api: httpx2.AsyncClient) -> None:
        self.api = api
        self.name = f"t-{ids.new_id().hex[-10:]}"
        self.there = {"hansa-tenant": self.name}

    async def allows(self, **allowed: list[str]) -> None:
        manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": self.name}, "spec": {"allowed": allowed}}
        (result,) = await self._apply([manifest], {})
        assert result["action"] != "failed", result

    async def apply(self, *manifests: Manifest) -> list[dict[str, Any]]:
        return await self._apply(list(manifests), self.there)

    async def _apply(self, manifests: list[Manifest], headers: dict[str, str]) -> list[dict[str, Any]]:
        body = {"objects": [{"manifest": each} for each in manifests]}
        return (await self.api.post("/v1/objects:apply", json=body, headers=headers)).json()["results"]

    async def refused(self, manifest: Manifest) -> tuple[list[str], str]:
        """Paths and the first message of a refusal."""
        (result,) = await self.apply(manifest)
        assert result["action"] == "failed", result
        assert {error["code"] for error in result["errors"]} == {"not_allowed"}
        return [error["path"] for error in result["errors"]], result["errors"][0]["message"]

    async def accepted(self, *manifests: Manifest) -> None:
        for result in await self.apply(*manifests):
            assert result["action"] in ("created", "configured", "unchanged"), result

    async def run(self, name: str, run_input: str = "hello") -> dict[str, Any]:
        path = f"/v1/agents/{name}/runs"
        return (await self.api.post(path, params={"wait": 20}, json={"input": run_input}, headers=self.there)).json()


@pytest.fixture
async def owner(api: httpx2.AsyncClient) -> Owner:
    found = Owner(api)
    await found.allows()
    await found.accepted(SCRIPTED, SECOND)
    return found


async def test_a_tenant_whose_lists_are_left_out_may_use_all(owner: Owner) -> None:
    await owner.accepted(agent("free", tools=[{"plugin": "tools"}, {"plugin": "cage"}], model={"alias": "big"}))
    assert (await owner.run("free"))["state"] == "completed"


@pytest.mark.parametrize(
    ("allowed", "spec", "path", "words"),
    [
        (
            {"models": ["scripted/*"]},
            {"model": {"alias": "big"}},
            "spec.model.alias",
            "second/large: its Tenant's allowed.models lists scripted/*",
        ),
        ({"models": ["scripted/*"]}, {"model": {"ref": "second/large"}}, "spec.model.ref", "allowed.models"),
        (
            {"models": ["scripted/echo"]},
            {"model": {"alias": "scripted", "fallbacks": [{"ref": "second/large"}]}},
            "spec.model.fallbacks[0].ref",
            "second/large",
        ),
        ({"models": []}, {}, "spec.model.alias", "allowed.models lists none"),
        ({"tools": ["clock"]}, {"tools": [{"plugin": "tools"}]}, "spec.tools[0].allow", "Write those that the agent needs in `allow`"),
        (
            {"tools": ["files_*"]},
            {"tools": [{"plugin": "tools", "allow": ["files_read", "clock"]}]},
            "spec.tools[0].allow",
            "may not use clock:",
        ),
        ({"plugins": ["scripted", "runtimes", "tools"]}, {"tools": [{"plugin": "cage"}]}, "spec.tools[0].plugin", "may not use cage"),
        ({"plugins": ["scripted", "tools"]}, {}, "spec.runtime.name", "may not use runtimes"),
    ],
)
async def test_an_agent_that_goes_beyond_is_refused_with_the_list(
    owner: Owner, allowed: dict[str, list[str]], spec: dict[str, Any], path: str, words: str
) -> None:
    await owner.accepted(agent("beyond", **spec))
    assert (await owner.run("beyond"))["state"] == "completed"
    await owner.allows(**allowed)
    paths, message = await owner.refused(agent("beyond", **spec))
    assert paths == [path]
    assert words in message
    # The revision is from before the list: it is refused now that it is used.
    run = await owner.run("beyond")
    if path == "spec.model.fallbacks[0].ref":
        assert run["state"] == "completed"
        return
    assert (run["state"], run["error"]["code"]) == ("failed", "model_missing" if path.startswith("spec.model") else "not_allowed")
    assert "its Tenant's allowed." in run["error"]["detail"]
    await owner.allows()
    assert (await owner.run("beyond"))["state"] == "completed"


async def test_a_run_of_before_replays_after_the_list_is_tightened(owner: Owner) -> None:
    await owner.accepted(agent("early", tools=[{"plugin": "tools"}]))
    run = await owner.run("early", '#script [{"tool_calls": [{"name": "clock", "arguments": {}}]}, {"text": "Done."}]')
    await owner.allows(tools=[], models=[], plugins=[])
    assert (await owner.api.get(f"/v1/runs/{run['id']}/replay", headers=owner.there)).json()["equal"] is True


def far(endpoint: str) -> tuple[Manifest, Manifest]:
    """A provider and a server of tools somewhere."""
    provider = {**SECOND, "metadata": {"name": "far"}, "spec": {"plugin": "openai", "endpoint": endpoint, "models": [{"name": "m"}]}}
    return provider, {"apiVersion": "hansa.dev/v1alpha1", "kind": "ToolServer", "metadata": {"name": "far"}, "spec": {"endpoint": endpoint}}


@pytest.mark.parametrize(
    "endpoint", ["https://example.com/v1", "http://10.0.0.1/", "https://xexample.com/", "https://models.example.com:1/"]
)
async def test_what_an_object_speaks_to_stands_on_the_list(owner: Owner, endpoint: str) -> None:
    await owner.allows(egress=["*.example.com:8443", "*.example.org"])
    for manifest in far(endpoint):
        paths, message = await owner.refused(manifest)
        assert paths == ["spec.endpoint"]
        assert "it is not on the tenant's list (allowed.egress of its Tenant). Listed are: *.example.com:8443, *.example.org." in message
    for listed in ("https://models.example.com:8443/v1", "http://a.b.example.org/"):
        await owner.accepted(far(listed)[0])


async def test_a_plugin_that_is_not_allowed_brings_no_provider(owner: Owner) -> None:
    await owner.allows(plugins=["scripted"])
    paths, _ = await owner.refused({**SECOND, "metadata": {"name": "far"}, "spec": {"plugin": "openai", "models": [{"name": "m"}]}})
    assert paths == ["spec.plugin"]
    await owner.accepted(SECOND)


async def test_tools_reach_only_what_the_tenant_lists_and_an_agent_cannot_widen_it(owner: Owner) -> None:
    fetch = '#script [{"tool_calls": [{"name": "http_get", "arguments": {"url": "https://example.com/"}}]}, {"text": "Done."}]'
    await owner.accepted(agent("reader", tools=[{"plugin": "tools"}], egress=["example.com"]))
    await owner.allows(egress=["example.org"])
    run = await owner.run("reader", fetch)
    events = (await owner.api.get(f"/v1/sessions/{run['session_id']}/events", params={"limit": 50}, headers=owner.there)).json()["data"]
    (told,) = [event["data"]["content"] for event in events if event["type"] == "tool.completed"]
    assert "https://example.com:443 is refused (not_listed): it is not on the tenant's list" in told


async def test_the_lists_of_one_tenant_are_nothing_to_another(owner: Owner, api: httpx2.AsyncClient) -> None:
    await owner.allows(models=[], tools=[], plugins=[], egress=[])
    other = Owner(api)
    await other.allows()
    await other.accepted(SCRIPTED, agent("free", tools=[{"plugin": "tools"}]))
    assert (await other.run("free"))["state"] == "completed"


async def test_a_list_that_cannot_be_read_is_refused(owner: Owner) -> None:
    manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": owner.name}}
    for allowed, path in (({"egress": ["10.0.0.1/8"]}, "spec.allowed.egress[0]"), ({"models": ["a b"]}, "spec.allowed.models[0]")):
        answer = await owner.api.post("/v1/objects:apply", json={"objects": [{"manifest": {**manifest, "spec": {"allowed": allowed}}}]})
        (result,) = answer.json()["results"]
        assert [error["path"] for error in result["errors"]] == [path]
