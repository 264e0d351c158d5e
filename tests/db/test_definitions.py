"""Functions and views are those of the code, in a database as in another, whoever brings them, when, and how often."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from db.scratch import Scratch, open_scratch
from hansa.db import selfcheck
from hansa.db.defining import EDITION, Definitions, read, read_from
from hansa.db.migrate import migrate
from hansa.db.pool import open_database
from hansa.db.roles import ensure_roles
from hansa.errors import Misconfigured, Unavailable
from stack import Stack

STANDING = """
SELECT CASE prokind WHEN 'f' THEN 'FUNCTION' ELSE prokind::text END AS kind, proname AS name
FROM pg_proc WHERE pronamespace = 'hansa'::regnamespace
UNION ALL SELECT 'VIEW', relname FROM pg_class WHERE relnamespace = 'hansa'::regnamespace AND relkind IN ('v', 'm')
"""
CATALOG = """
SELECT p.oid::regprocedure::text AS name, concat_ws(' ', pg_get_functiondef(p.oid), p.proowner::regrole, p.proacl) AS told
FROM pg_proc p WHERE p.pronamespace = 'hansa'::regnamespace
UNION ALL SELECT c.relname, concat_ws(' ', pg_get_viewdef(c.oid), c.relowner::regrole, c.relacl, c.reloptions)
FROM pg_class c WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('v', 'm')
UNION ALL SELECT format('%s of %s', t.tgname, t.tgrelid::regclass), concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
FROM pg_trigger t WHERE NOT t.tgisinternal
UNION ALL SELECT 'edition', concat_ws(' ', i.edition, i.definitions) FROM hansa.installation i
"""
POOL = "CASE (SELECT t.workers"
SLEEP = "\nSELECT pg_sleep(60);"


async def catalog(scratch: Scratch) -> dict[str, str]:
    """All that definitions make, with who owns it, who may use it and how it runs; and which edition it is said to be."""
    return {row["name"]: row["told"] for row in await scratch.fetch(CATALOG)}


async def different(scratch: Scratch, before: dict[str, str]) -> set[str]:
    """What of the catalog is not as it was."""
    now = await catalog(scratch)
    return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}


async def strays(scratch: Scratch) -> Counter[tuple[str, str]]:
    """Functions and views, once for each time that they are in the database and in no file."""
    found = Counter((row["kind"], row["name"]) for row in await scratch.fetch(STANDING))
    assert found
    found.subtract(read().made)
    return +found


async def refusal(scratch: Scratch) -> str:
    """What a process of this code says of the database; empty: it starts."""
    async with open_database(scratch.settings.database) as database:
        return "; ".join(await selfcheck.findings(database))


def edited(folder: Path, topic: str, old: str, new: str, *, editions: int = 1) -> Definitions:
    """Those of this code, but for a text, so many editions later."""
    standing = read()
    assert old in standing.texts[topic]
    for each, text in standing.texts.items():
        (folder / f"{each}.sql").write_text(text.replace(old, new, 1) if each == topic else text)
    (folder / EDITION).write_text(f"{standing.edition + editions} of-a-test\n")
    return read_from(folder)


async def test_every_function_and_view_has_one_definition(scratch: Scratch) -> None:
    made = Counter(read().made)
    assert [each for each, times in made.items() if times > 1] == []
    assert await strays(scratch) == Counter()
    # One that a revision forgot to drop, and one whose arguments were changed without dropping what it was.
    await scratch.execute("CREATE FUNCTION hansa.forgotten() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    await scratch.execute("CREATE FUNCTION hansa.run_cancel(uuid) RETURNS json LANGUAGE sql AS 'SELECT NULL::json'")
    assert await strays(scratch) == Counter({("FUNCTION", "forgotten"): 1, ("FUNCTION", "run_cancel"): 1})


async def test_brought_again_they_leave_all_as_it_is_and_mend_what_is_not(scratch: Scratch) -> None:
    before = await catalog(scratch)
    await scratch.execute("UPDATE hansa.installation SET definitions = ''")
    await migrate(scratch.settings.database.url)
    assert await different(scratch, before) == set()
    await scratch.execute("ALTER FUNCTION hansa.tenant_purge SECURITY INVOKER RESET search_path")
    await scratch.execute("GRANT EXECUTE ON FUNCTION hansa.installation_bind TO PUBLIC; ALTER VIEW hansa.limits RESET (security_invoker)")
    await scratch.execute(
        "CREATE OR REPLACE FUNCTION hansa.pool_of(p_tenant uuid, p_pool text) RETURNS text LANGUAGE sql AS 'SELECT p_pool'"
    )
    await scratch.execute("UPDATE hansa.installation SET definitions = ''")
    functions = {"hansa.tenant_purge(uuid,integer)", "hansa.installation_bind()", "hansa.pool_of(uuid,text)"}
    assert await different(scratch, before) == {*functions, "limits", "edition"}
    await migrate(scratch.settings.database.url)
    assert await different(scratch, before) == set()


async def test_a_changed_function_is_brought_once_and_older_code_leaves_it_alone(scratch: Scratch, tmp_path: Path) -> None:
    url, before, mine = scratch.settings.database.url, await catalog(scratch), read()
    newer = edited(tmp_path, "tenants", POOL, f"/* newer */ {POOL}")
    await asyncio.gather(*(migrate(url, newer) for _ in range(3)))
    assert await different(scratch, before) == {"hansa.pool_of(uuid,text)", "edition"}
    brought = await catalog(scratch)
    assert "/* newer */" in brought["hansa.pool_of(uuid,text)"]
    has, needs = f"{newer.edition} ({newer.digest[:8]})", f"{mine.edition} ({mine.digest[:8]})"
    assert await refusal(scratch) == f"the functions are those of edition {has}, this code needs {needs}; run `hansa migrate`"
    with pytest.raises(Misconfigured, match=f"edition {newer.edition}, which this version of Hansa does not know"):
        await migrate(url)
    assert await catalog(scratch) == brought


@pytest.mark.parametrize("editions", [-1, 0])
async def test_those_of_an_older_version_or_of_another_branch_are_replaced(scratch: Scratch, tmp_path: Path, editions: int) -> None:
    url, before = scratch.settings.database.url, await catalog(scratch)
    other = edited(tmp_path, "tenants", POOL, f"/* other */ {POOL}", editions=editions)
    await scratch.execute("UPDATE hansa.installation SET edition = 0")
    await migrate(url, other)
    assert f"those of edition {other.edition} ({other.digest[:8]})" in await refusal(scratch)
    await migrate(url)
    assert await catalog(scratch) == before
    assert await refusal(scratch) == ""


async def test_one_that_somebody_dropped_is_missed_and_brought_again(scratch: Scratch) -> None:
    before = await catalog(scratch)
    await scratch.execute("DROP FUNCTION hansa.run_cancel; DROP FUNCTION hansa.limits_untold; DROP VIEW hansa.limits")
    told = [f"the {what} is not there; run `hansa migrate`" for what in ("view hansa.limits", "function hansa.limits_untold")]
    assert await refusal(scratch) == "; ".join([*told, "the function hansa.run_cancel is not there; run `hansa migrate`"])
    await migrate(scratch.settings.database.url)
    assert await catalog(scratch) == before
    assert await refusal(scratch) == ""


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("DECLARE v_prefix text :=", "DECLARE v_prefix text !=", "DECLARE v_prefix text", "syntax error at or near"),
        (POOL, "CASE (SELECT t.jobs", "CASE (SELECT t.jobs", "column t.jobs does not exist"),
        ("p_pool text) RETURNS text", "p_pool text) RETURNS uuid", "FUNCTION hansa.pool_of", "cannot change return type"),
    ],
)
async def test_one_that_the_database_refuses_names_its_line_and_changes_nothing(
    scratch: Scratch, tmp_path: Path, old: str, new: str, line: str, said: str
) -> None:
    before = await catalog(scratch)
    broken = edited(tmp_path, "tenants", old, new)
    number = next(n for n, each in enumerate(broken.texts["tenants"].splitlines(), 1) if line in each)
    with pytest.raises(Misconfigured) as refused:
        await migrate(scratch.settings.database.url, broken)
    assert refused.value.detail.startswith(f"definitions/tenants.sql:{number}: PostgreSQL refuses it: {said}")
    assert await catalog(scratch) == before


async def test_a_new_database_has_all_of_them_or_no_schema(stack: Stack, tmp_path: Path) -> None:
    async with open_scratch(stack, tmp_path, migrated=False) as empty:
        await ensure_roles(empty.settings.database)
        with pytest.raises(Misconfigured, match=r"definitions/messaging\.sql"):
            await migrate(empty.settings.database.url, edited(tmp_path, "messaging", "CREATE OR REPLACE", "CREATE OR ELSE"))
        assert await empty.fetch("SELECT FROM pg_class WHERE relnamespace = 'hansa'::regnamespace") == []


async def test_a_migrator_that_is_killed_has_done_nothing_and_the_next_one_does_it(scratch: Scratch, tmp_path: Path) -> None:
    url, before = scratch.settings.database.url, await catalog(scratch)
    slow, newer = tmp_path / "slow", tmp_path / "newer"
    slow.mkdir()
    newer.mkdir()
    wanted = edited(newer, "tenants", POOL, f"/* newer */ {POOL}")
    killed = asyncio.create_task(migrate(url, edited(slow, "values", "-- Large values", f"{SLEEP}-- Large values", editions=2)))
    asleep = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60);' AND datname = current_database()"
    while not (found := await scratch.fetch(asleep)):
        await asyncio.sleep(0.02)
    next_one = asyncio.create_task(migrate(url, wanted))
    await scratch.execute("SELECT pg_terminate_backend($1)", found[0]["pid"])
    with pytest.raises(Unavailable, match="went away during the migration"):
        await killed
    await next_one
    assert await different(scratch, before) == {"hansa.pool_of(uuid,text)", "edition"}


async def test_a_migrator_that_wants_what_another_holds_and_the_other_way_round_tries_again(scratch: Scratch, tmp_path: Path) -> None:
    before = await catalog(scratch)
    await scratch.execute(f"ALTER DATABASE {scratch.settings.database.url.rpartition('/')[2]} SET deadlock_timeout = '20ms'")
    locking = "\nLOCK TABLE hansa.agents; LOCK TABLE hansa.tenants;\n"
    wanted = edited(tmp_path, "values", "-- Large values", f"{locking}-- Large values")
    await scratch.execute("SET deadlock_timeout = '60s'")
    async with scratch.owner.transaction():  # as who applies an agent: its tenant, then it
        await scratch.execute("LOCK TABLE hansa.tenants IN ROW SHARE MODE")
        migrator = asyncio.create_task(migrate(scratch.settings.database.url, wanted))
        while not await scratch.fetch("SELECT FROM pg_locks WHERE NOT granted AND relation = 'hansa.tenants'::regclass"):
            await asyncio.sleep(0.01)
        await scratch.execute("LOCK TABLE hansa.agents IN ROW EXCLUSIVE MODE")
    await migrator
    assert await different(scratch, before) == {"edition"}
