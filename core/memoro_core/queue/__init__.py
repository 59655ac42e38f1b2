"""Hints to workers: the broker, the names of tasks, and what their messages hold."""
