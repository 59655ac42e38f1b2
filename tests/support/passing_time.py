"""Time that a test lets pass at once, for jobs that wait for it; and what an hour's limit let through meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from memoro_core.ids import TenantId
from tests.support.chaos import Owner

HOUR = timedelta(hours=1)
_BEGIN = "CREATE TABLE IF NOT EXISTS passed_time (tenant_id uuid PRIMARY KEY, passed interval NOT NULL)"
_KEEP = "INSERT INTO passed_time VALUES ($1, '0') ON CONFLICT DO NOTHING"
_LIMIT = (
    "UPDATE tenants SET limits = limits || jsonb_build_object('relation_detections', $2::integer) WHERE tenant_id = $1"
)
# In one statement, so that one that is repeated after a lost answer lets time pass twice and tells so.
_PASS = """
    WITH passed AS (
        UPDATE passed_time SET passed = passed + $2 WHERE tenant_id = $1 RETURNING passed
    ), hastened AS (
        UPDATE jobs SET run_at = run_at - $2::interval
        WHERE tenant_id = $1 AND state = 'DEFERRED' AND deferral_reason = 'RELATIONS'
    ), slots AS (
        UPDATE relation_slots SET taken_at = taken_at - $2::interval
        WHERE tenant_id = $1
        RETURNING user_id, number, job_id, taken_at
    )
    SELECT passed, slots.* FROM passed LEFT JOIN slots ON true
    """
_HURRY = """
    UPDATE jobs SET run_at = now()
    WHERE tenant_id = $1 AND state = 'DEFERRED' AND deferral_reason = 'RELATIONS' AND run_at > now()
    """


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """A job's leave to find entities and facts, and when it took it by the test's own time."""

    at: datetime
    number: int
    job_id: UUID


@dataclass
class PassingTime:
    """The time of one tenant: what is in its past moves back, so that it goes faster than the clock."""

    owner: Owner
    tenant_id: TenantId
    per_hour: int
    slots: defaultdict[str, set[Slot]] = field(default_factory=lambda: defaultdict(set))
    """Of each user, all that were ever seen."""
    passed: timedelta = timedelta()
    _moves: list[tuple[datetime, timedelta]] = field(default_factory=list)
    _moving: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def now(self) -> datetime:
        """By the test's own time."""
        async with self._moving:
            return datetime.now(UTC) + self.passed

    def at(self, moment: datetime) -> datetime:
        """What was, at that moment by the clock, the test's own time; of one in which it moved, the later."""
        passed = [so_far for begin, so_far in self._moves if begin <= moment]
        return moment + passed[-1] if passed else moment

    async def let_pass(self, time: timedelta) -> None:
        """So much time is over at once, and with nothing of it, one more look is taken at what has taken slots."""
        async with self._moving:
            begin = datetime.now(UTC)
            rows = await self.owner.fetch(_PASS, self.tenant_id, time)
            self.passed = rows[0]["passed"]
            self._moves.append((begin, self.passed))
            for row in rows:
                if row["number"] is not None:
                    # Both move with every hour, so that their sum stays.
                    slot = Slot(row["taken_at"] + self.passed, row["number"], row["job_id"])
                    self.slots[row["user_id"]].add(slot)

    async def hurry(self) -> None:
        """Makes all due that waits for its turn, as an operator may."""
        await self.owner.fetch(_HURRY, self.tenant_id)

    @asynccontextmanager
    async def passing(self, lots: Random, pauses: Sequence[float]) -> AsyncIterator[None]:
        """While the block runs, an hour passes again and again, after pauses between so many seconds."""
        stop = asyncio.Event()

        async def pass_on() -> None:
            while not stop.is_set():
                await self.let_pass(HOUR)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), lots.uniform(*pauses))

        going = asyncio.create_task(pass_on())
        try:
            yield
        finally:
            stop.set()
            await going

    def violations(self) -> Sequence[str]:
        """Where an hour let more through than it may, a job took a slot though it had one, or a number is missing."""
        found: list[str] = []
        for user_id, slots in self.slots.items():
            ordered = sorted(slots)
            # Once all are so old that they are swept out, numbers begin anew.
            for before, after in itertools.pairwise(ordered):
                if after.number not in {before.number + 1, 1}:
                    found.append(f"slots that were not seen: user {user_id}: between {before} and {after}")
            for first, after in zip(ordered, ordered[self.per_hour :], strict=False):
                if after.at - first.at < HOUR:
                    found.append(f"more than {self.per_hour} in an hour: user {user_id}: from {first} to {after}")
        for job_id, taken in self.of_job().items():
            for before, after in itertools.pairwise(taken):
                if after.at - before.at < HOUR:
                    found.append(f"a job that had a slot and took one more: job {job_id}: {before}, then {after}")
        return found

    def of_job(self) -> Mapping[UUID, Sequence[Slot]]:
        """The slots of each job."""
        by_job: defaultdict[UUID, list[Slot]] = defaultdict(list)
        for slots in self.slots.values():
            for slot in sorted(slots):
                by_job[slot.job_id].append(slot)
        return by_job


async def limited(owner: Owner, tenant_id: TenantId, per_hour: int) -> PassingTime:
    """The time of a tenant whose users have entities and facts found for so many jobs in an hour."""
    await owner.fetch(_BEGIN)
    await owner.fetch(_KEEP, tenant_id)
    await owner.fetch(_LIMIT, tenant_id, per_hour)
    return PassingTime(owner, tenant_id, per_hour)
