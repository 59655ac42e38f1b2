"""Hints in, domain calls out: one process that runs jobs, and the scheduler that one of them leads with."""
