"""Searching: what is found, by which arm, for whom, and in which order."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from memoro_core.errors import MemoroError, Reason
from memoro_core.ids import ConversationId, TenantId, UserId
from memoro_core.llm.local import LocalEmbeddingProvider
from memoro_core.memory.model import (
    Memory,
    MemoryFilter,
    MemoryKind,
    MemoryStatus,
    NewConversation,
    NewMemory,
    NewMessage,
    SearchHit,
    SearchQuery,
)
from memoro_core.memory.search import SearchService
from memoro_core.memory.search_ports import CandidateQuery
from memoro_core.memory.words import WordVectors
from memoro_core.postgres.search_store import PostgresSearchStore
from tests.support.domain import Domain
from tests.support.enrichment import Enricher

ALICE = UserId("alice")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Searcher:
    """A tenant with a search over it, whose vectors come from the local provider."""

    domain: Domain
    embedder: LocalEmbeddingProvider
    store: PostgresSearchStore
    service: SearchService

    async def add(self, *texts: str, enrich: bool = True, at: datetime = NOON, user: UserId = ALICE) -> list[Memory]:
        new = [NewMemory(user, text, {"n": n}, at) for n, text in enumerate(texts)]
        memories = [(await self.domain.memories.create(self.domain.tenant, one)).memory for one in new]
        await self._enrich(enrich)
        return memories

    async def converse(self, *turns: tuple[str, str], name: str = "chat", enrich: bool = True) -> Sequence[Memory]:
        messages = [
            NewMessage(text, speaker=speaker, occurred_at=NOON, metadata={"turn": n})
            for n, (speaker, text) in enumerate(turns)
        ]
        stored = await self.domain.memories.add_conversation(
            self.domain.tenant, NewConversation(ALICE, ConversationId(name), messages)
        )
        await self._enrich(enrich)
        return stored.memories

    async def search(
        self, text: str, *, user: UserId = ALICE, tenant: TenantId | None = None, **query: object
    ) -> Sequence[SearchHit]:
        question = replace(SearchQuery(user, text), **query)  # type: ignore[arg-type]
        return (await self.service.search(tenant or self.domain.tenant, question)).hits

    async def texts(self, text: str, **query: object) -> list[str]:
        return [hit.memory.text for hit in await self.search(text, **query)]  # type: ignore[arg-type]

    async def _enrich(self, enrich: bool) -> None:
        if enrich:
            enricher = Enricher(self.domain, extracts=False)
            enricher.embedder = self.embedder  # type: ignore[assignment]
            await enricher.run_all()
        else:
            self.domain.hinted.clear()


@pytest_asyncio.fixture
async def searcher(domain: Domain) -> AsyncIterator[Searcher]:
    embedder = LocalEmbeddingProvider()
    store = PostgresSearchStore(domain.database, exact_limit=10_000)
    yield Searcher(domain, embedder, store, SearchService(store, embedder, WordVectors(embedder)))
    await embedder.close()


async def test_what_was_just_accepted_is_found_by_its_words(searcher: Searcher) -> None:
    await searcher.add("I bought a telescope in Lyon.", "The weather was nice.", enrich=False)
    hits = await searcher.search("Where did I buy the telescopes?")
    assert hits[0].memory.text == "I bought a telescope in Lyon."
    assert hits[0].memory.status is MemoryStatus.PENDING
    arms = {arm.arm: arm for arm in hits[0].arms}
    assert "vector" not in arms
    assert arms["lexical"].rank == 1
    assert arms["lexical"].raw > 0


async def test_what_is_meant_is_found_without_a_word_in_common(searcher: Searcher) -> None:
    await searcher.add("We adopted a kitten.", "The car needs new tyres.", "I had soup.")
    hits = await searcher.search("feline pets")
    assert hits[0].memory.text == "We adopted a kitten."
    assert hits[0].memory.status is MemoryStatus.READY
    assert {"vector", "related"} <= {arm.arm for arm in hits[0].arms} < {"vector", "related", "lexical"}


async def test_contributions_add_up_and_scores_fall(searcher: Searcher) -> None:
    await searcher.converse(
        ("Ann", "What did you eat last Friday?"), ("Bob", "Noodles, with Carl."), ("Ann", "Carl eats noodles?")
    )
    hits = await searcher.search("When did Bob eat noodles?")
    assert len(hits) == 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        assert 0 <= hit.score <= 1
        assert hit.score == pytest.approx(sum(arm.contribution for arm in hit.arms))
    named = {arm.arm for hit in hits for arm in hit.arms}
    assert named == {"vector", "lexical", "related", "neighbour", "speaker", "time"}


async def test_the_turn_after_a_question_is_found_with_it(searcher: Searcher) -> None:
    filler = [("Ann", f"Chapter {n} was long.") for n in range(300)]
    await searcher.converse(*filler[:150], ("Ann", "What is your favourite tea?"), ("Bob", "Oolong!"), *filler[150:])
    texts = await searcher.texts("Which tea is the favourite of Bob?")
    assert set(texts[:2]) == {"What is your favourite tea?", "Oolong!"}


@pytest.mark.parametrize("enrich", [True, False], ids=["enriched", "pending"])
@pytest.mark.parametrize(
    ("memory_filter", "expected"),
    [
        (MemoryFilter(), {"tea alone", "tea one", "tea two", "cup"}),
        (MemoryFilter(kinds=[MemoryKind.TEXT]), {"tea alone"}),
        (MemoryFilter(kinds=[MemoryKind.MESSAGE]), {"tea one", "tea two", "cup"}),
        (MemoryFilter(conversation_id=ConversationId("c2")), {"tea two"}),
        (MemoryFilter(conversation_id=ConversationId("nowhere")), set()),
        (MemoryFilter(metadata={"n": 0}), {"tea alone"}),
        (MemoryFilter(metadata={"n": 0, "m": 1}), set()),
        (MemoryFilter(occurred_from=NOON), {"tea one", "tea two", "cup"}),
        (MemoryFilter(occurred_until=NOON), {"tea alone"}),
        (MemoryFilter(statuses=[MemoryStatus.FAILED]), set()),
    ],
)
async def test_a_filter_holds_in_every_arm(
    searcher: Searcher, memory_filter: MemoryFilter, expected: set[str], enrich: bool
) -> None:
    await searcher.add("tea alone", at=NOON - timedelta(days=1), enrich=enrich)
    await searcher.converse(("Ann", "tea one"), ("Bob", "cup"), name="c1", enrich=enrich)
    await searcher.converse(("Ann", "tea two"), name="c2", enrich=enrich)
    assert set(await searcher.texts("tea", filter=memory_filter)) == expected
    status = MemoryStatus.READY if enrich else MemoryStatus.PENDING
    assert set(await searcher.texts("tea", filter=replace(memory_filter, statuses=[status]))) == (
        expected if not memory_filter.statuses else {"tea alone", "tea one", "tea two", "cup"}
    )


async def test_a_turn_beside_a_hit_that_does_not_fit_the_filter_is_not_returned(searcher: Searcher) -> None:
    await searcher.converse(("Ann", "Do you like tea?"), ("Bob", "Yes."), enrich=False)
    assert await searcher.texts("tea") == ["Do you like tea?", "Yes."]
    assert await searcher.texts("tea", filter=MemoryFilter(metadata={"turn": 0})) == ["Do you like tea?"]
    assert await searcher.texts("tea", filter=MemoryFilter(metadata={"turn": 1})) == []


async def test_nobody_finds_what_is_another_users_or_another_tenants(searcher: Searcher) -> None:
    await searcher.add("The password is swordfish")
    assert await searcher.search("password swordfish", user=UserId("bob")) == ()
    assert await searcher.search("password swordfish", tenant=await searcher.domain.new_tenant()) == ()
    assert len(await searcher.search("password swordfish")) == 1


async def test_a_user_without_memories_finds_nothing(searcher: Searcher) -> None:
    result = await searcher.service.search(searcher.domain.tenant, SearchQuery(UserId("nobody"), "anything"))
    assert (result.hits, result.more) == ((), False)


async def test_a_question_of_common_words_alone_is_answered_by_meaning(searcher: Searcher) -> None:
    await searcher.add("What will be will be.", "Tea.")
    hits = await searcher.search("what will it be and who are they")
    assert hits
    assert {arm.arm for hit in hits for arm in hit.arms} == {"vector"}


@pytest.mark.parametrize(
    "question",
    [
        "???",
        "' | \\ & !tea:* <-> (",
        "\\'",
        "a" * 8000,
        "tea " * 2000,
        "日本語 🍵",
        "http://x.y/a'b\\c?d=e tea",
        "it's",
    ],
)
async def test_any_question_is_taken_as_it_stands(searcher: Searcher, question: str) -> None:
    await searcher.add("I drink tea at http://x.y/a'b\\c?d=e and it's good")
    hits = await searcher.search(question)
    assert all(0 < hit.score <= 1 for hit in hits)
    if "tea" in question:
        assert "lexical" in {arm.arm for arm in hits[0].arms}


async def test_pages_are_parts_of_one_list_that_ends_at_200(searcher: Searcher) -> None:
    await searcher.add(*(f"tea number {n}" for n in range(230)), enrich=False)
    whole = [hit.memory.id for hit in await searcher.search("tea", limit=200)]
    assert len(set(whole)) == 200
    pages = [
        [h.memory.id for h in await searcher.search("tea", limit=60, offset=offset)] for offset in (0, 60, 120, 180)
    ]
    assert [one for page in pages for one in page] == whole
    question = SearchQuery(ALICE, "tea", limit=60)
    results = [
        await searcher.service.search(searcher.domain.tenant, replace(question, offset=offset))
        for offset in (0, 120, 140, 180, 200)
    ]
    assert [result.more for result in results] == [True, True, False, False, False]
    assert results[-1].hits == ()


async def test_equal_hits_come_newest_first_every_time(searcher: Searcher) -> None:
    memories = await searcher.add(*["tea"] * 20, enrich=False)
    expected = [memory.id for memory in reversed(memories)][:10]
    for _ in range(3):
        assert [hit.memory.id for hit in await searcher.search("tea")] == expected


async def test_hits_below_the_least_score_are_left_out(searcher: Searcher) -> None:
    await searcher.add("tea", "tea and coffee and cake and soup and bread", "rain")
    scores = [hit.score for hit in await searcher.search("tea")]
    cut = (scores[0] + scores[1]) / 2
    assert [hit.score for hit in await searcher.search("tea", min_score=cut)] == scores[:1]


async def test_a_page_of_nothing_is_refused(searcher: Searcher) -> None:
    with pytest.raises(MemoroError) as refusal:
        await searcher.search("tea", limit=0)
    assert refusal.value.reason is Reason.INVALID_FIELD


async def test_vectors_of_another_model_are_not_compared(searcher: Searcher) -> None:
    await searcher.add("We adopted a kitten.")
    async with searcher.domain.database.tenant_tx(searcher.domain.tenant) as connection:
        await connection.execute("UPDATE memory_embeddings SET model = 'other/model@256'")
    assert await searcher.search("feline pets") == ()
    hits = await searcher.search("kittens")
    assert "vector" not in {arm.arm for arm in hits[0].arms}


async def test_words_are_scored_by_bm25(searcher: Searcher) -> None:
    texts = ["tea", "tea tea tea milk", "milk", "tea milk " + " ".join(f"word{n}" for n in range(40)), "nothing"]
    memories = await searcher.add(*texts, enrich=False)
    vector = (await searcher.embedder.embed(["x"])).vectors[0]
    query = CandidateQuery(ALICE, "tea with milk", vector, searcher.embedder.model.key, MemoryFilter())
    candidates = await searcher.store.find_candidates(searcher.domain.tenant, query)
    found = {candidate.memory_id: candidate.lexical for candidate in candidates}

    counts = [{word: text.split().count(word) for word in text.split()} for text in texts]
    mean = sum(map(len, counts)) / len(counts)
    for memory, count in zip(memories, counts, strict=True):
        expected = 0.0
        for term in ("tea", "milk"):
            having = sum(term in other for other in counts)
            idf = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
            frequency = count.get(term, 0)
            expected += idf * frequency * 1.6 / (frequency + 0.6 * (0.7 + 0.3 * len(count) / mean))
        assert found.get(memory.id, 0.0) == pytest.approx(expected, rel=0.06)
