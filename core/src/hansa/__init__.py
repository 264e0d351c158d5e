"""Hansa's control plane and workers. Start at `process.py`, the one composition root."""
