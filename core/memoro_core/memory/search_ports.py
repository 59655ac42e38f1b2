"""What searching memories needs from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memoro_core.ids import ConversationId, MemoryId, TenantId, UserId
from memoro_core.llm.model import Usage, Vector
from memoro_core.memory.model import Memory, MemoryFilter


class QuestionMeter(Protocol):
    """What asking a provider for a question's vector costs the house; tenants pay nothing for it."""

    def check(self, most: Usage) -> None:
        """Raises PRICE_UNKNOWN when nobody can say what that costs."""
        ...

    def used(self, tenant_id: TenantId, usage: Sequence[Usage]) -> None:
        """Takes note of what a question has used. Never waits."""
        ...


@dataclass(frozen=True, slots=True)
class CandidateQuery:
    """What to look for. `model` names whose vectors `vector` can be compared with (`EmbeddingModel.key`)."""

    user_id: UserId
    text: str
    vector: Vector
    model: str
    filter: MemoryFilter


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that may bear on the question, as far as ranking needs it.

    `excerpt` is the beginning of its text, 2,000 characters at most. `similarity` is the cosine with the question, None
    when the memory has no vector of that model; `lexical` is its BM25 score for the question, 0 when it has none of its
    words.
    """

    memory_id: MemoryId
    excerpt: str
    speaker: str | None
    conversation_id: ConversationId | None
    position: int
    occurred_at: datetime
    similarity: float | None
    lexical: float


class SearchStore(Protocol):
    """Finds memories by what they say."""

    async def find_candidates(self, tenant_id: TenantId, query: CandidateQuery) -> Sequence[Candidate]:
        """Those closest by meaning, those closest by words, and the turns beside either; all fit the filter.

        In no order. Deterministic as long as nothing is written.
        """
        ...

    async def get_memories(self, tenant_id: TenantId, memory_ids: Sequence[MemoryId]) -> Mapping[MemoryId, Memory]:
        """Those of them that are there."""
        ...
