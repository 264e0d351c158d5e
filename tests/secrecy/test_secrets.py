"""Secrets of tenants over a real database: who can read what, and what an intruder who writes there achieves."""

import secrets as randomness
from pathlib import Path
from typing import Any

import pytest

from hansa.auth.model import Principal
from hansa.errors import Conflict, Damaged, Invalid, NotFound
from hansa.secrets.failures import SecretsAway, SecretsRefused
from hansa.tenants.secrets.model import KEPT_VERSIONS
from hansa.tenants.secrets.service import MissingSecret
from secrecy.safe import Safe, as_owner, key_file, open_safe
from stack import Stack

CANARY = f"canary-{randomness.token_hex(16)}"


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a-", "a/b", "a" * 64, "a|b", "../x"])
async def test_a_wrong_name_is_refused(safe: Safe, mine: Principal, name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        await safe.put(mine, name, CANARY)


@pytest.mark.parametrize("value", ["", "a#b#c", "x" * 65_537])
async def test_a_value_that_is_too_short_or_too_long_is_refused_and_not_told(safe: Safe, mine: Principal, value: str) -> None:
    with pytest.raises(Invalid, match="value") as refused:
        await safe.put(mine, "smtp", value)
    assert not value or value not in str(refused.value)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a/", "a b", "a\\b", "ä"])
async def test_a_path_that_could_lead_elsewhere_is_refused(safe: Safe, mine: Principal, path: str) -> None:
    with pytest.raises(Invalid, match="path"):
        await safe.refer(mine, "smtp", "folder", path)


async def test_a_source_that_no_plugin_brings_is_refused(safe: Safe, mine: Principal) -> None:
    with pytest.raises(Invalid, match=r"no loaded plugin brings the secret source 'floppy' \(loaded: .*folder"):
        await safe.refer(mine, "smtp", "floppy", "a")


async def test_a_secret_of_another_tenant_is_not_there(safe: Safe, mine: Principal, theirs: Principal) -> None:
    await safe.put(mine, "smtp", CANARY)
    with pytest.raises(MissingSecret, match="there is no secret 'smtp'"):
        await safe.secrets.value(theirs.tenant_id, "smtp")
    for asking in (safe.secrets.get(theirs, "smtp"), safe.secrets.delete(theirs, "smtp")):
        with pytest.raises(NotFound):
            await asking
    assert await safe.secrets.page(theirs, after="", limit=10) == ([], None)
    assert await safe.secrets.value(mine.tenant_id, "smtp") == CANARY


async def test_what_is_set_is_used_at_once_everywhere_and_the_last_version_counts(
    safe: Safe, mine: Principal, stack: Stack, keys: Path
) -> None:
    async with open_safe(stack.settings, key_file=str(keys)) as other:
        for number in range(KEPT_VERSIONS + 3):
            assert (await safe.put(mine, "smtp", f"{CANARY} {number}"))["version"] == number + 1
            assert await other.secrets.value(mine.tenant_id, "smtp") == f"{CANARY} {number}"
        shown = await safe.secrets.get(mine, "smtp")
    assert f'"versions" : {list(range(4, KEPT_VERSIONS + 4))}' in shown
    assert CANARY not in shown


async def test_a_secret_stays_tied_to_its_hosts_until_it_is_said_otherwise(safe: Safe, mine: Principal) -> None:
    hosts = ["api.example.org", "*.example.net:8443", "192.0.2.0/24"]
    assert (await safe.put(mine, "smtp", CANARY))["hosts"] is None
    assert (await safe.put(mine, "smtp", CANARY, hosts))["hosts"] == hosts
    assert (await safe.put(mine, "smtp", CANARY))["hosts"] == hosts
    assert (await safe.refer(mine, "smtp", "folder", "a"))["hosts"] == hosts
    assert (await safe.put(mine, "smtp", CANARY, []))["hosts"] is None
    for wrong in ("", "https://x.example", "a b", "*", "x:0", "1.2.3.4.5", "ä.example"):
        with pytest.raises(Invalid, match="hosts"):
            await safe.put(mine, "smtp", CANARY, [wrong])


async def test_a_key_picks_a_text_of_a_json_object(safe: Safe, mine: Principal) -> None:
    await safe.put(mine, "mail", f'{{"user": "anna", "password": "{CANARY}", "port": 25}}')
    assert await safe.secrets.value(mine.tenant_id, "mail", "password") == CANARY
    for key in ("nothing", "port"):
        with pytest.raises(MissingSecret, match="no key"):
            await safe.secrets.value(mine.tenant_id, "mail", key)
    assert CANARY not in safe.redactor.text(mine.tenant_id, f"password={CANARY}")


async def test_nothing_readable_is_in_the_database(safe: Safe, mine: Principal, stack: Stack) -> None:
    await safe.put(mine, "smtp", CANARY)
    rows = await as_owner(stack.settings, mine.tenant_id, "SELECT s::text, k::text FROM hansa.secrets s, hansa.data_keys k")
    text = str(rows)
    assert "smtp" in text
    assert CANARY not in text
    assert CANARY.encode().hex() not in text


async def test_a_value_that_was_moved_to_another_tenant_is_refused(safe: Safe, mine: Principal, theirs: Principal, stack: Stack) -> None:
    await safe.put(mine, "smtp", CANARY)
    await safe.put(theirs, "smtp", "what they have")
    (row,) = await as_owner(stack.settings, mine.tenant_id, "SELECT sealed FROM hansa.secrets")
    (key,) = await as_owner(stack.settings, mine.tenant_id, "SELECT wrapped FROM hansa.data_keys")
    await as_owner(stack.settings, theirs.tenant_id, "UPDATE hansa.secrets SET sealed = $1", row["sealed"])
    with pytest.raises(Damaged):
        await safe.secrets.value(theirs.tenant_id, "smtp")
    # Nor does it help to bring the key along: that is bound to its tenant, too.
    await as_owner(stack.settings, theirs.tenant_id, "UPDATE hansa.data_keys SET wrapped = $1", key["wrapped"])
    with pytest.raises(SecretsRefused, match="another tenant's"):
        await safe.secrets.value(theirs.tenant_id, "smtp")


async def test_a_value_that_was_moved_to_another_name_or_version_is_refused(safe: Safe, mine: Principal, stack: Stack) -> None:
    await safe.put(mine, "smtp", CANARY)
    await safe.put(mine, "smtp", "the second version")
    await safe.put(mine, "other", "of another name")
    move = "UPDATE hansa.secrets SET sealed = (SELECT sealed FROM hansa.secrets WHERE name = 'smtp' AND version = 1) WHERE name = $1"
    for name in ("other", "smtp"):
        await as_owner(
            stack.settings, mine.tenant_id, move + " AND version = (SELECT max(version) FROM hansa.secrets WHERE name = $1)", name
        )
        with pytest.raises(Damaged, match="moved"):
            await safe.secrets.value(mine.tenant_id, name)


@pytest.mark.parametrize("bytes_left", [0, 11, 12, 27, 28, 30])
async def test_a_row_that_was_cut_off_is_refused(safe: Safe, mine: Principal, stack: Stack, bytes_left: int) -> None:
    await safe.put(mine, "smtp", CANARY)
    await as_owner(stack.settings, mine.tenant_id, f"UPDATE hansa.secrets SET sealed = substr(sealed, 1, {bytes_left})")
    with pytest.raises(Damaged) as refused:
        await safe.secrets.value(mine.tenant_id, "smtp")
    assert "Set the secret again" in refused.value.hint


async def test_a_wrong_key_encryption_key_opens_nothing(safe: Safe, mine: Principal, stack: Stack, tmp_path: Path) -> None:
    await safe.put(mine, "smtp", CANARY)
    (tmp_path / "wrong").mkdir()
    wrong = key_file(tmp_path / "wrong", "another key-encryption key, as long as that")
    async with open_safe(stack.settings, key_file=str(wrong)) as stranger:
        with pytest.raises(SecretsRefused, match=r"the key [0-9a-f]{12} is not in the file"):
            await stranger.secrets.value(mine.tenant_id, "smtp")
        with pytest.raises(SecretsRefused):
            await stranger.secrets.prepare(mine.tenant_id)


async def test_a_key_file_that_is_away_is_a_passing_fault_and_what_it_says_helps(
    safe: Safe, mine: Principal, stack: Stack, keys: Path
) -> None:
    await safe.put(mine, "smtp", CANARY)
    async with open_safe(stack.settings, key_file=str(keys)) as other:
        away = keys.rename(keys.with_name("away"))
        with pytest.raises(SecretsAway) as refused:
            await other.secrets.value(mine.tenant_id, "smtp")
        assert (refused.value.status, refused.value.retryable, refused.value.retry_after) == (503, True, 5.0)
        assert "HANSA_SECRETS_KEY_FILE" in refused.value.hint
        away.rename(keys)
        assert await other.secrets.value(mine.tenant_id, "smtp") == CANARY


@pytest.mark.parametrize(
    ("kek", "options", "told"),
    [
        ("file", {}, "HANSA_SECRETS_KEY_FILE is not set"),
        ("floppy", {}, "no loaded plugin brings the key provider 'floppy'"),
        ("file", {"key_file": "/dev/null"}, "holds no key"),
    ],
)
async def test_a_process_without_a_key_says_what_to_set(
    stack: Stack, mine: Principal, kek: str, options: dict[str, Any], told: str
) -> None:
    async with open_safe(stack.settings, kek=kek, **options) as safe:
        with pytest.raises(SecretsRefused, match=told):
            await safe.put(mine, "smtp", CANARY)


async def test_a_secret_that_an_object_names_is_not_deleted(safe: Safe, mine: Principal, stack: Stack) -> None:
    await safe.put(mine, "smtp", CANARY)
    manifest = '{"spec": {"credentials": {"secret": "smtp"}}}'
    insert = (
        "INSERT INTO hansa.objects (tenant_id, kind, name, generation, manager, manifest, digest) "
        "VALUES ($1, 'ModelProvider', 'claude', 1, 'rest', $2, '')"
    )
    await as_owner(stack.settings, mine.tenant_id, insert, mine.tenant_id, manifest)
    with pytest.raises(Conflict, match="ModelProvider claude"):
        await safe.secrets.delete(mine, "smtp")
    await as_owner(stack.settings, mine.tenant_id, "DELETE FROM hansa.objects")
    await safe.secrets.delete(mine, "smtp")
    with pytest.raises(MissingSecret):
        await safe.secrets.value(mine.tenant_id, "smtp")


async def test_a_shredded_tenant_s_values_can_t_be_opened_from_a_backup(safe: Safe, mine: Principal, stack: Stack) -> None:
    await safe.put(mine, "smtp", CANARY)
    (row,) = await as_owner(stack.settings, mine.tenant_id, "SELECT sealed FROM hansa.secrets")
    async with safe.database.tenant(mine.tenant_id) as connection:
        await safe.secrets.keys.shred(connection, mine.tenant_id)
    with pytest.raises(MissingSecret):
        await safe.secrets.value(mine.tenant_id, "smtp")
    await safe.put(mine, "smtp", "a new beginning")
    await as_owner(stack.settings, mine.tenant_id, "UPDATE hansa.secrets SET sealed = $1", row["sealed"])
    with pytest.raises(Damaged):
        await safe.secrets.value(mine.tenant_id, "smtp")
