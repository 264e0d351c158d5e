"""Hansa in Kubernetes: objects of a cluster are brought to the control plane, and its answers into their status.

Imports `hansa_crds` only. kopf is behind `shell.py`, HTTP behind `transport.py`, Prometheus behind `metrics.py`.
"""
