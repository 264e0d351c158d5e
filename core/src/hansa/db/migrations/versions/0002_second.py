"""The second schema: what tenants need. Each part is one subject; what it replaces of the first schema it says."""

from hansa.db.migrate import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for part in ("identity", "issuers", "accounts"):
        run_script(f"0002_{part}.sql")
