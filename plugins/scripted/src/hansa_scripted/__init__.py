"""Model provider that follows a script. `plugin` is where Hansa begins."""
