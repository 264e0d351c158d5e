"""Key-encryption keys in a file, secrets in folders. `plugin` is where Hansa begins."""
