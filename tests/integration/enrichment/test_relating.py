"""Entities and facts are found for so many jobs of a user in an hour; of the others they come later, in order."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np
import pytest

from memoro_core.billing.model import DeferralReason
from memoro_core.errors import ProviderError, Reason
from memoro_core.ids import JobId, UserId, new_id
from memoro_core.jobs.model import (
    RELATING_STAGES,
    Claim,
    Job,
    JobEvent,
    JobRef,
    JobResult,
    JobState,
    Stage,
    StageStatus,
)
from memoro_core.jobs.run_ports import LeaseLost, RunContext
from memoro_core.llm.model import Operation, Usage
from memoro_core.memory.enrichment_ports import Enrichment, Relating
from memoro_core.memory.finding import NOTHING
from memoro_core.memory.model import MemoryPatch, MemoryStatus
from memoro_core.postgres.enrichment_store import PostgresEnrichmentStore
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.enrichment import SilentTail, claim, fact, run_of
from tests.support.jobs import events_of, job_of, jobs_service, reap, retried
from tests.support.relating import ALICE, HOUR, Relater
from tests.support.runners import open_runner

BOB = UserId("bob")
SOON = timedelta(seconds=30)


@pytest.fixture
async def relater(domain: Domain) -> Relater:
    relater = Relater(domain)
    relater.extractor.answers = {name: fact(name, "LIVES_IN", "Lyon") for name in ("Ann", "Ben", "Cem", "Dan", "Eva")}
    return relater


def near(moment: datetime, expected: datetime) -> bool:
    return abs(moment - expected) < SOON


async def test_a_job_beyond_the_limit_leaves_its_graph_to_another_and_is_whole(relater: Relater) -> None:
    await relater.allow(2)
    assert [await relater.enrich("Ann"), await relater.enrich("Ben")] == [None, None]
    ref = await relater.add("Cem")
    event = await relater.run(ref)
    assert event.result is not None
    left = event.result.relate_job_id
    assert left is not None
    assert (event.state, event.partial, event.result) == (
        JobState.SUCCEEDED,
        False,
        JobResult(memories=1, relate_job_id=left),
    )
    job = await job_of(relater.domain, ref)
    assert {stage.stage: stage.status for stage in job.stages} == {
        Stage.SCREEN: StageStatus.SUCCEEDED,
        Stage.EMBED: StageStatus.SUCCEEDED,
        Stage.EXTRACT: StageStatus.DEFERRED,
        Stage.RESOLVE: StageStatus.DEFERRED,
        Stage.COMMIT: StageStatus.SUCCEEDED,
    }
    assert (job.result, job.partial) == (event.result, False)
    await events_of(relater.domain, ref)
    memory = await relater.domain.memories.get(relater.domain.tenant, job.memory_ids[0])
    assert (memory.status, memory.job_id) == (MemoryStatus.READY, left)
    assert await relater.domain.count("memory_embeddings") == 3
    assert await relater.domain.count("relationships") == 2
    later = await relater.job(left)
    assert (later.state, later.deferral_reason, later.stages) == (
        JobState.DEFERRED,
        DeferralReason.RELATIONS,
        RELATING_STAGES,
    )
    assert (later.memory_ids, later.attempt, later.priority) == (job.memory_ids, 0, job.priority)
    assert near(later.run_at, relater.clock.now() + HOUR)


async def test_the_graph_comes_when_the_limit_allows(relater: Relater) -> None:
    await relater.allow(1)
    await relater.enrich("Ann")
    later = await relater.enrich("Ben")
    assert later is not None
    ref = JobRef(relater.domain.tenant, later.id)
    assert await relater.let_go() == []
    relater.clock.ahead = HOUR
    assert await relater.let_go() == [ref]
    vectors = list(relater.embedder.calls)
    event = await relater.run(ref)
    assert (event.state, event.result) == (JobState.SUCCEEDED, JobResult(memories=1, entities=2, relationships=1))
    done = await relater.job(later.id)
    assert [(stage.stage, stage.status) for stage in done.stages] == [
        (stage.stage, StageStatus.SUCCEEDED) for stage in RELATING_STAGES
    ]
    states = [event.state for event in await events_of(relater.domain, ref)]
    assert (states[:3], states[-1]) == ([JobState.DEFERRED, JobState.QUEUED, JobState.RUNNING], JobState.SUCCEEDED)
    assert await relater.domain.count("relationships") == 2
    assert relater.embedder.calls == vectors
    assert await relater.slots_taken() == 2


async def test_what_waits_is_spread_over_the_hours_to_come(relater: Relater) -> None:
    await relater.allow(2)
    start = relater.clock.now()
    jobs = [await relater.enrich(f"text {n}") for n in range(9)]
    assert jobs[:2] == [None, None]
    turns = [job.run_at for job in jobs if job is not None]
    assert turns == sorted(turns)
    for turn, hours in zip(turns, (1, 1, 2, 2, 3, 3, 4), strict=True):
        assert near(turn, start + hours * HOUR)


async def test_a_new_job_does_not_overtake_what_waits(relater: Relater) -> None:
    await relater.allow(1)
    await relater.enrich("Ann")
    first = await relater.enrich("Ben")
    relater.clock.ahead = HOUR
    assert await relater.let_go() != []
    second = await relater.enrich("Cem")
    assert first is not None
    assert second is not None
    assert near(second.run_at, relater.clock.now() + HOUR)
    assert (await relater.run(JobRef(relater.domain.tenant, first.id))).state is JobState.SUCCEEDED


async def test_users_have_a_limit_each_and_without_one_nothing_is_counted(relater: Relater) -> None:
    await relater.enrich("Ann")
    assert await relater.slots_taken() == 0
    await relater.allow(1)
    assert await relater.enrich("Ben") is None
    assert await relater.enrich("Ben", user=BOB) is None
    assert await relater.enrich("Cem", user=BOB) is not None


async def test_what_is_let_go_too_early_is_put_off_again_and_loses_no_attempt(relater: Relater) -> None:
    await relater.allow(1)
    start = relater.clock.now()
    await relater.enrich("Ann")
    jobs = [job for text in ("Ben", "Cem", "Dan") if (job := await relater.enrich(text)) is not None]
    refs = await relater.let_go(due_only=False)
    assert len(refs) == 3
    for hours, job in enumerate(jobs, start=1):
        ref = JobRef(relater.domain.tenant, job.id)
        event = await relater.run(ref)
        assert (event.state, event.attempt) == (JobState.DEFERRED, 0)
        again = await relater.job(job.id)
        assert (again.state, again.attempt, again.deferral_reason) == (
            JobState.DEFERRED,
            0,
            DeferralReason.RELATIONS,
        )
        assert again.run_at == event.run_at
        assert near(again.run_at, start + hours * HOUR)
        assert (await events_of(relater.domain, ref))[-1] == event
    assert await relater.slots_taken() == 1
    for hours, job in enumerate(jobs, start=1):
        relater.clock.ahead = hours * HOUR + SOON
        ref = JobRef(relater.domain.tenant, job.id)
        assert await relater.let_go() == [ref]
        assert (await relater.run(ref)).state is JobState.SUCCEEDED


async def test_one_that_is_asked_to_cancel_is_not_put_off_again(relater: Relater) -> None:
    await relater.allow(1)
    await relater.enrich("Ann")
    later = await relater.enrich("Ben")
    assert later is not None
    (ref,) = await relater.let_go(due_only=False)
    claimed = await claim(relater.domain, ref)
    await relater.domain.job_store.cancel(ref.tenant_id, ref.job_id, now=relater.clock.now())
    run = run_of(relater.domain, claimed)
    event = await relater.slots.put_off(
        claimed, 1, lambda until: run.put_off(until, DeferralReason.RELATIONS), now=relater.clock.now()
    )
    assert event.state is JobState.CANCELLED
    memory = await relater.domain.memories.get(relater.domain.tenant, later.memory_ids[0])
    assert memory.status is MemoryStatus.READY


async def test_jobs_at_the_same_time_take_no_more_than_there_is(relater: Relater) -> None:
    await relater.allow(5)
    refs = [await relater.add(f"text {n}") for n in range(16)]
    events = await asyncio.gather(*(relater.run(ref) for ref in refs))
    left = [event.result.relate_job_id for event in events if event.result and event.result.relate_job_id]
    assert (len(left), await relater.slots_taken()) == (11, 5)
    turns = sorted([(await relater.job(job_id)).run_at for job_id in left])
    for turn, hours in zip(turns, [1] * 5 + [2] * 5 + [3], strict=True):
        assert near(turn, relater.clock.now() + hours * HOUR)


async def test_another_attempt_takes_no_other_slot(relater: Relater) -> None:
    await relater.allow(1)
    relater.extractor.answers = {"Ann": ProviderError("busy", retryable=True)}
    ref = await relater.add("Ann")
    claimed = await claim(relater.domain, ref)
    handler = relater.handlers()[claimed.job.kind]
    with pytest.raises(ProviderError):
        await handler.run(run_of(relater.domain, claimed))
    await relater.domain.run_store.finish(claimed, retried(claimed), now=relater.clock.now())
    relater.extractor.answers = {"Ann": fact("Ann", "LIVES_IN", "Lyon")}
    event = await relater.run(ref)
    assert event.result == JobResult(memories=1, entities=2, relationships=1)
    assert await relater.slots_taken() == 1
    assert await relater.enrich("Ben") is not None


async def test_a_memory_that_changed_or_went_meanwhile_is_not_its_business(relater: Relater) -> None:
    await relater.allow(1)
    tenant = relater.domain.tenant
    await relater.enrich("Ann")
    changed, gone = await relater.enrich("Ben"), await relater.enrich("Cem")
    assert changed is not None
    assert gone is not None
    await relater.domain.memories.update(tenant, changed.memory_ids[0], MemoryPatch(text="Dan"))
    await relater.domain.memories.delete(tenant, gone.memory_ids[0])
    relater.clock.ahead = HOUR + SOON
    slots = await relater.slots_taken()
    for ref in await relater.let_go(due_only=False):
        event = await relater.run(ref)
        assert (event.state, event.result) == (JobState.SUCCEEDED, JobResult())
        stages = (await job_of(relater.domain, ref)).stages
        assert {stage.status for stage in stages[:-1]} == {StageStatus.SKIPPED}
    assert await relater.slots_taken() == slots
    newer = (await relater.domain.memories.get(tenant, changed.memory_ids[0])).job_id
    event = await relater.run(JobRef(tenant, newer))
    assert event.result == JobResult(memories=1, entities=2, relationships=1)


async def test_a_changed_text_loses_its_old_graph_at_once(relater: Relater) -> None:
    await relater.allow(1)
    ref = await relater.add("Ann")
    await relater.run(ref)
    (memory_id,) = (await job_of(relater.domain, ref)).memory_ids
    accepted = await relater.domain.memories.update(relater.domain.tenant, memory_id, MemoryPatch(text="Ben"))
    assert accepted.job is not None
    event = await relater.run(JobRef(relater.domain.tenant, accepted.job.id))
    assert event.result is not None
    assert event.result.relate_job_id is not None
    assert (await relater.domain.count("relationships"), await relater.domain.count("memory_embeddings")) == (0, 1)
    relater.clock.ahead = HOUR
    (later,) = await relater.let_go()
    await relater.run(later)
    assert (await relater.domain.count("relationships"), await relater.domain.count("memory_embeddings")) == (1, 1)


async def test_what_failed_is_done_again_by_a_retry(relater: Relater) -> None:
    await relater.allow(1)
    await relater.enrich("Ann")
    later = await relater.enrich("Ben")
    assert later is not None
    service = jobs_service(relater.domain, SilentTail())
    await service.cancel(relater.domain.tenant, later.id)
    memory = await relater.domain.memories.get(relater.domain.tenant, later.memory_ids[0])
    assert memory.status is MemoryStatus.READY
    retry = await service.retry(relater.domain.tenant, later.id)
    assert (retry.kind, retry.state, retry.memory_ids) == (later.kind, JobState.QUEUED, later.memory_ids)
    memory = await relater.domain.memories.get(relater.domain.tenant, later.memory_ids[0])
    assert (memory.status, memory.job_id) == (MemoryStatus.READY, retry.id)
    ref = JobRef(relater.domain.tenant, retry.id)
    assert (await relater.run(ref)).state is JobState.DEFERRED
    relater.clock.ahead = HOUR + SOON
    await relater.let_go()
    assert (await relater.run(ref)).result == JobResult(memories=1, entities=2, relationships=1)


async def test_each_job_pays_for_what_it_does_and_the_later_one_holds_when_it_is_let_go(relater: Relater) -> None:
    domain, money = relater.domain, relater.domain.money
    await relater.allow(1)
    money.prices.set(Operation.EMBED, fee=3)
    money.prices.set(Operation.EXTRACT, fee=10)
    await money.give(domain.tenant, 100)
    used = (Usage("test", "scripted", Operation.EXTRACT, 1, 1, items=1),)
    relater.extractor.answers = {name: replace(fact(name, "KNOWS", "Eva"), usage=used) for name in ("Ann", "Ben")}
    assert await relater.enrich("Ann") is None
    ref = await relater.add("Ben")
    assert (await money.holds_of(domain.tenant))[ref.job_id] == 13
    event = await relater.run(ref)
    assert event.usage is not None
    assert event.usage.charged == 3
    assert await money.holds_of(domain.tenant) == {}
    assert event.result is not None
    assert event.result.relate_job_id is not None
    later = await relater.job(event.result.relate_job_id)
    assert (later.cost_bound, (await money.account(domain.tenant)).available) == (10, 100 - 13 - 3)
    relater.clock.ahead = HOUR
    (later_ref,) = await relater.let_go()
    assert await money.holds_of(domain.tenant) == {later.id: 10}
    event = await relater.run(later_ref)
    assert event.usage is not None
    assert event.usage.charged == 10
    account = await money.account(domain.tenant)
    assert (account.available, account.held, account.spent) == (74, 0, 26)


async def test_one_that_is_put_off_again_keeps_its_hold_and_gets_no_other(relater: Relater) -> None:
    domain, money = relater.domain, relater.domain.money
    await relater.allow(1)
    money.prices.set(Operation.EXTRACT, fee=10)
    await money.give(domain.tenant, 100)
    used = (Usage("test", "scripted", Operation.EXTRACT, 1, 1, items=1),)
    relater.extractor.answers = {name: replace(fact(name, "KNOWS", "Eva"), usage=used) for name in ("Ann", "Ben")}
    await relater.enrich("Ann")
    later = await relater.enrich("Ben")
    assert later is not None
    batch = await relater.deferrals.release_after(domain.tenant, None, now=relater.clock.now(), limit=10)
    ((ref, _),) = batch.events
    assert (await relater.run(ref)).state is JobState.DEFERRED
    assert await money.holds_of(domain.tenant) == {later.id: 10}
    relater.clock.ahead = HOUR + SOON
    assert await relater.let_go() == [ref]
    assert await money.holds_of(domain.tenant) == {later.id: 10}
    await relater.run(ref)
    assert (await money.account(domain.tenant)).spent == 20


async def test_without_a_price_for_extraction_the_error_says_so(relater: Relater) -> None:
    await relater.allow(1)
    await relater.enrich("Ann")
    ref = await relater.add("Ben")
    del relater.domain.money.prices.prices[Operation.EXTRACT]
    with pytest.raises(Exception, match="price") as caught:
        await relater.run(ref)
    assert getattr(caught.value, "reason", None) is Reason.PRICE_UNKNOWN


@pytest.mark.parametrize("seed", range(3))
async def test_in_no_hour_are_there_more_than_the_limit(relater: Relater, seed: int) -> None:
    chance = random.Random(seed)
    ref = await relater.add("Ann")
    claimed = await claim(relater.domain, ref)
    now, taken, limit = relater.clock.now(), list[datetime](), 4
    for _ in range(120):
        now += timedelta(minutes=chance.choice([0, 0, 1, 5, 20, 70]), seconds=chance.randrange(60))
        if chance.random() < 0.05:
            limit = chance.choice([1, 4, 9])
        allowed = await relater.slots.take(_another(claimed), limit, now=now)
        recent = [moment for moment in taken if moment > now - HOUR]
        assert allowed == (len(recent) < limit)
        if allowed:
            taken.append(now)


def _another(claimed: Claim) -> Claim:
    job: Job = replace(claimed.job, id=JobId(new_id()))
    return replace(claimed, job=job)


async def test_old_slots_are_forgotten_and_count_no_more(relater: Relater) -> None:
    await relater.allow(1)
    await relater.enrich("Ann", user=ALICE)
    async with relater.domain.database.tenant_tx(relater.domain.tenant) as connection:
        await connection.execute("UPDATE relation_slots SET taken_at = taken_at - interval '3 hours'")
    assert await relater.enrich("Ben") is None
    assert await relater.slots_taken() == 2


async def test_with_a_higher_limit_what_waits_comes_sooner(relater: Relater) -> None:
    await relater.allow(1)
    jobs = [await relater.enrich(f"text {n}") for n in range(6)]
    left = [job.id for job in jobs if job is not None]
    start = relater.clock.now()

    async def turns() -> list[int]:
        return [round(((await relater.job(job_id)).run_at - start) / HOUR) for job_id in left]

    assert await turns() == [1, 2, 3, 4, 5]
    await relater.allow(2)
    assert await turns() == [0, 0, 1, 1, 2]
    await relater.allow(1)
    assert await turns() == [0, 0, 1, 1, 2]
    # What comes too early is put off again: one of the two that are due has to wait for its turn.
    for ref in await relater.let_go():
        assert (await relater.run(ref)).state is JobState.DEFERRED
    assert await turns() == [1, 2, 1, 1, 2]
    await relater.allow(None)
    assert await turns() == [0, 0, 0, 0, 0]
    for ref in await relater.let_go():
        assert (await relater.run(ref)).state is JobState.SUCCEEDED


async def test_a_worker_that_dies_with_its_slot_taken_leaves_it_to_the_next_attempt(relater: Relater) -> None:
    await relater.allow(1)
    ref = await relater.add("Ann")
    claimed = await claim(relater.domain, ref)
    assert await relater.slots.take(claimed, 1, now=relater.clock.now())
    relater.clock.ahead = timedelta(minutes=2)
    await reap(relater.domain, now=relater.clock.now())
    event = await relater.run(ref)
    assert event.result == JobResult(memories=1, entities=2, relationships=1)
    assert (event.attempt, await relater.slots_taken()) == (2, 1)


async def test_a_run_that_loses_its_job_leaves_no_job_behind(relater: Relater) -> None:
    await relater.allow(1)
    await relater.enrich("Ann")
    ref = await relater.add("Ben")
    claimed = await claim(relater.domain, ref)
    relating = Relating(1, 0)
    relater.clock.ahead = timedelta(minutes=2)
    await reap(relater.domain, now=relater.clock.now())
    store = PostgresEnrichmentStore(relater.domain.database, relater.domain.money.holds)
    vectors = [(claimed.job.memory_ids[0], np.zeros(256, dtype=np.float32))]
    lost = Enrichment(relater.embedder.model, vectors, NOTHING, relating)
    run = run_of(relater.domain, claimed)
    with pytest.raises(LeaseLost):
        await store.commit(claimed, lost, lambda result: run.success(result, partial=False), now=relater.clock.now())
    assert await relater.domain.count("jobs") == 2
    event = await relater.run(ref)
    assert event.result is not None
    assert event.result.relate_job_id is not None
    assert await relater.domain.count("jobs") == 3


async def test_a_worker_puts_off_what_came_too_early_and_does_it_later(relater: Relater, settings: Settings) -> None:
    await relater.allow(1)
    await relater.enrich("Ann")
    later = await relater.enrich("Ben")
    assert later is not None
    (ref,) = await relater.let_go(due_only=False)
    async with open_runner(relater.domain, settings, SilentTail(), _AnyKind(relater)) as runner:
        assert await runner.run(ref) is JobState.DEFERRED
        assert await runner.run(ref) is None
        # An hour passes.
        async with relater.domain.database.tenant_tx(ref.tenant_id) as connection:
            await connection.execute("UPDATE relation_slots SET taken_at = taken_at - interval '1 hour'")
            await connection.execute("UPDATE jobs SET run_at = run_at - interval '1 hour' WHERE state = 'DEFERRED'")
        assert await relater.let_go() == [ref]
        assert await runner.run(ref) is JobState.SUCCEEDED
    states = [event.state for event in await events_of(relater.domain, ref)]
    assert [state for state, _ in groupby(states)] == [
        *(JobState.DEFERRED, JobState.QUEUED, JobState.RUNNING) * 2,
        JobState.SUCCEEDED,
    ]


class _AnyKind:
    """Does each job with the handler of its kind."""

    def __init__(self, relater: Relater) -> None:
        self._handlers = relater.handlers()

    async def run(self, context: RunContext) -> JobEvent:
        return await self._handlers[context.claim.job.kind].run(context)
