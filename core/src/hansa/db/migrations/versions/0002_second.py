"""The second schema: each part is what one subject adds or changes."""

from hansa.db.migrate import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for part in ("budgets", "metering"):
        run_script(f"0002_{part}.sql")
