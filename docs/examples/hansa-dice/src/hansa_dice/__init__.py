"""A third-party plugin. `plugin` is where Hansa begins."""
