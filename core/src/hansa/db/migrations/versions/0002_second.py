"""The second schema, in parts: see the SQL beside it."""

from hansa.db.migrate import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for part in ("secrets",):
        run_script(f"0002_{part}.sql")
