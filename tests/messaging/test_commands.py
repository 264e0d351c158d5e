"""`hansa nats`: credentials on the command line, and the keys of a NATS server that is not ours."""

import json
import subprocess
from pathlib import Path

import httpx2

from cli.command import Ended, hansa
from hansa.bus.accounts import open_accounts
from hansa.bus.claims import Account, Limits
from hansa.bus.connection import open_bus
from hansa.dev.nats import greets, program
from hansa.settings import NatsSettings
from hansa.tenants.service import tenant_id
from messaging.parties import apply_tenant, logged_in
from stack import Process, Stack, free_port


def types(stack: Stack, serving: Process, place: Path, *arguments: str) -> Ended:
    return hansa(*arguments, cwd=place, HANSA_URL=serving.url, HANSA_API_KEY=stack.key, HANSA_TENANT="north")


async def test_credentials_are_made_used_and_revoked(stack: Stack, control_plane: Process, api: httpx2.AsyncClient, tmp_path: Path) -> None:
    await apply_tenant(api, "north")
    shown = types(stack, control_plane, tmp_path, "nats")
    assert "NATS knows the tenant's account and bounds it (AccountReady)" in shown.out
    found = json.loads(types(stack, control_plane, tmp_path, "nats", "account", "-o", "json").out)
    made = types(stack, control_plane, tmp_path, "nats", "creds", "a script", "--minutes", "5")
    assert made.status == 0
    assert made.out.startswith("-----BEGIN NATS USER JWT-----\n")
    assert "not shown again" in made.err
    path = tmp_path / "script.creds"
    path.write_text(made.out)
    async with logged_in(found["url"], user_credentials=str(path)) as script:
        assert types(stack, control_plane, tmp_path, "nats", "revoke").status == 0
        await script.cut_off()
    assert types(stack, control_plane, tmp_path, "nats", "creds", "x", "--minutes", "61").status == 2


async def test_a_server_of_ones_own_is_given_accounts(tmp_path: Path) -> None:
    folder, port = tmp_path / "keys", free_port()
    assert hansa("nats", "keys", str(folder), cwd=tmp_path).status == 0
    operator = (folder / "operator.seed").read_text()
    assert hansa("nats", "keys", str(folder), cwd=tmp_path).status == 0
    assert (folder / "operator.seed").read_text() == operator, "one that is there stays"
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    own = f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{tmp_path}/js" }}\ninclude keys/accounts.conf\n'
    (tmp_path / "server.conf").write_text(own)
    server = subprocess.Popen([str(program()), "-c", "server.conf"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not await greets(port):
            assert server.poll() is None
        settings = NatsSettings(
            url=f"nats://127.0.0.1:{port}", creds_file=str(folder / "platform.creds"), operator_file=str(folder / "operator.seed")
        )
        async with open_bus(settings, name="test") as bus, open_accounts(settings, "local", name="test") as accounts:
            assert bus.connected
            assert accounts is not None
            account = Account(tenant_id("north"), 1, Limits(1, 1, 1))
            await accounts.push(accounts.token(account))
            assert accounts.public(account.tenant_id) in await accounts.listed()
    finally:
        server.kill()
        server.wait()


def test_a_folder_that_cant_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = hansa("nats", "keys", "file/keys", cwd=tmp_path)
    assert ended.status == 78
    assert "file/keys" in ended.err
