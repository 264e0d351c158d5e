"""Connections to PostgreSQL, roles, migrations and the start-up check. The one door to the database."""
