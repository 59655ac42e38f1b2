"""Servers that stand in for what tests can't reach."""
