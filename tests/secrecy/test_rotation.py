"""Changing keys while everything goes on: nothing is ever unreadable, whoever is killed and however many change at once."""

import asyncio
import secrets as randomness
from pathlib import Path

import pytest

from hansa.auth.model import Principal
from hansa.errors import Conflict
from hansa.secrets import envelope
from hansa.secrets.failures import SecretsRefused
from secrecy.conftest import KEK
from secrecy.safe import Safe, as_owner, key_file, open_safe
from stack import Stack

CANARY = f"canary-{randomness.token_hex(16)}"


async def fill(safe: Safe, who: Principal, count: int) -> dict[str, str]:
    """Secrets with names and values of their own; the first has two versions."""
    values = {f"secret-{number}": f"{CANARY} {number}" for number in range(count)}
    await safe.put(who, "secret-0", "an older version")
    for name, value in values.items():
        await safe.put(who, name, value)
    return values


async def all_of(safe: Safe, who: Principal, names: list[str]) -> dict[str, str]:
    return {name: await safe.secrets.value(who.tenant_id, name) for name in names}


async def generations(stack: Stack, who: Principal) -> tuple[set[int], set[int]]:
    """Generations of the tenant's data keys, and those that seal its secrets."""
    keys = await as_owner(stack.settings, who.tenant_id, "SELECT generation FROM hansa.data_keys")
    used = await as_owner(stack.settings, who.tenant_id, "SELECT DISTINCT generation FROM hansa.secrets WHERE sealed IS NOT NULL")
    return {row["generation"] for row in keys}, {row["generation"] for row in used}


async def test_a_generation_that_is_not_next_is_refused(safe: Safe, mine: Principal) -> None:
    await safe.put(mine, "smtp", CANARY)
    with pytest.raises(Conflict, match=r"generation 3 is neither the newest \(1\) nor the next"):
        await safe.rotation.rotate(mine, 3)


async def test_after_a_rotation_the_old_key_is_gone_and_every_version_readable(
    safe: Safe, mine: Principal, theirs: Principal, stack: Stack
) -> None:
    values, foreign = await fill(safe, mine, 7), await fill(safe, theirs, 2)
    before = await as_owner(stack.settings, mine.tenant_id, "SELECT sealed FROM hansa.secrets")
    done = await safe.rotation.rotate(mine, None)
    assert (done.generation, done.total, done.left, done.finished) == (2, 8, 0, True)
    assert await generations(stack, mine) == ({2}, {2})
    assert await generations(stack, theirs) == ({1}, {1})
    assert await all_of(safe, mine, list(values)) == values
    assert await all_of(safe, theirs, list(foreign)) == foreign
    after = await as_owner(stack.settings, mine.tenant_id, "SELECT sealed FROM hansa.secrets")
    assert not {row["sealed"] for row in before} & {row["sealed"] for row in after}


async def test_a_rotation_that_was_killed_goes_on_and_meanwhile_all_is_readable(
    safe: Safe, mine: Principal, stack: Stack, keys: Path
) -> None:
    values = await fill(safe, mine, 7)
    killed = asyncio.create_task(safe.rotating(2).rotate(mine, 2))
    while (await safe.rotation.progress(mine)).left in (0, 8):
        await asyncio.sleep(0)
    killed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await killed
    state = await safe.rotation.progress(mine)
    assert (state.generation, state.finished) == (2, False)
    assert (await generations(stack, mine))[0] == {1, 2}
    async with open_safe(stack.settings, key_file=str(keys)) as other:
        assert await all_of(other, mine, list(values)) == values
        done = await other.rotation.rotate(mine, 2)
        assert (done.generation, done.left, done.finished) == (2, 0, True)
        assert await all_of(other, mine, list(values)) == values
    assert await generations(stack, mine) == ({2}, {2})


async def test_two_rotations_at_once_make_one_new_key_while_secrets_are_set_and_used(
    safe: Safe, mine: Principal, stack: Stack, keys: Path
) -> None:
    values = await fill(safe, mine, 12)
    over = asyncio.Event()

    async def use() -> int:
        looks = 0
        while not over.is_set():
            await safe.put(mine, "busy", f"{CANARY} busy {looks}")
            assert await safe.secrets.value(mine.tenant_id, "busy") == f"{CANARY} busy {looks}"
            assert await all_of(safe, mine, list(values)) == values
            looks += 1
        return looks

    async with open_safe(stack.settings, key_file=str(keys)) as other:
        using = asyncio.create_task(use())
        await asyncio.gather(safe.rotating(1).rotate(mine, 2), other.rotating(1).rotate(mine, 2))
        over.set()
        assert await using > 0
        assert (await other.rotation.rotate(mine, 2)).finished
    assert await generations(stack, mine) == ({2}, {2})


