"""The first schema: tables, policies, grants and the engine's functions. Written once; later changes are later revisions."""

from hansa.db.migrate import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    for part in ("tables", "values", "log", "accept", "drive", "waits", "control", "messages", "retention", "limits"):
        run_script(f"0001_{part}.sql")
