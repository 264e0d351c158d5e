"""Tenants and regions as the platform keeps them."""
