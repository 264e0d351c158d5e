"""NATS accounts of tenants: how each shall be, whether the server knows it, and what tenants' own programs log in with."""
