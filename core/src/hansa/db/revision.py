"""The revision of the schema that this code needs. Apart from Alembic, so that serving processes need not load it."""

HEAD = "0004"
