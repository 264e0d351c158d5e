"""A tenant that leaves: exported as one file, imported elsewhere, and removed until nothing is left of it."""
