"""The third schema: what has changed since the second, one part a file. A function of 0001 or 0002 that a part replaces is named there."""

from hansa.db.migrate import run_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for part in ("ownership", "limits", "rollout", "agents", "messaging", "dedicated"):
        run_script(f"0003_{part}.sql")
