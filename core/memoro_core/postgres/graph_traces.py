"""What memories leave behind in the graph, and taking it back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memoro_core.ids import MemoryId, TenantId, UserId
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("graph_traces")


async def lock_graphs_in(connection: Connection, tenant_id: TenantId, user_ids: Sequence[UserId]) -> None:
    """Waits until no other transaction writes these users' graphs, and keeps others from it until this one ends.

    Whoever writes a graph holds this lock, and takes it after the memories' row locks: so writers of one graph neither
    miss each other's rows nor wait for each other in a circle.
    """
    await connection.execute(_SQL["lock_graphs"], tenant_id, user_ids)


async def remove_traces_in(connection: Connection, tenant_id: TenantId, memory_ids: Sequence[MemoryId]) -> None:
    """Takes back, within a transaction of the tenant, all that only these memories state.

    Embeddings, mentions and provenance go. So do facts that lose their last source (what such a fact had superseded
    stands again, or gives way to the next in line) and entities that nothing tells of any more. Call it with the
    memories' rows locked, before they are deleted.
    """
    if not memory_ids:
        return
    users = await connection.fetch(_SQL["users_of_memories"], tenant_id, memory_ids)
    await lock_graphs_in(connection, tenant_id, [row["user_id"] for row in users])
    await connection.execute(_SQL["remove_embeddings"], tenant_id, memory_ids)
    # Each step looks at what the one before it has left, so that they can't be one statement.
    mentioned = await connection.fetch(_SQL["remove_mentions"], tenant_id, memory_ids)
    stated = await connection.fetch(_SQL["remove_sources"], tenant_id, memory_ids)
    if stated:
        facts = [row["relationship_id"] for row in stated]
        removed = await connection.fetch(_SQL["remove_unfounded"], tenant_id, facts)
        if removed:
            facts = [row["relationship_id"] for row in removed]
            await connection.execute(_SQL["mend_superseded"], tenant_id, facts)
    if mentioned:
        await connection.execute(_SQL["remove_orphans"], tenant_id, [row["entity_id"] for row in mentioned])
