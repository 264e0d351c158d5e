"""The second schema: what has changed since the first release, one part a file. A function of 0001 that a part replaces is
named there; `suspension` is the last, since it amends functions that others replace.
"""

from hansa.db.migrate import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    parts = (
        *("audit", "identity", "issuers", "accounts", "budgets", "storage", "secrets", "messaging", "tenants", "workers"),
        *("suspension", "metering", "engine", "leaving"),
    )
    for part in parts:
        run_script(f"0002_{part}.sql")
