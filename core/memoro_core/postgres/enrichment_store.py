"""Enrichment in PostgreSQL: one read before the providers are asked, one transaction after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import pgvector

from memoro_core.graph.resolution import Findings, KnownEntity, NamesToFind
from memoro_core.ids import JobId, MemoryId, TenantId, UserId
from memoro_core.jobs.model import Claim, Finish, JobEvent, JobResult
from memoro_core.memory.enrichment_ports import Enrichable, Enrichment, Work
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.embedding_model import claim_embedding_model_in
from memoro_core.postgres.graph_traces import lock_graphs_in, remove_traces_in
from memoro_core.postgres.graph_writing import GraphWriter
from memoro_core.postgres.memory_rows import memory_of
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.relation_slots import leave_relations_in
from memoro_core.postgres.run_store import finish_in, hold_run_in

_SQL: Final = load_queries("enrichment")


class PostgresEnrichmentStore:
    """An `EnrichmentStore`."""

    def __init__(self, database: Database, holds: CreditHolds) -> None:
        self._database = database
        self._holds = holds

    async def load(self, tenant_id: TenantId, job_id: JobId, memory_ids: Sequence[MemoryId]) -> Work:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            rows = await connection.fetch(_SQL["load_enrichable"], tenant_id, memory_ids, job_id)
        if not rows:
            return Work(())
        loaded = {row["memory_id"]: Enrichable(memory_of(row), row["preceding"]) for row in rows}
        items = [loaded[memory_id] for memory_id in memory_ids if memory_id in loaded]
        return Work(items, rows[0]["relation_detections"])

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

    async def commit_graph(
        self,
        claim: Claim,
        memory_ids: Sequence[MemoryId],
        findings: Findings,
        finish: Callable[[JobResult], Finish],
        *,
        now: datetime,
    ) -> JobEvent:
        tenant_id, user_id = claim.ref.tenant_id, claim.job.user_id
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            await hold_run_in(connection, claim)
            held = await connection.fetch(_SQL["hold_memories"], tenant_id, list(memory_ids), claim.ref.job_id)
            result = JobResult()
            if held:
                await lock_graphs_in(connection, tenant_id, [user_id])
                owned = {row["memory_id"] for row in held}
                result = await GraphWriter(connection, tenant_id, user_id, now).write(findings, owned)
            return await finish_in(connection, self._holds, claim, finish(result), now=now)


async def _write(connection: Connection, claim: Claim, enrichment: Enrichment, now: datetime) -> JobResult:
    tenant_id, user_id = claim.ref.tenant_id, claim.job.user_id
    await hold_run_in(connection, claim)
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
    result = await GraphWriter(connection, tenant_id, user_id, now).write(enrichment.findings, owned)
    relate_job_id = None
    if enrichment.relating is not None:
        left = [memory_id for memory_id, _ in vectors]
        relate_job_id = await leave_relations_in(connection, claim, enrichment.relating, left, now=now)
    await connection.execute(_SQL["make_ready"], tenant_id, list(owned), now, relate_job_id)
    return replace(result, relate_job_id=relate_job_id)
