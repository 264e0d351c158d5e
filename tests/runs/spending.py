"""Tenants with a budget for tests: priced scripted models, runs that spend, and an oracle over what the database says of the money."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx2

from api.keys import issue
from hansa import ids
from hansa.tenants.service import tenant_id
from runs.engine import ENDED, Engine, script, until
from samples import agent

PRICES = {"input": 0.0, "output": 1_000_000.0}
"""One unit of money for each token that is written, none for those that are read: so a call costs what its answer has words."""
FACTS = """SELECT b.amount, b.spent, b.reserved, b.tokens, b.tokens_reserved, b.tokens_per_day,
  (SELECT coalesce(sum(v.cost), 0)::bigint FROM hansa.reservations v WHERE v.tenant_id = b.tenant_id) AS held,
  (SELECT coalesce(sum(u.cost + u.lost_cost), 0)::bigint FROM hansa.usage u WHERE u.tenant_id = b.tenant_id AND u.day >= b.begun) AS used,
  (SELECT coalesce(sum(u.calls), 0)::bigint FROM hansa.usage u WHERE u.tenant_id = b.tenant_id) AS calls,
  (SELECT coalesce(sum(u.lost_calls), 0)::bigint FROM hansa.usage u WHERE u.tenant_id = b.tenant_id) AS lost_calls,
  (SELECT coalesce(sum(u.lost_cost), 0)::bigint FROM hansa.usage u WHERE u.tenant_id = b.tenant_id AND u.day >= b.begun) AS lost_cost
  FROM hansa.budgets b WHERE b.tenant_id = $1"""
Facts = dict[str, Any]


def provider(name: str = "scripted", *, alias: str = "scripted", prices: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A scripted model with a price."""
    model = {"name": "echo", "aliases": [alias], "prices": PRICES if prices is None else prices}
    body: dict[str, Any] = {"plugin": "scripted", "models": [model], **spec}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "ModelProvider", "metadata": {"name": name}, "spec": body}


def words(count: int) -> dict[str, Any]:
    """A turn whose answer has so many words, each a token."""
    return {"text": " ".join(["word"] * count)}


def calls(*turns: dict[str, Any]) -> str:
    """A run that asks the model once for each turn."""
    return script(*turns)


class Spender:
    """A tenant, its key, and what it may spend."""

    def __init__(self, engine: Engine, name: str, key: dict[str, str], admin: httpx2.AsyncClient) -> None:
        self.engine = engine
        self.name = name
        self.id: UUID = tenant_id(name)
        self._key = key
        self._admin = admin

    async def quotas(self, **quotas: Any) -> None:
        """Set what it may use."""
        manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": self.name}, "spec": {"quotas": quotas}}
        await applied(self._admin, manifest)

    async def budget(self, amount: float, **more: Any) -> None:
        """Set how much money it may spend."""
        await self.quotas(budget={"amount": amount, "currency": "EUR", **more})

    async def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply objects of its own."""
        await applied(self._admin, *({**each, "metadata": {**each["metadata"], "namespace": self.name}} for each in manifests))

    async def asks(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """What the API answers it; asked again, under the same key, when the connection was closed at that moment."""
        headers = self._key | ({"idempotency-key": ids.new_id().hex} if method == "POST" else {})
        try:
            return await self._admin.request(method, path, headers=headers, **more)
        except httpx2.RemoteProtocolError:
            return await self._admin.request(method, path, headers=headers, **more)

    async def start(self, run_input: Any, *, agent_name: str = "spender") -> str:
        """The id of a new run."""
        answer = await self.asks("POST", f"/v1/agents/{agent_name}/runs", json={"input": run_input})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    async def run(self, run_id: str) -> dict[str, Any]:
        return (await self.asks("GET", f"/v1/runs/{run_id}")).json()

    async def ended(self, run_id: str, *, states: frozenset[str] = ENDED, seconds: float = 20.0) -> dict[str, Any]:
        """The run once it is in one of these states."""

        async def look() -> dict[str, Any] | None:
            run = await self.run(run_id)
            return run if run["state"] in states else None

        return await until(look, f"run {run_id} is {' or '.join(sorted(states))}", seconds=seconds)

    async def spends(self, run_input: Any) -> dict[str, Any]:
        """A run, at its end."""
        return await self.ended(await self.start(run_input))

    async def facts(self) -> Facts:
        """What the database says of its money, in millionths."""
        (row,) = await self.engine.fetch(FACTS, self.id)
        return row

    async def limits(self) -> dict[str, dict[str, Any]]:
        """GET /v1/budgets, by limit."""
        return {each["limit"]: each for each in (await self.asks("GET", "/v1/budgets")).json()["data"]}


async def open_spender(engine: Engine, admin: httpx2.AsyncClient, *, prices: dict[str, Any] | None = None, **spec: Any) -> Spender:
    """A new tenant with an agent `spender` on a model with a price."""
    name = f"s-{ids.new_id().hex[-10:]}"
    await applied(admin, {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}})
    spender = Spender(engine, name, await issue(engine.stack, name, name="k", roles=["tenant-admin"]), admin)
    await spender.apply(provider(prices=prices), agent("spender", **spec))
    return spender


async def applied(client: httpx2.AsyncClient, *manifests: dict[str, Any]) -> None:
    answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
    assert answer.json().get("failed") == 0, answer.text


def violations(facts: Facts, bill: int) -> list[str]:
    """What must never be so at rest. `bill`: what the provider was really asked for, in millionths."""
    found: list[str] = []
    if facts["amount"] is not None and facts["spent"] > facts["amount"]:
        found.append(f"over: {facts['spent']} of {facts['amount']} is spent")
    if facts["amount"] is not None and bill > facts["amount"]:
        found.append(f"over: the bill is {bill} of {facts['amount']}")
    if facts["spent"] < bill:
        found.append(f"not counted: {facts['spent']} is spent and the bill is {bill}")
    if facts["spent"] != facts["used"]:
        found.append(f"{facts['spent']} is spent and usage says {facts['used']}")
    if facts["reserved"] or facts["tokens_reserved"] or facts["held"]:
        found.append(f"ghost: {facts['reserved']} is reserved, {facts['held']} by reservations")
    return found


def bill_of(events: Sequence[Facts]) -> int:
    """What the answers in logs cost."""
    return sum(json.loads(event["data"])["cost"] if isinstance(event["data"], str) else event["data"]["cost"] for event in events)
