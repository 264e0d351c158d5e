"""The second schema: what has changed since the first release, one part a file. A function of 0001 that a part replaces is named there."""

from hansa.db.migrate import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for part in ("audit", "identity", "issuers", "budgets", "secrets", "messaging", "suspension", "metering", "engine"):
        run_script(f"0002_{part}.sql")
