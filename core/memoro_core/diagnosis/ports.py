"""Whom a diagnosis asks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from memoro_core.diagnosis.model import DatabaseFacts, RedisNode


class DatabaseInspector(Protocol):
    """PostgreSQL, asked as the service."""

    async def facts(self, *, dimensions: int) -> DatabaseFacts:
        """All it tells; of the vector indexes, that for so many dimensions. Raises UNAVAILABLE."""
        ...

    async def now(self) -> datetime:
        """The time of its clock. Raises UNAVAILABLE."""
        ...


class RedisInspector(Protocol):
    """Redis, of whichever topology."""

    async def nodes(self) -> Sequence[RedisNode]:
        """The servers that hold keys. Raises UNAVAILABLE."""
        ...

    async def now(self) -> datetime:
        """The time of its clock. Raises UNAVAILABLE."""
        ...
