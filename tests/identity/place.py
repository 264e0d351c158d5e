"""Tenants with an issuer, and requests with tokens."""

from typing import Any

import httpx2

from doubles.oidc_provider import OidcProvider
from hansa import ids
from samples import SCRIPTED, agent
from stack import Process, Stack

Json = dict[str, Any]


def tenant(name: str, *issuers: Json, bindings: list[Json] | None = None) -> Json:
    """A Tenant object."""
    identity = {"issuers": list(issuers), "roleBindings": bindings or []}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {"identity": identity}}


def issuer(provider: OidcProvider, audience: str, **more: Any) -> Json:
    """The provider, as a tenant names it."""
    return {"name": "corp", "issuer": provider.url, "audience": audience, **more}


class Town:
    """A control plane, and the first key to apply objects with."""

    def __init__(self, stack: Stack, process: Process, provider: OidcProvider) -> None:
        self.client = stack.client(process)
        self.provider = provider

    async def apply(self, *manifests: Json) -> list[Json]:
        """What became of objects."""
        answer = await self.client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]

    async def make(self, *bindings: Json) -> str:
        """A new tenant, whose name is the audience of its tokens, with an agent `echo`."""
        name = f"t-{ids.new_id().hex[-10:]}"
        within = {"name": "echo", "namespace": name}
        results = await self.apply(
            tenant(name, issuer(self.provider, name), bindings=list(bindings)),
            {**SCRIPTED, "metadata": {"name": "scripted", "namespace": name}},
            {**agent("echo"), "metadata": within},
        )
        assert all(each["action"] == "created" for each in results), results
        return name

    async def ask(self, token: str, path: str = "/v1/whoami", **headers: str) -> httpx2.Response:
        """GET with a token."""
        return await self.client.get(path, headers={**headers, "authorization": f"Bearer {token}"})
