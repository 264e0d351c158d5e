"""Model provider for a small model on this machine. `plugin` is where Hansa begins."""
