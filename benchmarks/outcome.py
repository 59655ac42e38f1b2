"""What became of the jobs of a tenant and of its money, as the owner of the tables sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Self
from uuid import UUID

import asyncpg

from memoro_core.ids import TenantId
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import open_database
from memoro_core.settings import Settings

_UNENDED: Final = "SELECT count(*) FROM jobs WHERE tenant_id = $1 AND state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"
_LOST: Final = """
SELECT count(*)
FROM unnest($2::uuid[]) AS accepted (job_id)
WHERE NOT EXISTS (
    SELECT FROM jobs WHERE tenant_id = $1 AND jobs.job_id = accepted.job_id AND state = 'SUCCEEDED')
"""
_NOT_ENDED_ONCE: Final = """
SELECT count(*)
FROM jobs
CROSS JOIN LATERAL (
    SELECT count(*) AS events, min(seq) AS first, max(seq) AS last,
           count(*) FILTER (WHERE event ->> 'state' IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) AS ends
    FROM job_events
    WHERE job_events.tenant_id = jobs.tenant_id AND job_events.job_id = jobs.job_id) AS told
WHERE tenant_id = $1 AND (ends <> 1 OR first <> 1 OR last <> last_seq OR events <> last_seq)
"""
_RESULTS_NOT_ONCE: Final = """
SELECT count(*)
FROM jobs
JOIN memories ON memories.tenant_id = jobs.tenant_id AND memories.memory_id = jobs.memory_ids[1]
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM memory_embeddings AS vector
            WHERE vector.tenant_id = $1 AND vector.memory_id = memories.memory_id) AS vectors,
           (SELECT count(*) FROM mentions AS mention
            WHERE mention.tenant_id = $1 AND mention.memory_id = memories.memory_id) AS entities,
           (SELECT count(*) FROM relationship_sources AS source
            WHERE source.tenant_id = $1 AND source.memory_id = memories.memory_id) AS facts) AS stored
WHERE jobs.tenant_id = $1
  AND (memories.status <> 'READY' OR vectors <> 1 OR entities = 0
       OR entities <> (result ->> 'entities')::integer OR facts <> (result ->> 'relationships')::integer)
"""
MONEY: Final[Mapping[str, str]] = {
    "money that is set aside for a job that has ended": """
        SELECT job_id, amount FROM credit_holds JOIN jobs USING (tenant_id, job_id)
        WHERE tenant_id = $1 AND credit_holds.state = 'PENDING' AND ended_at IS NOT NULL
        """,
    "a job whose money was not set aside once and given back once": """
        SELECT job_id, cost_bound, array_agg(ledger_entries.kind ORDER BY seq) AS entries
        FROM jobs LEFT JOIN ledger_entries USING (tenant_id, job_id)
        WHERE tenant_id = $1
        GROUP BY tenant_id, job_id, cost_bound
        HAVING count(*) FILTER (WHERE ledger_entries.kind = 'HOLD') <> (cost_bound > 0)::integer
            OR count(*) FILTER (WHERE ledger_entries.kind IN ('SETTLEMENT', 'RELEASE')) <> (cost_bound > 0)::integer
        """,
    "a job that was not charged what its calls cost": """
        SELECT job_id, jobs.charged, credit_holds.charged AS settled, cost, for_vectors, for_facts
        FROM jobs
        JOIN credit_holds USING (tenant_id, job_id)
        LEFT JOIN (SELECT tenant_id, job_id, sum(cost_pico_dollars) AS cost,
                          max(fee * items) FILTER (WHERE state = 'DONE' AND operation = 'embed') AS for_vectors,
                          max(fee * items) FILTER (WHERE state = 'DONE' AND operation = 'extract') AS for_facts
                   FROM ai_calls GROUP BY tenant_id, job_id) AS spent USING (tenant_id, job_id)
        WHERE tenant_id = $1
          AND (jobs.charged <> credit_holds.charged
            OR jobs.state = 'SUCCEEDED'
               AND jobs.charged
                   IS DISTINCT FROM ceil(cost * (10000 + margin_basis_points) / (10000 * 10000.0))
                                    + coalesce(for_vectors, 0) + coalesce(for_facts, 0))
        """,
    "a call whose end nobody has written": """
        SELECT job_id, ai_calls.attempt, call FROM ai_calls JOIN jobs USING (tenant_id, job_id)
        WHERE tenant_id = $1 AND ai_calls.state = 'OPEN' AND jobs.ended_at IS NOT NULL
        """,
    "an account that is not what its jobs have left": """
        SELECT held, spent FROM credit_accounts
        WHERE tenant_id = $1
          AND (held <> 0 OR spent <> (SELECT coalesce(sum(charged), 0) FROM jobs WHERE jobs.tenant_id = $1))
        """,
}
"""Each finds nothing in the rows of a tenant ($1) whose jobs have ended and were charged what they cost, once."""
_VERIFIED_WITHIN: Final = 30.0
"""Seconds for the check of a ledger."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Jobs of whom a caller was told, and those of them for which a promise was broken: in each count, zero is well.

    `lost` did not succeed; `not_ended_once` have another number of terminal events than one, or a gap in their events;
    `results_not_once` have less or more stored for their memory than one run of theirs says that it stored;
    `wrongly_charged` counts what `MONEY` finds.
    """

    accepted: int
    lost: int
    not_ended_once: int
    results_not_once: int
    wrongly_charged: int

    @property
    def whole(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.not_ended_once or self.results_not_once or self.wrongly_charged)

    @classmethod
    def sum(cls, outcomes: Iterable[Self]) -> Self:
        """All together."""
        listed = list(outcomes)
        return cls(*(sum(getattr(one, field.name) for one in listed) for field in fields(cls)))


async def count_unended(owner: asyncpg.Connection[asyncpg.Record], tenant_id: TenantId) -> int:
    """How many jobs of a tenant have not ended."""
    count: int = await owner.fetchval(_UNENDED, tenant_id)
    return count


async def read_outcome(
    owner: asyncpg.Connection[asyncpg.Record], tenant_id: TenantId, accepted: Sequence[str]
) -> Outcome:
    """What became of the jobs of a tenant, each with one memory, once all have ended."""
    return Outcome(
        len(accepted),
        await owner.fetchval(_LOST, tenant_id, [UUID(job_id) for job_id in accepted]),
        await owner.fetchval(_NOT_ENDED_ONCE, tenant_id),
        await owner.fetchval(_RESULTS_NOT_ONCE, tenant_id),
        sum([len(await owner.fetch(query, tenant_id)) for query in MONEY.values()]),
    )


async def ledger_stands(settings: Settings, tenant_id: TenantId) -> bool:
    """Whether all of a tenant's ledger proves to be whole."""
    async with open_database(settings) as database:
        verified = await PostgresCreditStore(database).verify(tenant_id, within=_VERIFIED_WITHIN)
    return verified.valid and verified.complete
