"""Secrets that objects name and processes look up."""
