"""The second revision of the schema: what tenants got. Each part is a file of its own."""

from hansa.db.migrate import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for part in ("messaging",):
        run_script(f"0002_{part}.sql")
