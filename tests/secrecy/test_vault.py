"""Vault as keeper of keys and secrets, over its own HTTP API: logged in, renewed, sealed, refused, rotated."""

import asyncio
import secrets as randomness
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from doubles.vault_server import JWT, ROLE_ID, SECRET_ID, VaultServer, vault_server
from hansa.auth.model import Principal
from hansa.egress.client import open_client
from hansa.egress.narrowing import narrowed
from hansa.egress.policy import EgressPolicy
from hansa.errors import HansaError
from hansa.secrets.failures import SecretsAway, SecretsRefused
from hansa.secrets.variables import admitted
from hansa.tenants.secrets.lookup import Lookup
from hansa.tenants.secrets.service import MissingSecret
from hansa_crds import SecretRef
from secrecy.safe import Safe, as_owner, open_safe
from stack import Stack

CANARY = f"canary-{randomness.token_hex(16)}"
Open = Callable[..., AbstractAsyncContextManager[Safe]]


@pytest.fixture
async def vault() -> AsyncIterator[VaultServer]:
    async with vault_server() as found:
        yield found


@pytest.fixture
def opened(stack: Stack, vault: VaultServer, tmp_path: Path) -> Open:
    """Opens a process whose keys are in Vault; settings may be replaced."""
    (tmp_path / "secret-id").write_text(f"{SECRET_ID}\n")
    (tmp_path / "jwt").write_text(JWT)
    usual = {
        "vault_url": vault.url,
        "vault_role_id": ROLE_ID,
        "vault_secret_id_file": str(tmp_path / "secret-id"),
        "vault_role": ROLE_ID,
        "vault_jwt_file": str(tmp_path / "jwt"),
    }

    @asynccontextmanager
    async def make(*, allow: bool = True, **options: str) -> AsyncIterator[Safe]:
        # The real door out: a private address is reached only because it is admitted.
        client = open_client(EgressPolicy(allow=(f"127.0.0.1:{vault.port}",) if allow else ()))
        async with open_safe(stack.settings, kek="vault", http=client, **{**usual, **options}) as safe:
            yield safe

    return make


async def refused(safe: Safe, who: Principal, kind: type[HansaError], told: str) -> HansaError:
    """Neither setting nor reading is possible, and the text says why and nothing of the secret."""
    safe.secrets.keys.forget()
    with pytest.raises(kind, match=told) as caught:
        await safe.put(who, "smtp", CANARY)
    assert CANARY not in f"{caught.value.detail} {caught.value.hint}"
    return caught.value


