"""The oldest servers that will do, and where they end."""

from __future__ import annotations

from typing import Final

OLDEST_POSTGRES: Final = 160_000
"""Memberships with their own INHERIT and SET came with PostgreSQL 16."""
OLDEST_PGVECTOR: Final = (0, 8)
"""Scans that go on until enough rows pass the filter came with it."""
MAX_INDEXED_DIMENSIONS: Final = 2_000
"""pgvector indexes no longer vectors; those are always compared one by one."""
OLDEST_REDIS: Final = (6, 2)
OLDEST_VALKEY: Final = (7, 2)
