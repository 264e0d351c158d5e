"""The audit trail: who changed what, in one chain of rows a tenant. Knows no HTTP, and nobody who is audited."""
