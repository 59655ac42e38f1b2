"""What became of the jobs of a tenant, as the owner of the tables sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Final, Self
from uuid import UUID

import asyncpg

from memoro_core.ids import TenantId

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """Jobs of whom a caller was told, and those of them for which a promise was broken: in each count, zero is well.

    `lost` did not succeed; `not_ended_once` have another number of terminal events than one, or a gap in their events;
    `results_not_once` have less or more stored for their memory than one run of theirs says that it stored.
    """

    accepted: int
    lost: int
    not_ended_once: int
    results_not_once: int

    @property
    def whole(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.not_ended_once or self.results_not_once)

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
    )
