"""The REST API `/v1`: HTTP in, slices' services, JSON out. Rules live in the slices, not here."""
