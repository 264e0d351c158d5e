"""The floor under accepting a run over HTTP: the same web server and framework, one statement under row-level security, an answer.

It checks no key, keeps no idempotency key, has no session, log or agent: a limit, not an equal. PostgreSQL: the schema that
`prepare` makes, used as a role that row-level security holds.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import uvicorn
import uvloop
from litestar import Litestar, Response, post

POOL = 8
TENANT = uuid.UUID(int=1)
SCHEMA = """
CREATE SCHEMA floor;
CREATE TABLE floor.runs (
  tenant uuid NOT NULL, id uuid PRIMARY KEY, input json NOT NULL, state text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON floor.runs (tenant, at);
ALTER TABLE floor.runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE floor.runs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON floor.runs USING (tenant = (SELECT current_setting('floor.tenant', true)::uuid));
CREATE FUNCTION floor.accept(p_tenant uuid, p_run uuid, p_input json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('floor.tenant', p_tenant::text, true);
  INSERT INTO floor.runs (tenant, id, input, state) VALUES (p_tenant, p_run, p_input, 'queued');
END $$;
CREATE ROLE floor LOGIN PASSWORD 'floor';
GRANT USAGE ON SCHEMA floor TO floor;
GRANT SELECT, INSERT ON floor.runs TO floor;
"""


class Asked(msgspec.Struct):
    """The body."""

    input: Any


async def prepare(admin_url: str) -> None:
    """Make the schema and the role."""
    admin = await asyncpg.connect(admin_url)
    await admin.execute(SCHEMA)
    await admin.close()


def create_app(url: str) -> Litestar:
    """The application over a database."""

    @asynccontextmanager
    async def opened(app: Litestar) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url, min_size=POOL, max_size=POOL) as pool:
            app.state.pool = pool
            yield

    @post("/runs", status_code=202)
    async def accept(data: Asked) -> Response[bytes]:
        run = uuid.uuid4()
        await app.state.pool.execute("SELECT floor.accept($1, $2, $3)", TENANT, run, msgspec.json.encode(data.input).decode())
        return Response(b'{"id":"%b","state":"queued"}' % str(run).encode(), media_type="application/json")

    app = Litestar([accept], lifespan=[opened], openapi_config=None, logging_config=None)
    return app


async def main() -> None:
    app = create_app(os.environ["BENCH_DATABASE"])
    config = uvicorn.Config(app, port=int(os.environ["BENCH_PORT"]), loop="none", http="httptools", ws="none", log_config=None)
    config.access_log = False
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main())
