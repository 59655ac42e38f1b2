"""What enriching memories needs from the outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from memoro_core.graph.resolution import Findings, KnownEntity, NamesToFind
from memoro_core.ids import JobId, MemoryId, TenantId, UserId
from memoro_core.jobs.model import Claim, Finish, JobEvent, JobResult
from memoro_core.llm.model import EmbeddingModel, Vector
from memoro_core.memory.model import Memory

MAX_PRECEDING: Final = 3
"""How many turns before a text help to read it."""
MAX_PRECEDING_CHARS: Final = 630
"""How long each of them can be: a speaker of 128 characters, a colon, and 500 characters of the text."""


@dataclass(frozen=True, slots=True)
class Enrichable:
    """A memory to enrich, and the turns just before it in its conversation, oldest first, as "speaker: text".

    There are at most MAX_PRECEDING turns of at most MAX_PRECEDING_CHARS characters each.
    """

    memory: Memory
    preceding: Sequence[str]


@dataclass(frozen=True, slots=True)
class Enrichment:
    """All that a job has found out: a vector per memory, and the graph of them together."""

    model: EmbeddingModel
    vectors: Sequence[tuple[MemoryId, Vector]]
    findings: Findings


class EnrichmentStore(Protocol):
    """Reads what a job enriches, and writes what comes out of it."""

    async def load(self, tenant_id: TenantId, job_id: JobId, memory_ids: Sequence[MemoryId]) -> Sequence[Enrichable]:
        """Those of the memories that still wait for this very job, in the order asked for."""
        ...

    async def find_entities(self, tenant_id: TenantId, user_id: UserId, names: NamesToFind) -> Sequence[KnownEntity]:
        """The user's entities that have one of the names, or are persons with one of the first names."""
        ...

    async def commit(
        self, claim: Claim, enrichment: Enrichment, finish: Callable[[JobResult], Finish], *, now: datetime
    ) -> JobEvent:
        """Writes everything and ends the job in one transaction; the terminal event.

        A memory that was deleted or given to another job meanwhile is left out. What a memory had stated before is
        taken back first. Raises LeaseLost, and ProviderError when the deployment holds vectors of another model;
        nothing is written then.
        """
        ...
