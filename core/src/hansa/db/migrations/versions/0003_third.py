"""The third schema: what Git as the source needs, one part a file. A function of an earlier schema that a part replaces is named there."""

from hansa.db.migrate import run_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for part in ("rollout",):
        run_script(f"0003_{part}.sql")
