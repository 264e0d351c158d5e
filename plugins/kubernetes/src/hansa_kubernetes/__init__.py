"""Kubernetes Secrets as a secret source. `plugin` is where Hansa begins."""
