"""HashiCorp Vault as keeper of keys and secrets. `plugin` is where Hansa begins."""
