"""Calling tools: which an agent may use, what they are given, what becomes of their answers."""
