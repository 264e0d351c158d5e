"""Tenants with NATS accounts, and their programs as NATS clients."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from nats.aio.client import Client

from hansa.bus.accounts import Accounts, open_accounts
from hansa.bus.claims import Limits
from hansa.tenants.service import tenant_id
from stack import Stack

A, B = tenant_id("north"), tenant_id("south")
LIMITS = Limits(50, 100, 65_536)


class Program:
    """A NATS client, and what the server told it that went wrong."""

    def __init__(self) -> None:
        self.client: Any = Client()
        self.told: list[str] = []

    async def failed(self, error: Exception) -> None:
        self.told.append(str(error))

    async def cut_off(self, seconds: float = 5.0) -> None:
        """Wait until the server has ended the connection, or fail."""
        await until(lambda: not self.client.is_connected, "the program is cut off", seconds=seconds)


async def until(true: Callable[[], bool], what: str, *, seconds: float = 10.0) -> None:
    """Wait until it is true, or fail."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)
    assert true(), what


async def apply_tenant(api: httpx2.AsyncClient, name: str, **spec: Any) -> None:
    """Apply a Tenant object."""
    manifest = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec}
    answer = await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})
    assert answer.json()["failed"] == 0, answer.text


async def account(api: httpx2.AsyncClient, tenant: str) -> dict[str, Any]:
    """The tenant's account as the API shows it."""
    answer = await api.get("/v1/nats-account", headers={"hansa-tenant": tenant})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def credentials(api: httpx2.AsyncClient, tenant: str, **more: Any) -> dict[str, Any]:
    """New credentials of a tenant."""
    answer = await api.post("/v1/nats-credentials", json={"name": "a program", **more}, headers={"hansa-tenant": tenant})
    assert answer.status_code == 201, answer.text
    return answer.json()


@asynccontextmanager
async def program(folder: Path, made: dict[str, Any], **options: Any) -> AsyncIterator[Program]:
    """A program logged in with credentials that the API made. Raises what the client does when it is not let in."""
    path = folder / "program.creds"
    path.write_text(made["creds"])
    async with logged_in(made["url"], user_credentials=str(path), **options) as opened:
        yield opened


@asynccontextmanager
async def logged_in(url: str, **options: Any) -> AsyncIterator[Program]:
    """A NATS client that does not come back by itself."""
    opened = Program()
    try:
        await opened.client.connect(url, error_cb=opened.failed, allow_reconnect=False, connect_timeout=3, **options)
        yield opened
    finally:
        await opened.client.close()


@asynccontextmanager
async def accounts_of(stack: Stack) -> AsyncIterator[Accounts]:
    """The accounts of a stack, as its control plane manages them."""
    async with open_accounts(stack.settings.nats, "local", name="test") as found:
        assert found is not None
        yield found
