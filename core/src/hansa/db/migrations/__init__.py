"""Alembic environment and revisions; driven by `hansa.db.migrate`."""