WRONG: dict[str, tuple[dict[str, str], type[HansaError], str]] = {
    "no address": ({"vault_url": ""}, SecretsRefused, "HANSA_SECRETS_VAULT_URL is not set"),
    "unknown method": ({"vault_auth": "ldap"}, SecretsRefused, "HANSA_SECRETS_VAULT_AUTH is 'ldap'"),
    "wrong role": ({"vault_role_id": "another"}, SecretsRefused, "refuses the login by approle"),
    "wrong service account": ({"vault_auth": "kubernetes", "vault_role": "another"}, SecretsRefused, "refuses the login by kubernetes"),
    "no secret id": ({"vault_secret_id_file": "/nowhere"}, SecretsAway, "/nowhere can't be read"),
    "no such key": ({"vault_transit_key": "other"}, SecretsRefused, "Vault has nothing where we would encrypt"),
    "no such mount": ({"vault_auth_mount": "elsewhere"}, SecretsRefused, "refuses the login"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_set_up_wrongly_is_named(opened: Open, mine: Principal, wrong: str) -> None:
    options, kind, told = WRONG[wrong]
    async with opened(**options) as safe:
        await refused(safe, mine, kind, told)


async def test_a_private_address_is_refused_by_the_door_before_anything_is_sent(opened: Open, vault: VaultServer, mine: Principal) -> None:
    async with opened(allow=False) as safe:
        found = await refused(safe, mine, SecretsRefused, "Vault can't be asked: .* is refused")
    assert "HANSA_SECRETS_ALLOW" in found.hint
    assert vault.asked == []


async def test_a_vault_that_is_not_there_is_a_passing_fault(opened: Open, vault: VaultServer, mine: Principal) -> None:
    async with opened() as safe:
        vault.sealed = True
        found = await refused(safe, mine, SecretsAway, r"Vault is sealed or in maintenance \(503\)")
        assert (found.status, found.retryable) == (503, True)
        vault.sealed = False
        await safe.put(mine, "smtp", CANARY)


async def test_a_busy_vault_says_when_to_come_again(opened: Open, vault: VaultServer, mine: Principal) -> None:
    async with opened() as safe:
        vault.busy = 1
        assert (await refused(safe, mine, SecretsAway, "fewer requests")).retry_after == 7.0
        await safe.put(mine, "smtp", CANARY)


@pytest.mark.parametrize("method", ["approle", "kubernetes"])
async def test_a_login_wraps_and_unwraps_and_vault_never_sees_a_value(
    opened: Open, vault: VaultServer, mine: Principal, stack: Stack, method: str
) -> None:
    async with opened(vault_auth=method) as safe:
        await safe.put(mine, "smtp", CANARY)
        safe.secrets.keys.forget()
        assert await safe.secrets.value(mine.tenant_id, "smtp") == CANARY
        # Where an agent's tools and a tenant's requests may go is no matter of what the platform itself needs.
        safe.secrets.keys.forget()
        lookup = Lookup(admitted({}, "*"), safe.secrets, safe.redactor)
        with narrowed("the list of an agent", ("tickets.example.org",)):
            assert await lookup.secret(mine.tenant_id, SecretRef(secret="smtp")) == CANARY
            safe.secrets.keys.forget()
            stored = (await safe.secrets.keys.ensure(mine.tenant_id)).stored
            with pytest.raises(SecretsRefused, match="it is not on the list of an agent"):  # the control: the key asked for by itself
                await safe.secrets.keys.open(mine.tenant_id, stored)
    assert vault.logins == 1
    assert CANARY not in str(vault.asked)
    (row,) = await as_owner(stack.settings, mine.tenant_id, "SELECT kek, key_id, wrapped FROM hansa.data_keys")
    assert (row["kek"], row["key_id"], row["wrapped"][:9]) == ("vault", "transit/hansa:v1", b"vault:v1:")


async def test_a_token_of_one_s_own_is_used(opened: Open, vault: VaultServer, mine: Principal, tmp_path: Path) -> None:
    vault.tokens.add("hvs.of-the-operator")
    (tmp_path / "token").write_text("hvs.of-the-operator\n")
    async with opened(vault_auth="token", vault_token_file=str(tmp_path / "token")) as safe:
        await safe.put(mine, "smtp", CANARY)
    assert {asked.headers["x-vault-token"] for asked in vault.asked} == {"hvs.of-the-operator"}


async def test_the_environment_s_own_token_is_never_sent(
    opened: Open, vault: VaultServer, mine: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "hvs.of-the-shell")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with opened() as safe:
        await safe.put(mine, "smtp", CANARY)
    assert "hvs.of-the-shell" not in str(vault.asked)


async def test_a_token_is_renewed_in_time_and_fetched_anew_when_it_can_t_be(opened: Open, vault: VaultServer, mine: Principal) -> None:
    vault.token_seconds = 0.03
    async with opened() as safe:
        await safe.put(mine, "smtp", CANARY)
        await asyncio.sleep(0.05)
        safe.secrets.keys.forget()
        assert await safe.secrets.value(mine.tenant_id, "smtp") == CANARY
        assert vault.renewals >= 1
        renewals, logins, vault.renewable = vault.renewals, vault.logins, False
        await asyncio.sleep(0.05)
        safe.secrets.keys.forget()
        assert await safe.secrets.value(mine.tenant_id, "smtp") == CANARY
        assert (vault.renewals, vault.logins) == (renewals + 1, logins + 1)


async def test_a_token_that_was_revoked_costs_one_more_login_and_a_missing_permission_no_more(
    opened: Open, vault: VaultServer, mine: Principal
) -> None:
    async with opened() as safe:
        await safe.put(mine, "smtp", CANARY)
        vault.revoke_all()
        safe.secrets.keys.forget()
        assert await safe.secrets.value(mine.tenant_id, "smtp") == CANARY
        assert vault.logins == 2
        vault.denied.add("transit/decrypt/hansa")
        found = await refused(safe, mine, SecretsRefused, r"does not let us decrypt a data key \(permission denied\)")
        assert "policy" in found.hint
        assert vault.logins == 3


async def test_a_data_key_that_was_moved_to_another_tenant_is_refused(
    opened: Open, mine: Principal, theirs: Principal, stack: Stack
) -> None:
    async with opened() as safe:
        for who in (mine, theirs):
            await safe.put(who, "smtp", CANARY)
        (row,) = await as_owner(stack.settings, mine.tenant_id, "SELECT wrapped FROM hansa.data_keys")
        await as_owner(stack.settings, theirs.tenant_id, "UPDATE hansa.data_keys SET wrapped = $1", row["wrapped"])
        with pytest.raises(SecretsRefused, match="another tenant's"):
            await safe.secrets.value(theirs.tenant_id, "smtp")


async def test_a_rotated_transit_key_takes_over_and_data_keys_never_leave_vault_for_it(
    opened: Open, vault: VaultServer, mine: Principal, stack: Stack
) -> None:
    async with opened() as safe:
        await safe.put(mine, "smtp", CANARY)
        vault.rotate()
        assert (await safe.rotation.wrapping()).key_id == "transit/hansa:v2"
        vault.asked.clear()
        await safe.rotation.rewrap(mine)
        assert [each for each in vault.asked if each.path == "/v1/transit/decrypt/hansa"] == []
        (row,) = await as_owner(stack.settings, mine.tenant_id, "SELECT key_id FROM hansa.data_keys")
        assert row["key_id"] == "transit/hansa:v2"
        vault.least_version = 2  # what was wrapped before does not open any more
        safe.secrets.keys.forget()
        assert await safe.secrets.value(mine.tenant_id, "smtp") == CANARY


async def test_data_keys_move_from_a_file_to_vault_without_a_pause(
    opened: Open, safe: Safe, mine: Principal, stack: Stack, keys: Path
) -> None:
    await safe.put(mine, "smtp", CANARY)
    async with opened(key_file=str(keys)) as moved:
        assert await moved.secrets.value(mine.tenant_id, "smtp") == CANARY
        await moved.rotation.rewrap(mine)
        moved.secrets.keys.forget()
        assert await moved.secrets.value(mine.tenant_id, "smtp") == CANARY
    (row,) = await as_owner(stack.settings, mine.tenant_id, "SELECT kek FROM hansa.data_keys")
    assert row["kek"] == "vault"


async def test_a_secret_that_vault_keeps_is_read_below_the_tenant_s_own_path(
    opened: Open, vault: VaultServer, mine: Principal, theirs: Principal
) -> None:
    vault.kv = {f"hansa/{mine.tenant}/mail": {"password": CANARY, "port": 25}, f"hansa/{theirs.tenant}/own": {"value": "what they have"}}
    async with opened() as safe:
        await safe.refer(mine, "mail", "vault", "mail")
        assert await safe.secrets.value(mine.tenant_id, "mail", "password") == CANARY
        assert safe.redactor.text(mine.tenant_id, CANARY) == "[secret mail]"
        with pytest.raises(MissingSecret, match="several values") as caught:
            await safe.secrets.value(mine.tenant_id, "mail")
        assert "password" in caught.value.hint
        await safe.refer(theirs, "own", "vault", "own")
        assert await safe.secrets.value(theirs.tenant_id, "own") == "what they have"
        await safe.refer(theirs, "reaching", "vault", "mail")
        with pytest.raises(SecretsRefused, match=r"nothing where we would read secret/data/hansa/.*/mail \(404\)"):
            await safe.secrets.value(theirs.tenant_id, "reaching")
