"""A NATS of one's own, with nobody else who looks after its accounts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hansa.bus.accounts import Accounts, open_accounts
from hansa.bus.claims import Account
from hansa.dev.folder import DataFolder
from hansa.dev.nats import EmbeddedNats
from hansa.dev.supervisor import Supervisor
from hansa.settings import NatsSettings
from messaging.parties import LIMITS, A, B


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Accounts]:
    """The accounts of a NATS that knows both tenants, and that nobody else looks after: nothing puts right what a test spoils."""
    async with DataFolder(tmp_path / "data") as folder, Supervisor(folder, report=lambda _stage, _detail: None) as supervisor:
        nats = EmbeddedNats(folder, supervisor)
        await nats.start()
        await nats.ready()
        async with open_accounts(NatsSettings(url=nats.url, operator_file=str(nats.operator_file)), "local", name="test") as accounts:
            assert accounts is not None
            for tenant in (A, B):
                await accounts.push(accounts.token(Account(tenant, 1, LIMITS)))
            yield accounts
