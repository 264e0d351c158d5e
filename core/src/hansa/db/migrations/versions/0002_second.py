"""The second schema: what makes tenants accountable, bounded and deletable. Until it is released, parts are added to it."""

from hansa.db.migrate import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for part in ("audit", "identity", "issuers", "budgets", "metering", "secrets"):
        run_script(f"0002_{part}.sql")
