"""The secrets of a tenant: kept encrypted with a key of its own, looked up when they are used, shown to nobody."""
