"""PostgreSQL and Redis started from wheels, and everything that `memoro dev` runs."""

from memoro_core.embedded.errors import EmbeddedError
from memoro_core.embedded.postgres import EmbeddedPostgres
from memoro_core.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]
