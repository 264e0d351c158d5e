"""Finding, checking and holding plugins."""
