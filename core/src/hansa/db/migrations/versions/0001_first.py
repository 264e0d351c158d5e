"""The first schema: tables, policies, grants and the engine's functions. Written once; later changes are later revisions."""

from hansa.db.migrate import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_script("0001_tables.sql")
    run_script("0001_functions.sql")
