"""Which sessions, runs and approvals somebody may see and touch whose roles hold in some namespaces only."""
