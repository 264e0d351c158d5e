"""Model provider for Claude. `plugin` is where Hansa begins; importing anything else here imports the vendor SDK."""
