"""The fourth schema: what has changed since the third, one part a file. From here on revisions make no functions and no views: their
newest text is in `hansa/db/definitions`, and what the parts of earlier revisions say of a function is how it was then.
"""

from hansa.db.migrate import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for part in ("definitions", "namespaces", "owed", "sources"):
        run_script(f"0004_{part}.sql")
