"""Whose jobs come next, over a real database: caps, pauses, ranks, and many tenants and users."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest_asyncio

from memoro_core.clock import SystemClock
from memoro_core.container import open_lease_store
from memoro_core.ids import TenantId, UserId
from memoro_core.jobs.dispatch import Dispatcher
from memoro_core.jobs.fairness import WaitingTenant
from memoro_core.jobs.heart import Heart, WorkerIdentity
from memoro_core.jobs.hints import HintClass
from memoro_core.jobs.model import JobRef, Priority
from memoro_core.jobs.scheduling_ports import Allotment
from memoro_core.memory.model import NewMemory
from memoro_core.settings import Settings
from memoro_core.tenancy.model import FREE_TIER, PRO_TIER, TenantState, TierName
from memoro_core.tenancy.service import TenancyService
from tests.support.domain import Domain, fresh_name
from tests.support.jobs import claim, new_job, now, reap, succeeded, try_claim, until


class Backlog:
    """Takes the hints that would go to workers."""

    def __init__(self) -> None:
        self.groups: list[Sequence[JobRef]] = []

    async def send_fresh(self, groups: Sequence[Sequence[JobRef]], tier: TierName) -> None:
        raise NotImplementedError

    async def send_backlog(self, groups: Sequence[Sequence[JobRef]]) -> None:
        self.groups += groups

    async def oldest(self) -> dict[HintClass, datetime | None]:
        raise NotImplementedError

    @property
    def refs(self) -> list[JobRef]:
        return [ref for group in self.groups for ref in group]


@pytest_asyncio.fixture
async def owner(owner_database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Nothing waits but what the test makes."""
    connection = await asyncpg.connect(owner_database_url)
    await connection.execute("DELETE FROM jobs WHERE state <> 'SUCCEEDED'")
    yield connection
    await connection.execute("UPDATE tiers SET queue_paused_at = NULL")
    await connection.close()


