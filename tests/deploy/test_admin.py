"""The admin of a database of one's own is no superuser: CREATEROLE, and the database, are enough for all that the pages have it do."""

from pathlib import Path

import asyncpg

from deploy.charts import PLATFORM, objects
from hansa.db import selfcheck
from hansa.db.pool import open_database
from hansa.db.revision import HEAD
from hansa.dev.environment import Places, for_migrate, role_url
from hansa.dev.servers import embedded_servers
from hansa.migration import migrate
from hansa.settings import load


async def test_an_admin_who_is_no_superuser_migrates_and_makes_the_scalers_role(tmp_path: Path) -> None:
    cluster = next(each for each in objects((PLATFORM / "examples/postgresql.yaml").read_text()) if each["kind"] == "Cluster")
    (role,) = cluster["spec"]["managed"]["roles"]
    assert role == {
        "name": "hansa_admin",
        "ensure": "present",
        "login": True,
        "createrole": True,
        "passwordSecret": {"name": "hansa-db-admin"},
    }
    async with embedded_servers(tmp_path / "data") as servers:
        superuser = servers.postgres.url(password=True)
        connection = await asyncpg.connect(superuser)
        await connection.execute("CREATE ROLE hansa_admin LOGIN CREATEROLE PASSWORD 'made-up'")
        await connection.execute("CREATE DATABASE hansa OWNER hansa_admin")
        await connection.close()
        url = role_url(superuser, "hansa_admin", "made-up").rpartition("/")[0] + "/hansa"
        settings = load(for_migrate({}, Places(servers.folder, url, servers.nats.url)))
        for told in ("a new API key was written", "the key file is in order"):
            revision, said = await migrate(settings)
            assert revision == HEAD
            assert told in said
        async with open_database(settings.database) as database:
            await selfcheck.check(database)
        connection = await asyncpg.connect(url)
        await connection.execute((PLATFORM / "examples/scaler.sql").read_text())
        await connection.execute("ALTER ROLE hansa_scaler LOGIN PASSWORD 'made-up'")
        await connection.close()
        scaler = await asyncpg.connect(role_url(url, "hansa_scaler", "made-up"))
        assert await scaler.fetchval("SELECT count(state) FROM hansa.runs") == 0
        await scaler.close()
