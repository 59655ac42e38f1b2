"""What an accepting call stores: all of it in one transaction, once."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ConversationId, MemoryId, UserId, new_id
from memoro_core.jobs.model import JobState, Priority
from memoro_core.memory.model import MemoryFilter, MemoryPatch, MemoryStatus, NewConversation, NewMemory, NewMessage
from tests.support.domain import Domain

ALICE = UserId("alice")


def request(name: str, payload: str = "payload") -> Idempotency:
    return Idempotency(name, hashlib.sha256(payload.encode()).digest())


async def test_a_memory_its_job_and_its_first_event_are_there_when_the_call_returns(domain: Domain) -> None:
    said = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    new = NewMemory(
        ALICE, "I moved to Lyon last week, into a small flat.", {"source": {"app": "chat", "n": [1, 2.5, None]}}, said
    )
    accepted = await domain.memories.create(domain.tenant, new)
    stored = await domain.memories.get(domain.tenant, accepted.memory.id)
    assert stored == accepted.memory
    assert stored.status is MemoryStatus.PENDING
    assert stored.occurred_at == said
    assert accepted.job is not None
    job = await domain.job_store.get(domain.tenant, accepted.job.id)
    assert job is not None
    assert (job.state, job.attempt, job.sequence, list(job.memory_ids)) == (JobState.QUEUED, 0, 1, [stored.id])
    events = await domain.job_store.events_after(domain.tenant, job.id, 0, limit=10)
    assert [(event.seq, event.state) for event in events] == [(1, JobState.QUEUED)]
    assert [ref.job_id for ref in domain.hinted] == [job.id]


async def test_concurrent_adds_are_all_stored_each_with_its_own_answer(domain: Domain) -> None:
    accepted = await asyncio.gather(
        *(domain.memories.create(domain.tenant, NewMemory(ALICE, f"fact number {n}")) for n in range(300))
    )
    assert [one.memory.text for one in accepted] == [f"fact number {n}" for n in range(300)]
    assert len({one.job.id for one in accepted if one.job}) == 300
    for one in accepted[::30]:
        assert await domain.memories.get(domain.tenant, one.memory.id) == one.memory
        assert one.job is not None
        assert await domain.job_store.get(domain.tenant, one.job.id) == one.job
    assert await domain.count("memories") == await domain.count("jobs") == await domain.count("job_events") == 300


async def test_a_repeated_request_returns_what_it_made(domain: Domain) -> None:
    new = NewMemory(ALICE, "once")
    first = await domain.memories.create(domain.tenant, new, idempotency=request("r1"))
    again = await domain.memories.create(domain.tenant, new, idempotency=request("r1"))
    assert again.memory == first.memory
    assert again.job is not None
    assert first.job is not None
    assert again.job.id == first.job.id
    assert await domain.count("memories") == 1


async def test_a_request_raced_with_itself_is_done_once(domain: Domain) -> None:
    answers = await asyncio.gather(
        *(domain.memories.create(domain.tenant, NewMemory(ALICE, "raced"), idempotency=request("r")) for _ in range(50))
    )
    assert len({answer.memory.id for answer in answers}) == 1
    assert await domain.count("memories") == await domain.count("jobs") == 1


async def test_a_request_id_with_another_payload_is_refused_and_stores_nothing(domain: Domain) -> None:
    await domain.memories.create(domain.tenant, NewMemory(ALICE, "one"), idempotency=request("r", "one"))
    for call in (
        domain.memories.create(domain.tenant, NewMemory(ALICE, "two"), idempotency=request("r", "two")),
        domain.memories.add_conversation(
            domain.tenant,
            NewConversation(ALICE, ConversationId("c"), [NewMessage("two")]),
            idempotency=request("r", "two"),
        ),
    ):
        with pytest.raises(MemoroError) as caught:
            await call
        assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, Reason.REQUEST_ID_REUSED)
    assert await domain.count("memories") == await domain.count("jobs") == 1
    assert await domain.count("conversations") == 0


async def test_an_item_that_the_database_refuses_does_not_take_others_down(domain: Domain) -> None:
    texts = ["good 1", "bad \x00 text", "good 2"]
    answers = await asyncio.gather(
        *(domain.memories.create(domain.tenant, NewMemory(ALICE, text)) for text in texts), return_exceptions=True
    )
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]
    assert await domain.count("memories") == 2


async def test_positions_go_on_where_the_conversation_stopped(domain: Domain) -> None:
    async def add(count: int) -> list[int]:
        messages = [NewMessage(f"message {n}", speaker="Ann") for n in range(count)]
        accepted = await domain.memories.add_conversation(
            domain.tenant, NewConversation(ALICE, ConversationId("talk"), messages)
        )
        return [memory.position for memory in accepted.memories]

    assert await add(3) == [0, 1, 2]
    assert await add(2) == [3, 4]
    raced = await asyncio.gather(*(add(2) for _ in range(10)))
    assert sorted(position for positions in raced for position in positions) == list(range(5, 25))
    assert all(second == first + 1 for first, second in raced)


async def test_a_repeated_conversation_is_stored_once(domain: Domain) -> None:
    new = NewConversation(ALICE, ConversationId("talk"), [NewMessage("one"), NewMessage("two")])
    first = await domain.memories.add_conversation(domain.tenant, new, idempotency=request("r"))
    again = await domain.memories.add_conversation(domain.tenant, new, idempotency=request("r"))
    assert [memory.id for memory in again.memories] == [memory.id for memory in first.memories]
    assert await domain.count("memories") == 2


@pytest.mark.parametrize(("messages", "priority"), [(1, Priority.NORMAL), (20, Priority.NORMAL), (21, Priority.HIGH)])
async def test_long_conversations_come_first(domain: Domain, messages: int, priority: Priority) -> None:
    new = NewConversation(ALICE, ConversationId("talk"), [NewMessage("hello there")] * messages)
    accepted = await domain.memories.add_conversation(domain.tenant, new)
    assert accepted.job is not None
    assert accepted.job.priority is priority


@pytest.mark.parametrize(("length", "priority"), [(1, Priority.LOW), (39, Priority.LOW), (40, Priority.NORMAL)])
async def test_short_texts_come_last(domain: Domain, length: int, priority: Priority) -> None:
    accepted = await domain.memories.create(domain.tenant, NewMemory(ALICE, "x" * length))
    assert accepted.job is not None
    assert accepted.job.priority is priority
    asked = await domain.memories.create(domain.tenant, NewMemory(ALICE, "x" * length, priority=Priority.HIGH))
    assert asked.job is not None
    assert asked.job.priority is Priority.HIGH


async def test_lists_page_through_everything_newest_first(domain: Domain) -> None:
    made = [(await domain.memories.create(domain.tenant, NewMemory(ALICE, f"text {n}"))).memory.id for n in range(7)]
    await domain.memories.create(domain.tenant, NewMemory(UserId("bob"), "another user's"))
    seen: list[MemoryId] = []
    position: tuple[str, ...] | None = None
    pages = 0
    while pages == 0 or position:
        page = await domain.memories.list_memories(domain.tenant, ALICE, MemoryFilter(), size=3, position=position)
        seen += [memory.id for memory in page.items]
        position = page.next_position
        pages += 1
    assert seen == made[::-1]
    assert pages == 3


@pytest.mark.parametrize("said", [datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
async def test_the_earliest_and_the_latest_time_are_kept(domain: Domain, said: datetime) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "text", occurred_at=said))
    assert (await domain.memories.get(domain.tenant, made.memory.id)).occurred_at == said


async def test_filters_hold_all_together(domain: Domain) -> None:
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
    wanted = await domain.memories.create(domain.tenant, NewMemory(ALICE, "a", {"app": "x", "n": 1}, late))
    await domain.memories.create(domain.tenant, NewMemory(ALICE, "b", {"app": "x", "n": 1}, early))
    await domain.memories.create(domain.tenant, NewMemory(ALICE, "c", {"app": "y"}, late))
    page = await domain.memories.list_memories(
        domain.tenant,
        ALICE,
        MemoryFilter(metadata={"app": "x"}, occurred_from=datetime(2023, 1, 1, tzinfo=UTC)),
        size=10,
        position=None,
    )
    assert [memory.id for memory in page.items] == [wanted.memory.id]


async def test_an_update_of_the_text_queues_a_job_and_one_of_the_metadata_does_not(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "old", {"k": 1}))
    changed = await domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(metadata={"k": 2}))
    assert changed.job is None
    assert (changed.memory.version, changed.memory.text, changed.memory.metadata) == (2, "old", {"k": 2})
    changed = await domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(text="new", version=2))
    assert changed.job is not None
    assert changed.memory == await domain.memories.get(domain.tenant, made.memory.id)
    assert (changed.memory.version, changed.memory.job_id) == (3, changed.job.id)


async def test_an_old_etag_changes_nothing(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "old"))
    await domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(text="new"))
    for call in (
        domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(text="newer", version=1)),
        domain.memories.delete(domain.tenant, made.memory.id, version=1),
    ):
        with pytest.raises(MemoroError) as caught:
            await call
        assert caught.value.reason is Reason.ETAG_MISMATCH
    assert (await domain.memories.get(domain.tenant, made.memory.id)).text == "new"


async def test_racing_updates_each_count(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "old"))
    await asyncio.gather(
        *(domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(metadata={"n": n})) for n in range(10))
    )
    assert (await domain.memories.get(domain.tenant, made.memory.id)).version == 11


async def test_a_repeated_update_is_done_once(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "old"))
    for _ in range(2):
        answer = await domain.memories.update(
            domain.tenant, made.memory.id, MemoryPatch(text="new"), idempotency=request("u")
        )
        assert answer.memory.version == 2


async def test_an_update_raced_with_itself_is_done_once(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "old"))
    patch = MemoryPatch(metadata={"n": 1}, version=1)
    answers = await asyncio.gather(
        *(domain.memories.update(domain.tenant, made.memory.id, patch, idempotency=request("u")) for _ in range(10))
    )
    assert {answer.memory.version for answer in answers} == {2}


async def test_a_deletion_raced_with_itself_is_done_once(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "old"))
    await asyncio.gather(
        *(domain.memories.delete(domain.tenant, made.memory.id, version=1, idempotency=request("d")) for _ in range(10))
    )
    assert await domain.count("memories") == 0


async def test_a_deleted_memory_is_gone_and_its_job_cancelled(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "to forget"))
    for _ in range(2):
        await domain.memories.delete(domain.tenant, made.memory.id, idempotency=request("d"))
    for call in (
        domain.memories.get(domain.tenant, made.memory.id),
        domain.memories.delete(domain.tenant, made.memory.id),
        domain.memories.update(domain.tenant, made.memory.id, MemoryPatch(text="x")),
    ):
        with pytest.raises(MemoroError) as caught:
            await call
        assert caught.value.reason is Reason.MEMORY_NOT_FOUND
    assert made.job is not None
    job = await domain.job_store.get(domain.tenant, made.job.id)
    assert job is not None
    assert job.state is JobState.CANCELLED


async def test_another_tenant_sees_none_of_it(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(ALICE, "mine"), idempotency=request("r"))
    other = await domain.new_tenant()
    with pytest.raises(MemoroError) as caught:
        await domain.memories.get(other, made.memory.id)
    assert caught.value.code is Code.NOT_FOUND
    assert not (await domain.memories.list_memories(other, None, MemoryFilter(), size=10, position=None)).items
    # The same request id is another tenant's own.
    theirs = await domain.memories.create(other, NewMemory(ALICE, "theirs"), idempotency=request("r", "else"))
    assert theirs.memory.id != made.memory.id


async def test_without_a_tenant_nothing_is_visible_and_nothing_can_be_written(domain: Domain) -> None:
    await domain.memories.create(domain.tenant, NewMemory(ALICE, "mine"))
    async with domain.database.system_tx() as connection:
        await connection.execute("SET LOCAL ROLE memoro_app")
        for table in ("memories", "jobs", "tenants"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_the_system_role_reads_no_memory(domain: Domain) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with domain.database.system_tx() as connection:
            await connection.fetchval("SELECT count(*) FROM memories")


async def test_a_row_of_another_tenant_can_not_be_written(domain: Domain) -> None:
    other = await domain.new_tenant()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute(
                "INSERT INTO conversations VALUES ($1, 'u', $2, 0, now(), now())", other, str(uuid4())
            )


async def test_a_memory_with_an_unknown_id_is_not_found(domain: Domain) -> None:
    with pytest.raises(MemoroError) as caught:
        await domain.memories.get(domain.tenant, MemoryId(new_id()))
    assert caught.value.reason is Reason.MEMORY_NOT_FOUND