async def wait_in_line(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    """Takes the hints back that accepting calls have sent."""
    await owner.execute("UPDATE jobs SET hinted_at = NULL WHERE state = 'QUEUED'")


async def jobs_of(domain: Domain, tenant: TenantId, users: dict[str, int], **fields: Any) -> list[JobRef]:
    """So many jobs of each user."""
    accepted = [
        await domain.memories.create(tenant, NewMemory(UserId(user), "I moved to Lyon.", **fields))
        for user, count in users.items()
        for _ in range(count)
    ]
    return [JobRef(tenant, one.job.id) for one in accepted if one.job]


async def tenant_of(domain: Domain, tier: TierName) -> TenantId:
    tenants = TenancyService(domain.tenancy_store, SystemClock())
    return (await tenants.create_tenant(None, fresh_name(), "", tier)).id


async def test_a_tenant_s_jobs_run_up_to_its_cap_and_then_as_others_end(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    tenant = await tenant_of(domain, FREE_TIER)
    refs = await jobs_of(domain, tenant, {"ann": 4, "bob": 4, "cat": 4})
    claims = await try_claim(domain.run_store, refs)
    assert [one.ref for one in claims] == refs[:8]
    # What was turned away waits for the scheduler.
    waiting = await owner.fetch("SELECT job_id FROM jobs WHERE tenant_id = $1 AND hinted_at IS NULL", tenant)
    assert {row["job_id"] for row in waiting} >= {ref.job_id for ref in refs[8:]}
    assert not await try_claim(domain.run_store, refs[8:])
    await domain.run_store.finish(claims[0], succeeded(claims[0]), now=now())
    assert [one.ref for one in await try_claim(domain.run_store, refs[8:])] == refs[8:9]


async def test_a_user_s_jobs_run_up_to_its_cap_and_leave_room_for_other_users(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    tenant = await tenant_of(domain, FREE_TIER)
    refs = await jobs_of(domain, tenant, {"ann": 7, "bob": 3})
    claims = await try_claim(domain.run_store, refs)
    assert [one.ref for one in claims] == [*refs[:4], *refs[7:]]


async def test_claims_at_once_keep_the_caps(domain: Domain, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    tenant = await tenant_of(domain, FREE_TIER)
    refs = await jobs_of(domain, tenant, {f"user-{number}": 2 for number in range(20)})
    answers = await asyncio.gather(*(try_claim(domain.run_store, refs[start::10]) for start in range(10)))
    assert sum(map(len, answers)) == 8


async def test_no_job_of_a_paused_queue_begins(domain: Domain, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    ref = await new_job(domain)
    await owner.execute("UPDATE tiers SET queue_paused_at = now() WHERE tier = 'enterprise'")
    assert not await try_claim(domain.run_store, [ref])
    assert await domain.waiting.tenants_waiting(now=now(), limit=10) == []
    await owner.execute("UPDATE tiers SET queue_paused_at = NULL")
    assert await domain.waiting.tenants_waiting(now=now(), limit=10) == [WaitingTenant(domain.tenant, 16, 1)]
    assert await try_claim(domain.run_store, [ref])


async def test_no_job_of_a_suspended_tenant_begins_until_it_is_resumed(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    tenants = TenancyService(domain.tenancy_store, SystemClock())
    tenant = await tenant_of(domain, PRO_TIER)
    running, hinted = await jobs_of(domain, tenant, {"ann": 2})
    [claim_of_running] = await try_claim(domain.run_store, [running])
    neighbour = await new_job(domain)
    await tenants.set_state(tenant, TenantState.SUSPENDED)
    # What a worker was told of already is not begun either, and then waits.
    assert [one.ref for one in await try_claim(domain.run_store, [hinted, neighbour])] == [neighbour]
    assert await domain.waiting.tenants_waiting(now=now(), limit=10) == []
    assert await owner.fetchval("SELECT waiting FROM jobs WHERE job_id = $1", hinted.job_id)
    # What runs goes on to its end.
    await domain.run_store.finish(claim_of_running, succeeded(claim_of_running), now=now())
    await tenants.set_state(tenant, TenantState.ACTIVE)
    assert [one.tenant_id for one in await domain.waiting.tenants_waiting(now=now(), limit=10)] == [tenant]
    assert [one.ref for one in await try_claim(domain.run_store, [hinted])] == [hinted]


async def test_the_most_urgent_come_first_but_who_waits_long_enough_comes_before_them(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    old_low = await new_job(domain, priority=Priority.LOW)
    low, normal, high = [await new_job(domain, priority=priority) for priority in Priority]
    released = await new_job(domain, priority=Priority.HIGH)
    await wait_in_line(owner)
    minute = timedelta(minutes=1)
    await owner.execute("UPDATE jobs SET run_at = run_at - $2::interval WHERE job_id = $1", old_low.job_id, 2 * minute)
    await owner.execute("UPDATE jobs SET deferred_at = $2 WHERE job_id = $1", released.job_id, now())
    choices = await domain.waiting.hint([Allotment(domain.tenant, 10, UserId(""))], now=now() + minute)
    assert choices[domain.tenant].jobs == [old_low, high, normal, low, released]


async def test_what_is_hinted_is_not_chosen_again(domain: Domain, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    refs = await jobs_of(domain, domain.tenant, {"ann": 6})
    await wait_in_line(owner)
    allotment = [Allotment(domain.tenant, 4, UserId(""))]
    answers = await asyncio.gather(*(domain.waiting.hint(allotment, now=now()) for _ in range(4)))
    chosen = [ref for answer in answers for ref in answer[domain.tenant].jobs]
    assert sorted(chosen, key=lambda ref: ref.job_id) == refs


async def test_of_very_many_users_all_come_to_their_turn(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await owner.execute(
        """
        INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at,
                          last_seq, created_at)
        SELECT $1, gen_random_uuid(), 'memory.enrich', 'QUEUED', 2, 'user-' || number, '{}', '[]', 5, now(), 1, now()
        FROM generate_series(1, 1200) AS number
        """,
        domain.tenant,
    )
    seen: Counter[JobRef] = Counter()
    after = UserId("")
    for _ in range(4):
        choice = (await domain.waiting.hint([Allotment(domain.tenant, 450, after)], now=now()))[domain.tenant]
        seen.update(choice.jobs)
        after = choice.last_user or UserId("")
    assert len(seen) == sum(seen.values()) > 1150


async def test_workers_are_kept_in_work_each_tenant_in_its_turn(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    pro = await tenant_of(domain, PRO_TIER)
    free = await tenant_of(domain, FREE_TIER)
    await jobs_of(domain, pro, {f"user-{number}": 4 for number in range(15)})
    await jobs_of(domain, free, {f"user-{number}": 4 for number in range(15)})
    await wait_in_line(owner)
    backlog = Backlog()
    dispatcher = Dispatcher(domain.waiting, backlog, SystemClock())
    assert await dispatcher.dispatch(20, workers=2) == 20
    assert Counter(ref.tenant_id for ref in backlog.refs) == {pro: 16, free: 4}
    # The free tenant has room for eight in flight.
    assert await dispatcher.dispatch(100, workers=2) == 48
    assert Counter(ref.tenant_id for ref in backlog.refs) == {pro: 60, free: 8}
    assert max(map(len, backlog.groups)) > 1
    assert await dispatcher.dispatch(100, workers=2) == 0


async def test_what_was_put_off_comes_after_the_jobs_of_all_tenants_but_not_for_ever(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    heavy, light = domain.tenant, await tenant_of(domain, FREE_TIER)
    await jobs_of(domain, heavy, {"ann": 4, "bob": 4})
    await owner.execute("UPDATE jobs SET deferred_at = now() WHERE tenant_id = $1", heavy)
    await jobs_of(domain, heavy, {"cat": 1})
    await jobs_of(domain, light, {"ann": 3})
    await wait_in_line(owner)
    told = {one.tenant_id: one for one in await domain.waiting.tenants_waiting(now=now(), limit=50)}
    assert told == {heavy: WaitingTenant(heavy, 16, 1, released=8), light: WaitingTenant(light, 1, 3)}
    backlog = Backlog()
    dispatcher = Dispatcher(domain.waiting, backlog, SystemClock())
    assert await dispatcher.dispatch(4, workers=1) == 4
    assert Counter(ref.tenant_id for ref in backlog.refs) == {heavy: 1, light: 3}
    assert await dispatcher.dispatch(2, workers=1) == 2
    assert Counter(ref.tenant_id for ref in backlog.refs) == {heavy: 3, light: 3}
    # Who has waited for ten minutes since is put back no more.
    later = now() + timedelta(minutes=10)
    assert await domain.waiting.tenants_waiting(now=later, limit=50) == [WaitingTenant(heavy, 16, 6)]


async def test_only_what_the_workers_soon_have_room_for_is_hinted(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record], settings: Settings
) -> None:
    await jobs_of(domain, domain.tenant, {f"user-{number}": 4 for number in range(10)})
    busy = await new_job(domain)
    await wait_in_line(owner)
    await claim(domain.run_store, busy)
    await owner.execute("DELETE FROM workers")
    backlog = Backlog()
    dispatcher = Dispatcher(domain.waiting, backlog, SystemClock())
    assert await dispatcher.refill() == 0
    worker = WorkerIdentity("w", "host", 1, "0", 8, now())
    async with Heart(
        lambda: open_lease_store(settings), SystemClock(), lease=2.0, interval=0.1, worker=worker
    ) as heart:

        async def seen() -> bool:
            return (await domain.waiting.load(seen_since=now() - timedelta(seconds=2))).workers == 1

        await until(seen, seconds=5)
        assert await dispatcher.refill() == 2 * 7 + 2
        assert await dispatcher.refill() == 0
        heart.stop_taking()

        async def unseen() -> bool:
            return not await seen()

        await until(unseen, seconds=5)
    assert not await owner.fetchval("SELECT count(*) FROM workers")


async def test_jobs_that_have_lost_two_workers_run_one_at_a_time_on_each(
    domain: Domain, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    suspects, well = await jobs_of(domain, domain.tenant, {"ann": 4}), await new_job(domain)
    for _ in range(2):
        assert len(await try_claim(domain.run_store, suspects, lease=timedelta(seconds=-1))) == 4
        await reap(domain, now=now())
    (first, other) = await try_claim(domain.run_store, [*suspects, well])
    assert [first.ref, other.ref] == [suspects[0], well]
    assert not await try_claim(domain.run_store, suspects[1:])
    await domain.run_store.finish(first, succeeded(first), now=now())
    assert [one.ref for one in await try_claim(domain.run_store, suspects[1:])] == suspects[1:2]
