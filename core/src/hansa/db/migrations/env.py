"""Alembic's environment: runs the revisions on the connection that `hansa.db.migrate` lends."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table_schema="hansa", transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
