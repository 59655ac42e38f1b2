"""What PostgreSQL tells of a deployment."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from memoro_core.diagnosis.model import DatabaseFacts, KeyFacts, RoleFacts, ServerFacts, VectorFacts, WallFacts
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.embedding_model import for_dimensions
from memoro_core.postgres.queries import load_queries
from memoro_core.tenancy.bootstrap import DEV_ADMIN_KEY, DEV_KEY, DEV_TENANT

_SQL: Final = load_queries("diagnosis")


class PostgresInspector:
    """Asks as the service's own role, which sees its own powers, the catalogue and the keys of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def facts(self, *, dimensions: int) -> DatabaseFacts:
        """All it tells; of the vector indexes, that for so many dimensions. Raises UNAVAILABLE."""
        async with self._database.system_tx() as connection:
            return DatabaseFacts(
                role=await _role(connection),
                walls=WallFacts(
                    unforced=[record["name"] for record in await connection.fetch(_SQL["unforced_tables"])],
                    strange=[record["name"] for record in await connection.fetch(_SQL["strange_policies"])],
                ),
                server=await _server(connection),
                vectors=await _vectors(connection, dimensions),
                keys=await _keys(connection),
                migrations=frozenset(record["version"] for record in await connection.fetch(_SQL["applied_versions"])),
            )

    async def now(self) -> datetime:
        """The time of its clock. Raises UNAVAILABLE."""
        async with self._database.system_tx() as connection:
            return await connection.fetchval(_SQL["time_of_day"])  # type: ignore[no-any-return]


async def _role(connection: Connection) -> RoleFacts:
    [record] = await connection.fetch(_SQL["role_facts"])
    return RoleFacts(
        name=record["rolname"],
        superuser=record["rolsuper"],
        bypasses_rls=record["rolbypassrls"],
        owned=record["owned"],
    )


async def _server(connection: Connection) -> ServerFacts:
    [record] = await connection.fetch(_SQL["server_facts"])
    return ServerFacts(**record)


async def _vectors(connection: Connection, dimensions: int) -> VectorFacts:
    await connection.fetchval(_SQL["load_vector_library"])
    [record] = await connection.fetch(for_dimensions(_SQL["vector_facts"], dimensions))
    return VectorFacts(**record)


async def _keys(connection: Connection) -> KeyFacts:
    [record] = await connection.fetch(_SQL["key_facts"], DEV_TENANT, DEV_KEY, DEV_ADMIN_KEY)
    return KeyFacts(**record)
