"""Enrichment in PostgreSQL: one read before the providers are asked, one transaction after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import pgvector

from memoro_core.graph.resolution import EntityKey, Findings, FoundEntity, FoundFact, KnownEntity, NamesToFind
from memoro_core.graph.validity import ONE_AT_A_TIME
from memoro_core.ids import EntityId, JobId, MemoryId, TenantId, UserId, new_id
from memoro_core.jobs.model import Claim, Finish, JobEvent, JobResult
from memoro_core.jobs.run_ports import LeaseLost
from memoro_core.memory.enrichment_ports import Enrichable, Enrichment
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.embedding_model import claim_embedding_model_in
from memoro_core.postgres.graph_traces import lock_graphs_in, remove_traces_in
from memoro_core.postgres.memory_rows import memory_of
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.run_store import finish_in

_SQL: Final = load_queries("enrichment")


class PostgresEnrichmentStore:
    """An `EnrichmentStore`."""

    def __init__(self, database: Database, holds: CreditHolds) -> None:
        self._database = database
        self._holds = holds

    async def load(self, tenant_id: TenantId, job_id: JobId, memory_ids: Sequence[MemoryId]) -> Sequence[Enrichable]:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            rows = await connection.fetch(_SQL["load_enrichable"], tenant_id, memory_ids, job_id)
        loaded = {row["memory_id"]: Enrichable(memory_of(row), row["preceding"]) for row in rows}
        return [loaded[memory_id] for memory_id in memory_ids if memory_id in loaded]

    async def find_entities(self, tenant_id: TenantId, user_id: UserId, names: NamesToFind) -> Sequence[KnownEntity]:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            rows = await connection.fetch(_SQL["find_entities"], tenant_id, user_id, names.names, names.first_names)
        return [KnownEntity(row["type"], row["name"], row["alias"]) for row in rows]

    async def commit(
        self, claim: Claim, enrichment: Enrichment, finish: Callable[[JobResult], Finish], *, now: datetime
    ) -> JobEvent:
        async with self._database.tenant_tx(claim.ref.tenant_id, generic_plans=True) as connection:
            result = await _write(connection, claim, enrichment, now)
            return await finish_in(connection, self._holds, claim, finish(result), now=now)


async def _write(connection: Connection, claim: Claim, enrichment: Enrichment, now: datetime) -> JobResult:
    tenant_id, user_id = claim.ref.tenant_id, claim.job.user_id
    if await connection.fetchval(_SQL["hold_run"], tenant_id, claim.ref.job_id, claim.lease) is None:
        raise LeaseLost
    memory_ids = [memory_id for memory_id, _ in enrichment.vectors]
    held = await connection.fetch(_SQL["hold_memories"], tenant_id, memory_ids, claim.ref.job_id)
    if not held:
        return JobResult()
    owned = {row["memory_id"] for row in held}
    await lock_graphs_in(connection, tenant_id, [user_id])
    # A memory in its first version has stated nothing yet.
    await remove_traces_in(connection, tenant_id, [row["memory_id"] for row in held if row["version"] > 1])
    await claim_embedding_model_in(connection, enrichment.model, now=now)
    vectors = [(memory_id, vector) for memory_id, vector in enrichment.vectors if memory_id in owned]
    await connection.execute(
        _SQL["store_vectors"],
        tenant_id,
        user_id,
        enrichment.model.key,
        [memory_id for memory_id, _ in vectors],
        [pgvector.Vector(vector) for _, vector in vectors],
        now,
    )
    await connection.execute(_SQL["make_ready"], tenant_id, list(owned), now)
    return await _Graph(connection, tenant_id, user_id, now).write(enrichment.findings, owned)


class _Graph:
    """Writes findings into one user's graph, whose lock the transaction holds."""

    def __init__(self, connection: Connection, tenant_id: TenantId, user_id: UserId, now: datetime) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._user_id = user_id
        self._now = now

    async def write(self, findings: Findings, memory_ids: set[MemoryId]) -> JobResult:
        """Writes what these memories tell, and nothing that only others do."""
        facts = [fact for fact in findings.facts if not memory_ids.isdisjoint(fact.memory_ids)]
        entities = [entity for entity in findings.entities if not memory_ids.isdisjoint(entity.memory_ids)]
        ids = await self._store_entities(entities, memory_ids) if entities else {}
        superseded = await self._store_facts(facts, ids, memory_ids) if facts else 0
        return JobResult(len(memory_ids), len(entities), len(facts), superseded)

    async def _store_entities(
        self, entities: Sequence[FoundEntity], memory_ids: set[MemoryId]
    ) -> Mapping[EntityKey, EntityId]:
        rows = await self._connection.fetch(
            _SQL["store_entities"],
            self._tenant_id,
            self._user_id,
            [new_id() for _ in entities],
            [entity.key[0] for entity in entities],
            [entity.name for entity in entities],
            [entity.key[1] for entity in entities],
            [list(entity.other_names) for entity in entities],
            self._now,
        )
        ids = {(row["type"], row["normalized_name"]): EntityId(row["entity_id"]) for row in rows}
        aliases = [(alias, ids[entity.key]) for entity in entities for alias in entity.aliases]
        await self._connection.execute(
            _SQL["store_aliases"], self._tenant_id, self._user_id, [a for a, _ in aliases], [i for _, i in aliases]
        )
        mentions = [
            (memory_id, ids[entity.key])
            for entity in entities
            for memory_id in entity.memory_ids
            if memory_id in memory_ids
        ]
        await self._connection.execute(
            _SQL["store_mentions"], self._tenant_id, [m for m, _ in mentions], [i for _, i in mentions]
        )
        return ids

    async def _store_facts(
        self, facts: Sequence[FoundFact], ids: Mapping[EntityKey, EntityId], memory_ids: set[MemoryId]
    ) -> int:
        rows = await self._connection.fetch(
            _SQL["store_facts"],
            self._tenant_id,
            self._user_id,
            [new_id() for _ in facts],
            [ids[fact.source] for fact in facts],
            [fact.predicate for fact in facts],
            [ids[fact.target] for fact in facts],
            [fact.confidence for fact in facts],
            [fact.valid_from for fact in facts],
            [fact.valid_to for fact in facts],
            self._now,
        )
        sources = [
            (row["relationship_id"], memory_id)
            for fact, row in zip(facts, rows, strict=True)
            for memory_id in fact.memory_ids
            if memory_id in memory_ids
        ]
        await self._connection.execute(
            _SQL["store_sources"], self._tenant_id, [r for r, _ in sources], [m for _, m in sources]
        )
        exclusive = [fact for fact in facts if fact.predicate in ONE_AT_A_TIME]
        if not exclusive:
            return 0
        superseded = await self._connection.fetch(
            _SQL["supersede"],
            self._tenant_id,
            [ids[fact.source] for fact in exclusive],
            [fact.predicate for fact in exclusive],
        )
        return len(superseded)
