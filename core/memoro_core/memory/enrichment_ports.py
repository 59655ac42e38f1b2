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
class Work:
    """What a job has to do, and for how many jobs of a user its tenant lets entities and facts be found in an hour.

    `relation_detections` is None where that is not limited, or nothing is to be done.
    """

    items: Sequence[Enrichable]
    relation_detections: int | None = None


@dataclass(frozen=True, slots=True)
class Relating:
    """Finding entities and facts, left to a later job: the user's limit per hour, and what it may cost at most."""

    relation_detections: int
    cost_bound: int


@dataclass(frozen=True, slots=True)
class Enrichment:
    """All that a job has found out: a vector per memory, and the graph of them together.

    With `relating` there are no findings yet: a job is made that finds them.
    """

    model: EmbeddingModel
    vectors: Sequence[tuple[MemoryId, Vector]]
    findings: Findings
    relating: Relating | None = None


class EnrichmentStore(Protocol):
    """Reads what a job enriches, and writes what comes out of it."""

    async def load(self, tenant_id: TenantId, job_id: JobId, memory_ids: Sequence[MemoryId]) -> Work:
        """Those of the memories that are still this very job's, in the order asked for."""
        ...

    async def find_entities(self, tenant_id: TenantId, user_id: UserId, names: NamesToFind) -> Sequence[KnownEntity]:
        """The user's entities that have one of the names, or are persons with one of the first names."""
        ...

    async def commit(
        self, claim: Claim, enrichment: Enrichment, finish: Callable[[JobResult], Finish], *, now: datetime
    ) -> JobEvent:
        """Writes everything and ends the job in one transaction; the terminal event.

        A memory that was deleted or given to another job meanwhile is left out. What a memory had stated before is
        taken back first. Memories whose entities and facts are found later become the job's that finds them: it is
        DEFERRED until the user's limit lets it through, and the result names it. Raises LeaseLost, and ProviderError
        when the deployment holds vectors of another model; nothing is written then.
        """
        ...

    async def commit_graph(
        self,
        claim: Claim,
        memory_ids: Sequence[MemoryId],
        findings: Findings,
        finish: Callable[[JobResult], Finish],
        *,
        now: datetime,
    ) -> JobEvent:
        """Writes what was found in memories that are ready, and ends the job in one transaction; the terminal event.

        A memory that was deleted or given to another job meanwhile is left out. Raises LeaseLost.
        """
        ...


class RelationSlots(Protocol):
    """Counts for how many jobs of a user entities and facts were found in the last hour, over all workers."""

    async def take(self, claim: Claim, per_hour: int, *, now: datetime) -> bool:
        """Whether the job may find them now: then it counts, once, whatever its attempts within the hour.

        In any hour there are no more than `per_hour` that may. What waits for its turn comes before jobs that are new.
        """
        ...

    async def put_off(
        self, claim: Claim, per_hour: int, finish: Callable[[datetime], Finish], *, now: datetime
    ) -> JobEvent:
        """Ends the run with its job DEFERRED until its turn, which `finish` is told; the event.

        A job that is asked to cancel is CANCELLED instead. Raises LeaseLost.
        """
        ...


class RelationBounds(Protocol):
    """Reckons what finding entities and facts costs at most."""

    def bound_relations(self, memories: Sequence[Memory], *, at: datetime) -> int:
        """What one attempt over these memories costs at most, in micro-credits. Raises PRICE_UNKNOWN."""
        ...