async def test_a_damaged_version_is_named_and_holds_up_nobody(safe: Safe, mine: Principal, stack: Stack) -> None:
    values = await fill(safe, mine, 3)
    await as_owner(stack.settings, mine.tenant_id, "UPDATE hansa.secrets SET sealed = substr(sealed, 1, 20) WHERE name = 'secret-1'")
    done = await safe.rotation.rotate(mine, None)
    assert (done.damaged, done.left, done.finished) == (("secret-1 v1",), 1, True)
    assert (await generations(stack, mine))[0] == {1, 2}
    for _ in range(2):  # the rotation after the next can do no more, and no less
        done = await safe.rotation.rotate(mine, None)
        assert done.damaged == ("secret-1 v1",)
    await safe.secrets.delete(mine, "secret-1")
    assert (await safe.rotation.rotate(mine, None)).damaged == ()
    assert len((await generations(stack, mine))[0]) == 1
    del values["secret-1"]
    assert await all_of(safe, mine, list(values)) == values


async def test_a_new_key_encryption_key_takes_over_without_a_pause(
    safe: Safe, mine: Principal, stack: Stack, keys: Path, tmp_path: Path
) -> None:
    values = await fill(safe, mine, 2)
    before = await as_owner(stack.settings, mine.tenant_id, "SELECT wrapped FROM hansa.data_keys")
    newer = "a newer key-encryption key, in a line before"
    key_file(tmp_path, newer, KEK)
    state = await safe.rotation.wrapping()
    assert state.left >= 1
    assert await all_of(safe, mine, list(values)) == values
    done = await safe.rotation.rewrap(mine)
    assert mine.tenant not in {each.tenant for each in done.failed}
    (after,) = await as_owner(stack.settings, mine.tenant_id, "SELECT wrapped, key_id FROM hansa.data_keys")
    assert (after["key_id"], after["wrapped"] != before[0]["wrapped"]) == (done.key_id, True)
    # The old line may go: nothing needs it any more.
    key_file(tmp_path, newer)
    async with open_safe(stack.settings, key_file=str(keys)) as other:
        assert await all_of(other, mine, list(values)) == values


async def test_a_data_key_that_can_t_be_rewrapped_is_named_and_the_others_go_on(
    safe: Safe, mine: Principal, theirs: Principal, stack: Stack, tmp_path: Path
) -> None:
    await safe.put(mine, "smtp", CANARY)
    await safe.put(theirs, "smtp", CANARY)
    await as_owner(stack.settings, mine.tenant_id, "UPDATE hansa.data_keys SET wrapped = substr(wrapped, 1, 20)")
    key_file(tmp_path, "one more key-encryption key in a line before", KEK)
    done = await safe.rotation.rewrap(mine)
    assert "damaged" in {each.tenant: each.reason for each in done.failed}[mine.tenant]
    (row,) = await as_owner(stack.settings, theirs.tenant_id, "SELECT key_id FROM hansa.data_keys")
    assert row["key_id"] == done.key_id


async def test_a_killed_rewrap_leaves_every_data_key_openable(
    safe: Safe, mine: Principal, stack: Stack, keys: Path, tmp_path: Path
) -> None:
    await safe.put(mine, "smtp", CANARY)
    key_file(tmp_path, "a key-encryption key that takes over and is killed", KEK)
    for pause in range(12):
        task = asyncio.create_task(safe.rotation.rewrap(mine))
        for _ in range(pause):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with open_safe(stack.settings, key_file=str(keys)) as other:
            assert await other.secrets.value(mine.tenant_id, "smtp") == CANARY


async def test_a_key_that_moved_to_another_provider_is_opened_by_the_one_that_wrapped_it(safe: Safe, mine: Principal, stack: Stack) -> None:
    await safe.put(mine, "smtp", CANARY)
    await as_owner(stack.settings, mine.tenant_id, "UPDATE hansa.data_keys SET kek = 'vanished'")
    async with open_safe(stack.settings, key_file="none") as other:
        with pytest.raises(SecretsRefused, match="'vanished'"):
            await other.secrets.value(mine.tenant_id, "smtp")


def test_a_control_with_one_key_for_all_names_would_be_caught() -> None:
    """The oracle of the tests above is that a moved value does not open: one that was bound to nothing would."""
    key = envelope.new_data_key()
    unbound = envelope.seal(key, CANARY.encode(), b"")
    assert envelope.unseal(key, unbound, b"") == CANARY.encode()
