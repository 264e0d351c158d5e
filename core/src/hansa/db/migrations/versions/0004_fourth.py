"""The fourth schema: what has changed since the third, one part a file. An earlier function that a part replaces is named there."""

from hansa.db.migrate import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for part in ("storage",):
        run_script(f"0004_{part}.sql")
