"""API keys: what is refused, with which words, and what is asked of the database for it."""

import asyncio
import string
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.scratch import Scratch
from hansa import clock
from hansa.auth import keys
from hansa.auth.bearers import Bearers
from hansa.auth.issuers import IssuerKeys, policy
from hansa.auth.service import CACHE_SECONDS, Authenticator
from hansa.db.pool import Database, open_database
from hansa.egress.client import open_client
from hansa.errors import Unauthenticated

KEY = keys.make("live")[0]
PEPPER = b"a pepper that is made for tests"


class NoDatabase(Database):
    """A database that may not be asked."""

    def __init__(self) -> None:
        """Has no pools: any question fails."""


def authenticator(database: Database, pepper: bytes = PEPPER) -> Authenticator:
    """One that has no way out to issuers."""
    return Authenticator(database, pepper, Bearers(database, IssuerKeys(open_client(policy(())))))


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_a_key_with_any_one_character_changed_is_refused(data: st.DataObject) -> None:
    text = KEY
    assert keys.parse(text).id == text.split("_")[2]
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(
        st.one_of(st.sampled_from(string.ascii_letters + string.digits + "_"), st.characters()).filter(lambda c: c != text[place])
    )
    with pytest.raises(Unauthenticated):
        keys.parse(text[:place] + other + text[place + 1 :])


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_what_is_no_key_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        keys.parse(text)
    assert len(text) < 8 or text not in refused.value.detail + refused.value.hint


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (None, "no credential"),
        ("", "no credential"),
        ("Basic abc", "not of the Bearer scheme"),
        ("Bearer", "does not have the form"),
        ("Bearer hsa_live_x_y", "does not have the form"),
    ],
)
async def test_what_is_no_key_is_refused_without_a_query(header: str | None, told: str) -> None:
    with pytest.raises(Unauthenticated, match=told):
        await authenticator(NoDatabase()).authenticate(header)


async def test_a_typo_is_refused_by_the_checksum_without_a_query() -> None:
    text, _, _ = keys.make("live")
    swapped = text[:-8] + ("a" if text[-8] != "a" else "b") + text[-7:]
    with pytest.raises(Unauthenticated, match="checksum"):
        await authenticator(NoDatabase()).authenticate(f"Bearer {swapped}")


async def test_a_key_is_known_with_its_pepper_until_it_is_revoked_or_expires(scratch: Scratch) -> None:
    tenant = uuid4()
    await scratch.add_tenant(tenant, "keys")
    text, key_id, secret = keys.make("live")
    await scratch.execute(
        "INSERT INTO hansa.api_keys (tenant_id, id, name, digest, roles) VALUES ($1, $2, 'k', $3, '{viewer}')",
        *(tenant, key_id, keys.digest(secret, PEPPER)),
    )
    async with open_database(scratch.settings.database) as database:

        async def knock(pepper: bytes = PEPPER, key: str = text) -> str:
            try:
                principal = await authenticator(database, pepper).authenticate(f"Bearer {key}")
            except Unauthenticated as error:
                return error.detail
            assert (principal.tenant_id, principal.tenant, principal.roles) == (tenant, "keys", ("viewer",))
            return "welcome"

        assert await knock() == "welcome"
        assert await knock(pepper=b"another pepper") == "the API key is not known here"
        assert await knock(key=keys.make("live")[0]) == "the API key is not known here"
        await scratch.execute("UPDATE hansa.api_keys SET expires_at = $1 WHERE id = $2", clock.now() + timedelta(hours=1), key_id)
        assert await knock() == "welcome"
        await scratch.execute("UPDATE hansa.api_keys SET expires_at = $1 WHERE id = $2", clock.now() - timedelta(seconds=1), key_id)
        assert await knock() == "the API key has expired"
        await scratch.execute("UPDATE hansa.api_keys SET expires_at = NULL, revoked_at = now() WHERE id = $1", key_id)
        assert await knock() == "the API key has been revoked"


async def test_a_caller_who_is_remembered_is_let_in_no_longer_than_the_key_lives(scratch: Scratch) -> None:
    tenant = uuid4()
    await scratch.add_tenant(tenant, "remembered")
    text, key_id, secret = keys.make("live")
    await scratch.execute(
        "INSERT INTO hansa.api_keys (tenant_id, id, name, digest, roles, expires_at) VALUES ($1, $2, 'k', $3, '{viewer}', $4)",
        *(tenant, key_id, keys.digest(secret, PEPPER), clock.now() + timedelta(seconds=1)),
    )
    async with open_database(scratch.settings.database) as database:
        known = authenticator(database)
        assert (await known.authenticate(f"Bearer {text}")).tenant_id == tenant
        await asyncio.sleep(1.1)  # less than what is known of a key is kept for
        with pytest.raises(Unauthenticated, match="expired"):
            await known.authenticate(f"Bearer {text}")
        assert CACHE_SECONDS > 1.5


async def test_a_copy_of_the_database_holds_no_secret(scratch: Scratch) -> None:
    key = scratch.key_file.read_text().strip()
    secret = keys.parse(key).secret
    rows = await scratch.fetch("SELECT k::text AS row FROM hansa.api_keys k")
    assert rows
    assert not [row for row in rows if secret in row["row"] or key in row["row"]]
    assert (scratch.key_file.stat().st_mode & 0o777) == 0o600
