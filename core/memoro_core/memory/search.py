"""Searching a user's memories for what bears on a question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from memoro_core.errors import ProviderError, invalid_field
from memoro_core.ids import TenantId
from memoro_core.llm.model import Usage, Vector
from memoro_core.llm.ports import EmbeddingProvider
from memoro_core.memory.model import SearchHit, SearchQuery
from memoro_core.memory.ranking import Ranked, Scores, Weights, rank, relatedness
from memoro_core.memory.search_ports import Candidate, CandidateQuery, QuestionMeter, SearchStore
from memoro_core.memory.words import WordVectors, words_of

MAX_DEPTH: Final = 200
"""How many hits deep pages reach."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page of hits, best first, and whether another page follows."""

    hits: Sequence[SearchHit]
    more: bool


class SearchService:
    """Answers questions with memories. The only model call on the way is the question's embedding.

    `words` tells which words mean nearly the same; without it, only a question's own words count. `meter` is told what
    questions use; without it, they cost nothing.
    """

    def __init__(
        self,
        store: SearchStore,
        embedder: EmbeddingProvider,
        words: WordVectors | None,
        *,
        meter: QuestionMeter | None = None,
        weights: Weights | None = None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._words = words
        self._meter = meter
        self._weights = weights or Weights()

    async def search(self, tenant_id: TenantId, query: SearchQuery) -> SearchResult:
        """The hits from `offset` on, `limit` at most, 200 deep; none for a user without memories.

        Raises INVALID_FIELD, PRICE_UNKNOWN, ProviderError, UNAVAILABLE.
        """
        if query.limit < 1 or query.offset < 0:
            raise invalid_field("page_size", "must be positive")
        vector = await self._vector(tenant_id, query.text)
        candidates = await self._store.find_candidates(
            tenant_id,
            CandidateQuery(query.user_id, query.text, vector, self._embedder.model.key, query.filter),
        )
        related = await self._relatedness(query.text, candidates)
        # Some milliseconds of computing, which other calls should not have to wait for.
        ranking = await asyncio.to_thread(rank, query.text, candidates, related, self._weights)
        fitting = min(ranking.count(query.min_score), MAX_DEPTH)
        end = min(query.offset + query.limit, fitting)
        return SearchResult(await self._hits(tenant_id, ranking.part(query.offset, end)), end < fitting)

    async def _vector(self, tenant_id: TenantId, question: str) -> Vector:
        if self._meter is None:
            return (await self._embedder.embed([question])).vectors[0]
        most = self._embedder.bound([question])
        self._meter.check(most)
        # What is not told is taken for the most.
        usage: Sequence[Usage] = [most]
        try:
            embeddings = await self._embedder.embed([question])
            usage = embeddings.usage
        except ProviderError as error:
            usage = [most] if error.unaccounted else error.usage
            raise
        finally:
            self._meter.used(tenant_id, [most if one.unaccounted else one for one in usage])
        return embeddings.vectors[0]

    async def _relatedness(self, question: str, candidates: Sequence[Candidate]) -> Scores | None:
        if self._words is None or not candidates or self._weights.related == 0:
            return None
        asked, spoken = await asyncio.to_thread(_words, question, candidates)
        vocabulary = list(dict.fromkeys([*asked, *(word for words in spoken for word in words)]))
        table = await self._words.vectors(vocabulary)
        rows = {word: row for row, word in enumerate(vocabulary)}
        return await asyncio.to_thread(relatedness, asked, spoken, rows, table)

    async def _hits(self, tenant_id: TenantId, page: Sequence[Ranked]) -> Sequence[SearchHit]:
        if not page:
            return ()
        memories = await self._store.get_memories(tenant_id, [one.candidate.memory_id for one in page])
        # One that was deleted this very moment is left out.
        return [
            SearchHit(memories[one.candidate.memory_id], one.score, one.arms)
            for one in page
            if one.candidate.memory_id in memories
        ]


def _words(question: str, candidates: Sequence[Candidate]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The question's words but for the names of who speaks in the candidates, and each candidate's words."""
    names = {word for speaker in {c.speaker for c in candidates if c.speaker} for word in words_of(speaker)}
    asked = [word for word in words_of(question) if word not in names]
    return asked, [words_of(candidate.excerpt) for candidate in candidates]
