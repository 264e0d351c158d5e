"""Dead letters for tests: messages of a kind that no worker receives, given up at once."""

import asyncio
from uuid import UUID

import httpx2

from hansa import ids
from hansa.db.pool import open_database
from hansa.messages.model import Message
from hansa.messages.service import send
from hansa.tenants.service import DEFAULT_TENANT, tenant_id
from stack import Stack

KIND = "nobody.receives"


async def dead_letter(api: httpx2.AsyncClient, stack: Stack) -> UUID:
    """The id of a new dead letter of tenant `default`."""
    tenant = tenant_id(DEFAULT_TENANT)
    message = Message(tenant, ids.new_id(), KIND, "letters", '{"secret": "of default"}')
    async with open_database(stack.settings.database) as database, database.tenant(tenant) as connection:
        assert await send(connection, message)
    await buried(api, message.id)
    return message.id


async def buried(api: httpx2.AsyncClient, message_id: UUID) -> None:
    """Wait until a message is a dead letter."""
    for _ in range(400):
        if (await api.get(f"/v1/dead-letters/{message_id}")).status_code == 200:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"message {message_id} is no dead letter")
