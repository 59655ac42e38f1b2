"""Recurring work over real PostgreSQL: each time once, however many replicas, and again when one is lost in it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from memoro_core.errors import unavailable
from memoro_core.jobs.cron import Cron
from memoro_core.jobs.recurring import LOST_AFTER, Recurring, Schedule
from memoro_core.postgres.schedule_store import PostgresScheduleStore
from tests.support.domain import Domain, fresh_name
from tests.support.jobs import until

BERLIN = ZoneInfo("Europe/Berlin")
TEN_MINUTES = timedelta(minutes=10)
Work = Callable[[datetime], Awaitable[None]]


@dataclass
class SetClock:
    """A clock that a test sets."""

    moment: datetime

    def now(self) -> datetime:
        return self.moment


@dataclass
class Fleet:
    """Replicas with one schedule, and what they have done."""

    store: PostgresScheduleStore
    clock: SetClock
    name: str = field(default_factory=fresh_name)
    cron: Cron = field(default_factory=lambda: Cron("*/10 * * * *", BERLIN))
    done: Counter[datetime] = field(default_factory=Counter)
    replicas: list[Recurring] = field(default_factory=list)

    def replica(self, work: Work | None = None, *, lost_after: timedelta = LOST_AFTER) -> Recurring:
        """One more process."""

        async def count(fire_at: datetime) -> None:
            self.done[fire_at] += 1

        schedule = Schedule(self.name, self.cron, work or count)
        self.replicas.append(Recurring(self.store, [schedule], self.clock, lost_after=lost_after))
        return self.replicas[-1]

    async def round(self) -> None:
        """A round of all replicas at once, and the end of what it began."""
        await asyncio.gather(*(replica.round() for replica in self.replicas))
        await until(self.idle)

    async def idle(self) -> bool:
        """Whether no time is worked on."""
        latest = await self.store.latest(self.name)
        return latest is None or latest.ended_at is not None

    async def step(self, by: timedelta) -> None:
        """Some time later, a round."""
        self.clock.moment += by
        await self.round()


@asynccontextmanager
async def fleet_of(domain: Domain, start: datetime) -> AsyncIterator[Fleet]:
    fleet = Fleet(PostgresScheduleStore(domain.database), SetClock(start))
    try:
        yield fleet
    finally:
        for replica in fleet.replicas:
            await replica.close()


@pytest.fixture
async def fleet(domain: Domain) -> AsyncIterator[Fleet]:
    async with fleet_of(domain, datetime(2026, 1, 1, 12, 5, tzinfo=UTC)) as running:
        yield running


def at(hour: int, minute: int) -> datetime:
    return datetime(2026, 1, 1, hour, minute, tzinfo=UTC)


async def test_each_time_comes_once_over_all_replicas(fleet: Fleet) -> None:
    for _ in range(8):
        fleet.replica()
    await fleet.round()
    for _ in range(12):
        await fleet.step(timedelta(minutes=5))
    assert fleet.done == Counter({at(12, 0) + n * TEN_MINUTES: 1 for n in range(1, 7)})


@pytest.mark.parametrize(
    ("change", "hours"),
    [("2026-03-28T23:00+00:00", 23), ("2026-10-24T22:00+00:00", 25)],
)
async def test_the_day_on_which_clocks_are_changed_has_each_of_its_times_once(
    domain: Domain, change: str, hours: int
) -> None:
    async with fleet_of(domain, datetime.fromisoformat(change).astimezone(UTC)) as fleet:
        fleet.cron = Cron("30 * * * *", BERLIN)
        for _ in range(3):
            fleet.replica()
        await fleet.round()
        for _ in range(hours * 4):
            await fleet.step(timedelta(minutes=15))
    assert set(fleet.done.values()) == {1}
    assert len(fleet.done) == hours


@pytest.mark.parametrize("seed", range(4))
async def test_replicas_that_come_and_go_never_do_a_time_twice(fleet: Fleet, seed: int) -> None:
    chance = random.Random(seed)
    fleet.replica()
    await fleet.round()
    for _ in range(25):
        if chance.random() < 0.4 or not fleet.replicas:
            fleet.replica()
        if chance.random() < 0.3:
            await fleet.replicas.pop(chance.randrange(len(fleet.replicas))).close()
        await fleet.step(timedelta(minutes=chance.choice([1, 3, 10, 45])))
    assert set(fleet.done.values()) <= {1}, f"seed {seed}"
    assert fleet.done


async def test_of_the_times_that_were_missed_only_the_latest_is_made_up_for(fleet: Fleet) -> None:
    fleet.replica()
    await fleet.round()
    await fleet.step(TEN_MINUTES)
    await fleet.step(timedelta(hours=5))
    assert fleet.done == Counter([at(12, 10), at(17, 10)])


async def test_a_new_schedule_begins_with_its_next_time(fleet: Fleet) -> None:
    fleet.replica()
    await fleet.round()
    await fleet.step(timedelta(minutes=4))
    assert not fleet.done
    await fleet.step(timedelta(minutes=1))
    assert fleet.done == Counter([at(12, 10)])


async def test_a_clock_that_is_behind_does_nothing_over(fleet: Fleet) -> None:
    fleet.replica()
    await fleet.round()
    await fleet.step(timedelta(minutes=26))
    late = Fleet(fleet.store, SetClock(at(12, 14)), fleet.name, fleet.cron, fleet.done)
    late.replica()
    await late.round()
    assert fleet.done == Counter([at(12, 30)])


async def test_a_time_whose_process_was_lost_is_taken_over(fleet: Fleet) -> None:
    begun = asyncio.Event()

    async def hang(_: datetime) -> None:
        begun.set()
        await asyncio.Event().wait()

    lost = fleet.replica(hang)
    await lost.round()
    fleet.clock.moment = at(12, 10)
    await lost.round()
    await asyncio.wait_for(begun.wait(), 10)
    await lost.close()
    fleet.replicas.clear()
    other = fleet.replica()
    await other.round()
    fleet.clock.moment += LOST_AFTER - timedelta(seconds=1)
    await other.round()
    assert not fleet.done
    fleet.clock.moment += timedelta(seconds=6)
    await fleet.round()
    assert fleet.done == Counter([at(12, 10)])


async def test_a_lost_time_whose_next_has_come_is_left(fleet: Fleet) -> None:
    store, name = fleet.store, fleet.name
    await store.introduce(name, now=at(12, 5))
    assert await store.begin(name, at(12, 10), now=at(12, 10), lost_before=at(12, 5))
    fleet.clock.moment = at(12, 21)
    fleet.replica()
    await fleet.round()
    assert fleet.done == Counter([at(12, 20)])


async def test_while_one_time_is_worked_on_the_next_waits(fleet: Fleet) -> None:
    store, name = fleet.store, fleet.name
    await store.introduce(name, now=at(12, 5))
    assert await store.begin(name, at(12, 10), now=at(12, 18), lost_before=at(12, 13))
    fleet.clock.moment = at(12, 20)
    replica = fleet.replica()
    await replica.round()
    assert not fleet.done
    assert await store.end(name, at(12, 10), started_at=at(12, 18), now=at(12, 20))
    await fleet.step(timedelta(seconds=6))
    assert fleet.done == Counter([at(12, 20)])


async def test_who_was_taken_for_lost_does_not_end_what_another_has_taken_over(fleet: Fleet) -> None:
    store, name, fire_at = fleet.store, fleet.name, at(12, 10)
    assert await store.begin(name, fire_at, now=at(12, 10), lost_before=at(12, 5))
    assert not await store.begin(name, fire_at, now=at(12, 11), lost_before=at(12, 6))
    assert await store.begin(name, fire_at, now=at(12, 16), lost_before=at(12, 11))
    assert not await store.end(name, fire_at, started_at=at(12, 10), now=at(12, 17))
    assert await store.end(name, fire_at, started_at=at(12, 16), now=at(12, 17))
    assert not await store.begin(name, fire_at, now=at(13, 0), lost_before=at(12, 55))


@pytest.mark.parametrize("failure", [unavailable("database"), RuntimeError("broken"), None])
async def test_work_that_fails_or_hangs_is_begun_again(fleet: Fleet, failure: Exception | None) -> None:
    tries: list[datetime] = []

    async def work(fire_at: datetime) -> None:
        tries.append(fire_at)
        if len(tries) == 1:
            if failure is None:
                await asyncio.Event().wait()
            else:
                raise failure

    replica = fleet.replica(work, lost_after=timedelta(seconds=0.2))
    await replica.round()
    fleet.clock.moment = at(12, 10)

    async def failed() -> bool:
        return bool(logs)

    with capture_logs() as logs:
        await replica.round()
        await until(failed)
    assert logs[0]["event"] == "schedule_failed"
    await fleet.step(timedelta(seconds=6))
    assert tries == [at(12, 10)] * 2
