"""What a job leaves behind: the vectors and the graph of its memories, whole and once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from memoro_core.errors import ProviderError
from memoro_core.graph.model import Relationship, Walk
from memoro_core.graph.service import GraphService
from memoro_core.ids import ConversationId, UserId
from memoro_core.jobs.model import JobRef, JobResult, JobState, JobUsage, Stage, StageStatus
from memoro_core.jobs.run_ports import JobCancelled, LeaseLost
from memoro_core.llm.model import EmbeddingModel, ExtractedEntity, Extraction, ExtractionSource, Operation, Usage
from memoro_core.llm.ports import Admit
from memoro_core.memory.model import MemoryPatch, MemoryStatus, NewConversation, NewMemory, NewMessage
from memoro_core.postgres.embedding_model import check_embedding_model, ensure_vector_index
from memoro_core.postgres.graph_store import PostgresGraphStore
from tests.support.domain import Domain
from tests.support.enrichment import Enricher, ScriptedExtractor, claim, fact, facts, run_of
from tests.support.jobs import reap

ALICE = UserId("alice")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_HOMES = {"lyon": "Lyon", "nice": "Nice", "bonn": "Bonn", "lyon again": "Lyon"}
GRAPH_TABLES = ("memory_embeddings", "entities", "entity_aliases", "mentions", "relationships", "relationship_sources")


@pytest.fixture
def enricher(domain: Domain) -> Enricher:
    return Enricher(domain)


async def add(enricher: Enricher, text: str, *, at: datetime = NOON, user: UserId = ALICE) -> JobRef:
    await enricher.domain.memories.create(enricher.domain.tenant, NewMemory(user, text, occurred_at=at))
    return enricher.domain.hinted[-1]


async def standing(domain: Domain, *names: str) -> set[tuple[str, str, str]]:
    """The facts around these entities that hold now."""
    return {(f.source_name, f.predicate, f.target_name) for f in await history(domain, *names) if f.valid_to is None}


async def history(domain: Domain, *names: str) -> list[Relationship]:
    """All facts about these entities, whether they hold or not."""
    graph = GraphService(PostgresGraphStore(domain.database), _Clock())
    found: dict[object, Relationship] = {}
    for name in names:
        start = (await graph.traverse(domain.tenant, Walk(ALICE, entity_names=[name], max_depth=1))).nodes[0].entity
        found |= {f.id: f for f in (await graph.get_entity(domain.tenant, start.id)).relationships}
    return list(found.values())


class _Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)


async def rows(domain: Domain) -> dict[str, int]:
    return {table: await domain.count(table) for table in GRAPH_TABLES}


async def test_a_memory_gets_its_vector_its_entities_its_facts_and_is_ready(enricher: Enricher) -> None:
    domain = enricher.domain
    enricher.extractor.answers = {"Ann lives in Lyon": fact("Ann", "LIVES_IN", "Lyon")}
    ref = await add(enricher, "Ann lives in Lyon")
    event = await enricher.run()
    assert event.state is JobState.SUCCEEDED
    assert event.result == JobResult(memories=1, entities=2, relationships=1, superseded=0)
    assert event.partial is False
    assert event.usage == JobUsage(1, 0)
    job = await domain.job_store.get(domain.tenant, ref.job_id)
    assert job is not None
    assert [(stage.stage, stage.status) for stage in job.stages] == [(one, StageStatus.SUCCEEDED) for one in Stage]
    memory = await domain.memories.get(domain.tenant, job.memory_ids[0])
    assert memory.status is MemoryStatus.READY
    assert await rows(domain) == {
        "memory_embeddings": 1,
        "entities": 2,
        "entity_aliases": 2,
        "mentions": 2,
        "relationships": 1,
        "relationship_sources": 1,
    }
    (known,) = await history(domain, "ann")
    assert (known.valid_from, known.valid_to, list(known.memory_ids)) == (NOON, None, [memory.id])


async def test_each_stage_tells_when_it_begins_and_when_it_is_through(enricher: Enricher) -> None:
    enricher.extractor.answers = {"Ann lives in Lyon": fact("Ann", "LIVES_IN", "Lyon")}
    ref = await add(enricher, "Ann lives in Lyon")
    await enricher.run()
    events = await enricher.domain.job_store.events_after(ref.tenant_id, ref.job_id, 0, limit=100)
    told = [(event.stage.stage, event.stage.status) for event in events if event.stage]
    both = (StageStatus.RUNNING, StageStatus.SUCCEEDED)
    assert told == [(stage, status) for stage in Stage for status in both]


async def test_a_conversation_is_one_call_for_vectors_and_each_turn_knows_those_before_it(enricher: Enricher) -> None:
    messages = [NewMessage(f"turn {n}", speaker="Ann" if n % 2 else None) for n in range(30)]
    await enricher.domain.memories.add_conversation(
        enricher.domain.tenant, NewConversation(ALICE, ConversationId("c"), messages)
    )
    event = await enricher.run()
    assert event.result == JobResult(memories=30)
    assert enricher.embedder.calls == [[f"Ann: turn {n}" if n % 2 else f"turn {n}" for n in range(30)]]
    source = next(one for one in enricher.extractor.sources if one.text == "turn 9")
    assert source.speaker == "Ann"
    assert source.preceding == ["turn 6", "Ann: turn 7", "turn 8"]
    assert next(one for one in enricher.extractor.sources if one.text == "turn 0").preceding == []
    ref = enricher.domain.hinted[-1]
    events = await enricher.domain.job_store.events_after(ref.tenant_id, ref.job_id, 0, limit=100)
    progress = [event.stage.completed for event in events if event.stage and event.stage.stage is Stage.EXTRACT]
    assert progress == [0, 25, 30]


async def test_what_one_text_is_refused_for_makes_the_job_partial_and_loses_nothing_else(enricher: Enricher) -> None:
    refused = ProviderError("not this", retryable=False)
    enricher.extractor.answers = {"good": fact("Ann", "LIVES_IN", "Lyon"), "bad": refused}
    messages = [NewMessage("good"), NewMessage("bad")]
    await enricher.domain.memories.add_conversation(
        enricher.domain.tenant, NewConversation(ALICE, ConversationId("c"), messages)
    )
    event = await enricher.run()
    assert (event.state, event.partial) == (JobState.SUCCEEDED, True)
    assert event.result == JobResult(memories=2, entities=2, relationships=1)
    assert await _extract_status(enricher) is StageStatus.PARTIAL

    enricher.extractor.answers = {"worse": refused}
    await add(enricher, "worse")
    assert (await enricher.run()).partial is True
    assert await _extract_status(enricher) is StageStatus.FAILED

    enricher.extractor.answers = {"cut off": Extraction((ExtractedEntity("Bob", "PERSON"),), (), (), partial=True)}
    await add(enricher, "cut off")
    assert (await enricher.run()).partial is True
    assert await _extract_status(enricher) is StageStatus.PARTIAL


async def _extract_status(enricher: Enricher) -> StageStatus:
    ref = enricher.domain.hinted[-1]
    job = await enricher.domain.job_store.get(ref.tenant_id, ref.job_id)
    assert job is not None
    return next(stage.status for stage in job.stages if stage.stage is Stage.EXTRACT)


async def test_what_may_pass_is_raised_to_be_tried_again_and_leaves_nothing(enricher: Enricher) -> None:
    busy = ProviderError("busy", retryable=True, retry_after=3.0)
    enricher.extractor.answers = {"second": busy}
    await enricher.domain.memories.add_conversation(
        enricher.domain.tenant,
        NewConversation(ALICE, ConversationId("c"), [NewMessage("first"), NewMessage("second"), NewMessage("third")]),
    )
    with pytest.raises(ProviderError, match="busy"):
        await enricher.run()
    assert set((await rows(enricher.domain)).values()) == {0}


async def test_tokens_of_every_call_are_counted(enricher: Enricher) -> None:
    used = (Usage("test", "x", Operation.EXTRACT, 100, 20),)
    refused = ProviderError("not this", retryable=False, usage=(Usage("test", "x", Operation.EXTRACT, 7, 3),))
    enricher.extractor.answers = {"text": Extraction((), (), used), "bad": refused}
    messages = [NewMessage("text"), NewMessage("bad")]
    await enricher.domain.memories.add_conversation(
        enricher.domain.tenant, NewConversation(ALICE, ConversationId("c"), messages)
    )
    assert (await enricher.run()).usage == JobUsage(109, 23)

    busy = ProviderError("busy", retryable=True, usage=(Usage("test", "x", Operation.EMBED, 5),))
    enricher.embedder.error = busy
    run = run_of(enricher.domain, await claim(enricher.domain, await add(enricher, "text")))
    with pytest.raises(ProviderError, match="busy"):
        await enricher.handler().run(run)
    assert run.usage == JobUsage(5, 0)


async def test_without_an_extraction_provider_there_are_only_vectors(enricher: Enricher) -> None:
    enricher.extracts = False
    await add(enricher, "Ann lives in Lyon")
    event = await enricher.run()
    assert (event.state, event.partial, event.result) == (JobState.SUCCEEDED, False, JobResult(memories=1))
    assert await _extract_status(enricher) is StageStatus.SKIPPED
    assert await enricher.domain.count("memory_embeddings") == 1


async def test_a_memory_that_was_deleted_or_changed_meanwhile_is_left_out(enricher: Enricher) -> None:
    domain = enricher.domain
    messages = [NewMessage(text) for text in ("kept", "deleted", "changed")]
    enricher.extractor.answers = {
        text: fact(text, "LIVES_IN", "Lyon") for text in ("kept", "deleted", "changed", "new")
    }
    stored = await domain.memories.add_conversation(
        domain.tenant, NewConversation(ALICE, ConversationId("c"), messages)
    )
    first = domain.hinted[-1]
    await domain.memories.delete(domain.tenant, stored.memories[1].id)
    await domain.memories.update(domain.tenant, stored.memories[2].id, MemoryPatch(text="new"))
    assert (await enricher.run(first)).result == JobResult(memories=1, entities=2, relationships=1)
    assert await domain.count("memory_embeddings") == 1
    assert (await domain.memories.get(domain.tenant, stored.memories[2].id)).status is MemoryStatus.PENDING
    assert (await enricher.run(domain.hinted[-1])).result == JobResult(memories=1, entities=2, relationships=1)
    assert await standing(domain, "lyon") == {("kept", "LIVES_IN", "Lyon"), ("new", "LIVES_IN", "Lyon")}


async def _delete_memories(domain: Domain) -> None:
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute("DELETE FROM memories")


async def test_a_job_with_nothing_left_to_do_succeeds(enricher: Enricher) -> None:
    await add(enricher, "gone")
    await _delete_memories(enricher.domain)
    event = await enricher.run()
    assert (event.state, event.result) == (JobState.SUCCEEDED, JobResult())
    assert enricher.embedder.calls == []


async def test_a_memory_deleted_between_the_providers_and_the_commit_leaves_nothing(enricher: Enricher) -> None:
    domain = enricher.domain

    class Deleting(ScriptedExtractor):
        async def extract(self, source: ExtractionSource, *, admit: Admit | None = None) -> Extraction:
            await _delete_memories(domain)
            return fact("Ann", "LIVES_IN", "Lyon")

    enricher.extractor = Deleting()
    await add(enricher, "Ann lives in Lyon")
    assert (await enricher.run()).result == JobResult()
    assert set((await rows(domain)).values()) == {0}


async def test_a_run_that_lost_its_job_writes_nothing_and_the_other_run_writes_once(enricher: Enricher) -> None:
    domain = enricher.domain
    enricher.extractor.answers = {"Ann lives in Lyon": fact("Ann", "LIVES_IN", "Lyon")}
    ref = await add(enricher, "Ann lives in Lyon")
    stale = await claim(domain, ref, now=datetime.now(UTC))
    later = datetime.now(UTC) + timedelta(seconds=120)
    await reap(domain, now=later)
    fresh = await claim(domain, ref, now=later)
    with pytest.raises(LeaseLost):
        await enricher.handler().run(run_of(domain, stale))
    assert set((await rows(domain)).values()) == {0}
    assert (await enricher.handler().run(run_of(domain, fresh))).state is JobState.SUCCEEDED
    with pytest.raises(LeaseLost):
        await enricher.handler().run(run_of(domain, fresh))
    assert (await rows(domain))["relationship_sources"] == 1


async def test_a_job_that_is_asked_to_cancel_stops_at_the_next_stage(enricher: Enricher) -> None:
    ref = await add(enricher, "Ann lives in Lyon")
    claimed = await claim(enricher.domain, ref)
    await enricher.domain.job_store.cancel(ref.tenant_id, ref.job_id, now=datetime.now(UTC))
    with pytest.raises(JobCancelled):
        await enricher.handler().run(run_of(enricher.domain, claimed))
    assert enricher.embedder.calls == []


async def test_a_changed_text_takes_back_what_the_old_one_stated(enricher: Enricher) -> None:
    domain = enricher.domain
    enricher.extractor.answers = {
        "old": facts(("Ann", "KNOWS", "Bob"), ("Ann", "KNOWS", "Carl"), types=("PERSON", "PERSON")),
        "other": fact("Ann", "KNOWS", "Bob", types=("PERSON", "PERSON")),
        "new": fact("Ann", "KNOWS", "Dora", types=("PERSON", "PERSON")),
    }
    memory = (await domain.memories.create(domain.tenant, NewMemory(ALICE, "old"))).memory
    await domain.memories.create(domain.tenant, NewMemory(ALICE, "other"))
    await enricher.run_all()
    assert await standing(domain, "ann") == {("Ann", "KNOWS", "Bob"), ("Ann", "KNOWS", "Carl")}
    await domain.memories.update(domain.tenant, memory.id, MemoryPatch(text="new"))
    await enricher.run_all()
    assert await standing(domain, "ann") == {("Ann", "KNOWS", "Bob"), ("Ann", "KNOWS", "Dora")}
    assert await domain.count("entities") == 3
    assert await domain.count("memory_embeddings") == 2


async def test_deleting_memories_leaves_nothing_of_them_in_the_graph(enricher: Enricher) -> None:
    domain = enricher.domain
    enricher.extractor.answers = {
        "one": facts(("Ann", "LIVES_IN", "Lyon"), ("Bob", "LIVES_IN", "Lyon")),
        "two": fact("Ann", "LIVES_IN", "Lyon"),
    }
    memories = [(await domain.memories.create(domain.tenant, NewMemory(ALICE, text))).memory for text in ("one", "two")]
    await enricher.run_all()
    await domain.memories.delete(domain.tenant, memories[0].id)
    assert await standing(domain, "lyon") == {("Ann", "LIVES_IN", "Lyon")}
    await domain.memories.delete(domain.tenant, memories[1].id)
    assert set((await rows(domain)).values()) == {0}


async def test_a_newer_home_ends_the_older_one_and_what_holds_side_by_side_stays(enricher: Enricher) -> None:
    domain = enricher.domain
    enricher.extractor.answers = {
        "first": facts(("Ann", "LIVES_IN", "Lyon"), ("Ann", "VISITED", "Rome")),
        "second": facts(("Ann", "LIVES_IN", "Nice"), ("Ann", "VISITED", "Oslo")),
        "between": fact("Ann", "LIVES_IN", "Bonn"),
    }
    await add(enricher, "first", at=NOON)
    assert (await enricher.run()).result == JobResult(1, 3, 2, 0)
    await add(enricher, "second", at=NOON + timedelta(days=9))
    assert (await enricher.run()).result == JobResult(1, 3, 2, 1)
    await add(enricher, "between", at=NOON + timedelta(days=4))
    assert (await enricher.run()).result == JobResult(1, 2, 1, 1)
    homes = {f.target_name: f for f in await history(domain, "ann") if f.predicate == "LIVES_IN"}
    assert homes["Nice"].valid_to is None
    assert (homes["Lyon"].valid_to, homes["Lyon"].superseded_by) == (NOON + timedelta(days=9), homes["Nice"].id)
    assert (homes["Bonn"].valid_to, homes["Bonn"].superseded_by) == (NOON + timedelta(days=9), homes["Nice"].id)
    assert {target for _, predicate, target in await standing(domain, "ann") if predicate == "VISITED"} == {
        "Rome",
        "Oslo",
    }


async def test_an_older_memory_of_what_has_ended_does_not_bring_it_back(enricher: Enricher) -> None:
    domain = enricher.domain
    enricher.extractor.answers = {text: fact("Ann", "LIVES_IN", place) for text, place in _HOMES.items()}
    for text, days in (("lyon", 5), ("nice", 9), ("lyon again", 2)):
        await add(enricher, text, at=NOON + timedelta(days=days))
        await enricher.run()
    homes = {f.target_name: f for f in await history(domain, "ann")}
    assert await domain.count("relationships") == 2
    assert homes["Lyon"].valid_from == NOON + timedelta(days=2)
    assert len(homes["Lyon"].memory_ids) == 2
    assert await standing(domain, "ann") == {("Ann", "LIVES_IN", "Nice")}
    await add(enricher, "lyon again", at=NOON + timedelta(days=20))
    await enricher.run()
    assert await standing(domain, "ann") == {("Ann", "LIVES_IN", "Lyon")}
    assert await domain.count("relationships") == 3


@pytest.mark.parametrize("gone", ["lyon", "nice", "bonn"])
async def test_when_a_fact_in_the_line_is_taken_back_the_line_closes(enricher: Enricher, gone: str) -> None:
    domain = enricher.domain
    enricher.extractor.answers = {text: fact("Ann", "LIVES_IN", place) for text, place in _HOMES.items()}
    memories = {}
    for days, text in enumerate(("lyon", "nice", "bonn")):
        new = NewMemory(ALICE, text, occurred_at=NOON + timedelta(days=days))
        memories[text] = (await domain.memories.create(domain.tenant, new)).memory
        await enricher.run()
    await domain.memories.delete(domain.tenant, memories[gone].id)
    left = [text for text in ("lyon", "nice", "bonn") if text != gone]
    homes = {f.target_name.lower(): f for f in await history(domain, "ann")}
    assert sorted(homes, key=lambda name: homes[name].valid_from) == left
    first, last = (homes[text] for text in left)
    assert (first.valid_to, first.superseded_by) == (last.valid_from, last.id)
    assert (last.valid_to, last.superseded_by) == (None, None)


async def test_many_jobs_of_one_user_at_once_make_each_entity_and_each_fact_once(enricher: Enricher) -> None:
    domain = enricher.domain
    texts = [f"text {n}" for n in range(24)]
    enricher.extractor.answers = {
        text: facts(("Ann", "KNOWS", f"Person {n % 3}"), ("Bob", "KNOWS", "Ann"), types=("PERSON", "PERSON"))
        for n, text in enumerate(texts)
    }
    memories = [(await domain.memories.create(domain.tenant, NewMemory(ALICE, text))).memory for text in texts]
    await asyncio.gather(*(enricher.run(ref) for ref in domain.hinted))
    assert await domain.count("entities") == 5
    assert await domain.count("relationships") == 4
    assert await domain.count("relationship_sources") == 48
    # Deleting them all at once is as safe.
    await asyncio.gather(*(domain.memories.delete(domain.tenant, memory.id) for memory in memories))
    assert set((await rows(domain)).values()) == {0}


async def test_users_have_graphs_of_their_own_and_tenants_see_nothing_of_each_other(enricher: Enricher) -> None:
    domain = enricher.domain
    enricher.extractor.answers = {"Ann lives in Lyon": fact("Ann", "LIVES_IN", "Lyon")}
    await add(enricher, "Ann lives in Lyon")
    await add(enricher, "Ann lives in Lyon", user=UserId("bob"))
    await enricher.run_all()
    assert await domain.count("entities") == 4
    other = await domain.new_tenant()
    async with domain.database.tenant_tx(other) as connection:
        for table in GRAPH_TABLES:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_vectors_of_another_model_are_refused(enricher: Enricher) -> None:
    domain = enricher.domain
    await add(enricher, "text")
    await enricher.run()
    await check_embedding_model(domain.database, enricher.embedder.model)
    other = EmbeddingModel("test", "other", 256)
    with pytest.raises(ProviderError, match="local/wordllama-l2-supercat@256, but test/other@256"):
        await check_embedding_model(domain.database, other)
    enricher.embedder.model = other
    await add(enricher, "text")
    with pytest.raises(ProviderError) as refusal:
        await enricher.run()
    assert refusal.value.retryable is False
    assert await domain.count("memory_embeddings") == 1


async def test_the_index_for_other_dimensions_is_built_once(domain: Domain, owner_database_url: str) -> None:
    connection = await asyncpg.connect(owner_database_url)
    try:
        assert await ensure_vector_index(connection, 256) is False
        assert await ensure_vector_index(connection, 48) is True
        assert await ensure_vector_index(connection, 48) is False
        assert await ensure_vector_index(connection, 3072) is False
        definition = await connection.fetchval("SELECT pg_get_indexdef('memory_embeddings_hnsw_48'::regclass)")
        assert "vector(48)" in definition
    finally:
        await connection.execute("DROP INDEX IF EXISTS memory_embeddings_hnsw_48")
        await connection.close()
