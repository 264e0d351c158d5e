"""A platform of which some tenants have a database to themselves: on the same server, and one on a server of its own that may be away."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import msgspec

from hansa.db.migrate import migrate as upgrade
from hansa.db.pool import patiently
from hansa.dev.environment import ROLES, role_url
from hansa.dev.folder import DataFolder
from hansa.dev.postgres import EmbeddedPostgres
from hansa.dev.supervisor import Supervisor
from hansa.migration import migrate
from hansa.settings import Settings
from hansa.tenants.service import tenant_id
from runs.engine import Engine
from samples import SCRIPTED, agent
from stack import Process, Stack, free_port

STEPS: dict[str, Any] = {"runtime": {"name": "steps"}, "tools": [{"plugin": "witness"}, {"agent": "leaf"}]}
LEAF: dict[str, Any] = {"runtime": {"name": "steps"}, "tools": [{"plugin": "witness"}]}
QUICK = {"HANSA_ISOLATION_PROBE_SECONDS": "4", "HANSA_AUDIT_SEAL_SECONDS": "1"}
Manifest = dict[str, Any]


def tenant(name: str, *, database: str = "Dedicated", **spec: Any) -> Manifest:
    """A Tenant."""
    spec = {**spec, "isolation": {"database": database}}
    return {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


def inside(name: str) -> list[Manifest]:
    """Its model, and agents that do as they are told."""
    manifests = (SCRIPTED, agent("stem", **STEPS), agent("leaf", **LEAF))
    return [{**each, "metadata": {**each["metadata"], "namespace": name}} for each in manifests]


class City:
    """The platform, and where the databases of its tenants are: name -> the admin's URL. `start` starts its processes anew."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.file = stack.folder / "dedicated.toml"
        self.places: dict[str, str] = {}
        self.engine: Engine | None = None
        self.workers: list[Process] = []

    @property
    def settings(self) -> Settings:
        """Those of `hansa migrate`."""
        settings = self.stack.settings
        return msgspec.structs.replace(settings, database=msgspec.structs.replace(settings.database, dedicated_file=str(self.file)))

    def name(self, places: Mapping[str, str]) -> None:
        """Write down the databases of tenants."""
        self.places = dict(places)
        self.file.write_text("".join(_table(self.stack, name, url) for name, url in places.items()))

    async def make(self, *names: str) -> None:
        """Databases for these tenants on the platform's server: copies of one, which is quicker than migrating each."""
        blank = self.url("blank")
        await self.admin("CREATE DATABASE blank")
        await _prepare(blank)
        await upgrade(blank)
        for each in names:
            await self.admin(f'CREATE DATABASE "{each}" TEMPLATE blank')
        await self.admin("DROP DATABASE blank")
        self.name({**self.places, **{each: self.url(each) for each in names}})

    def url(self, database: str) -> str:
        """The admin's URL of a database of the platform's server."""
        return urlsplit(self.stack.admin_url)._replace(path=f"/{database}").geturl()

    async def migrate(self) -> None:
        await migrate(self.settings)

    def start(self) -> None:
        """A control plane and a worker that know the databases."""
        self.stop()
        self.engine = City._Engine(self)
        self.workers.append(self.engine.worker(**QUICK))

    class _Engine(Engine):
        def __init__(self, city: "City") -> None:
            self.city = city
            super().__init__(city.stack)

        def replica(self) -> Process:
            return self.stack.serve(**self._env, HANSA_TOOL_FICKLE="elsewhere", **self.known)

        def worker(self, **extra: str) -> Process:
            return super().worker(**self.known, **extra)

        @property
        def known(self) -> dict[str, str]:
            return {"HANSA_DATABASE_DEDICATED_FILE": str(self.city.file), "HANSA_DATABASE_TIMEOUT_SECONDS": "4"}

    @property
    def running(self) -> Engine:
        assert self.engine is not None
        return self.engine

    def stop(self) -> None:
        for process in (*self.workers, *([self.engine.control_plane] if self.engine else [])):
            process.stop()
        self.workers, self.engine = [], None

    async def admin(self, sql: str) -> None:
        connection = await asyncpg.connect(self.stack.admin_url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def fetch(self, database: str, sql: str, *arguments: Any) -> list[Any]:
        """Rows of a tenant's own database, or of the platform's (""), as a superuser sees them."""
        connection = await asyncpg.connect(self.places[database] if database else self.stack.admin_url)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    async def rows(self, database: str, name: str) -> dict[str, int]:
        """How many rows of a tenant each table of a database has."""
        tables = await self.fetch(
            database,
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
            "WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition",
        )
        counts = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM hansa.{table} WHERE tenant_id = $1" for (table,) in tables)
        return {table: count for table, count in await self.fetch(database, counts, tenant_id(name)) if count}


def _table(stack: Stack, name: str, url: str) -> str:
    passwords = {variable: stack.servers.folder.secret(secret) for variable, (_, secret) in ROLES.items()}
    lines = [f"[{name}]", f'url = "{url}"']
    for variable, (role, _) in ROLES.items():
        lines.append(f'{variable.removeprefix("HANSA_DATABASE_").lower()} = "{role_url(url, role, passwords[variable])}"')
    return "\n".join(lines) + "\n\n"


async def _prepare(url: str) -> None:
    """What `hansa migrate` does of a database before it migrates it, on a server that has the roles."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE SCHEMA hansa AUTHORIZATION hansa_owner")
    await connection.execute("GRANT USAGE ON SCHEMA hansa TO hansa_app, hansa_system")
    await connection.close()


@contextmanager
def open_city(stack: Stack, *names: str, running: bool = True) -> Iterator[City]:
    """A city with databases for these tenants, migrated and, if it is to run, started. A loop of the caller's may be running."""
    city = City(stack)

    async def found() -> None:
        await city.make(*names)
        await city.migrate()

    try:
        with ThreadPoolExecutor(1) as apart:
            apart.submit(asyncio.run, found()).result()
        if running:
            city.start()
        yield city
    finally:
        city.stop()


@asynccontextmanager
async def open_server(folder: Path, port: int = 0) -> AsyncIterator[str]:
    """A PostgreSQL of its own while the context is open, over what the folder has; the admin's URL."""
    async with DataFolder(folder) as data, Supervisor(data, report=lambda _stage, _detail: None) as supervisor:
        postgres = EmbeddedPostgres(data, supervisor, port=port or free_port())
        await postgres.start()
        await postgres.ready()
        url = postgres.url(password=True)
        await (await patiently(lambda: asyncpg.connect(url), 10)).close()
        yield url


async def applied(client: httpx2.AsyncClient, *manifests: Manifest) -> list[dict[str, Any]]:
    """What became of each."""
    answer = await client.post("/v1/objects:apply", json={"objects": [{"manifest": each} for each in manifests]})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def conditions(view: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in view["conditions"]}
