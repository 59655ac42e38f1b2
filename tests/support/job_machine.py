"""A history of jobs for Hypothesis to make up: each rule does one thing to the database and to the model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memoro_core.ids import JobId, MemoryId, UserId
from memoro_core.jobs.model import (
    Claim,
    Finish,
    JobError,
    JobEvent,
    JobResult,
    JobState,
    JobUsage,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_core.jobs.run_ports import Expired
from memoro_core.jobs.states import cancelled, failed
from memoro_core.postgres.database import Database
from memoro_core.tenancy.model import FREE_TIER
from tests.support.job_checks import check_jobs
from tests.support.job_model import JobsModel
from tests.support.job_world import RUN_LIMIT, JobWorld, end_of, open_job_world

TENANT_CAP, USER_CAP = 8, 4
SECOND = timedelta(seconds=1)
T = TypeVar("T")

# What a rule chooses among depends on what the database did, and a draw must not: it is a number, taken modulo.
numbers = st.integers(0, 63)
some = st.lists(numbers, min_size=1, max_size=12)
users = st.sampled_from([UserId("alice"), UserId("bob"), UserId("carol")])
delays = st.sampled_from([0, 1, 2, 8, 60]).map(lambda seconds: seconds * SECOND)
leases = st.sampled_from([5, 20]).map(lambda seconds: seconds * SECOND)
endings = st.sampled_from(["succeeded", "partial", "failed", "retried", "cancelled"])
progresses = st.builds(
    StageProgress,
    st.sampled_from(Stage),
    st.sampled_from([StageStatus.RUNNING, StageStatus.SUCCEEDED, StageStatus.SKIPPED]),
    st.integers(0, 3),
    st.just(3),
)
DONE = tuple(StageProgress(stage, StageStatus.SUCCEEDED, 1, 1) for stage in Stage)


class JobsMachine(RuleBasedStateMachine):
    """A history of a tenant's jobs. Each rule does one thing to the database and to the model, and compares the two."""

    def __init__(self, loop: asyncio.Runner, database: Database, start: datetime) -> None:
        super().__init__()
        self._loop = loop
        self._opened = open_job_world(database, start)
        self.world: JobWorld = self.run(self._opened.__aenter__())
        self.model = JobsModel(TENANT_CAP, USER_CAP)
        self.found: Sequence[Expired] = ()

    def teardown(self) -> None:
        self.run(self._opened.__aexit__(None, None, None))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)

    # ------------------------------------------------------------------------------------------------ what a rule means

    @property
    def now(self) -> datetime:
        return self.world.now

    def job(self, number: int) -> JobId:
        known = list(self.model.jobs)
        return known[number % len(known)]

    def jobs(self, chosen: Sequence[int]) -> list[JobId]:
        return [self.job(number) for number in chosen]

    def claim_of(self, number: int) -> Claim | None:
        """By the number: one that holds; one that is stale, of a job that another runs; any that there ever was."""
        claims = list(self.world.claims.values())
        running = [claim for claim in claims if self.model.jobs[claim.ref.job_id].state is JobState.RUNNING]
        holding = [claim for claim in running if self.model.jobs[claim.ref.job_id].holds(claim.lease)]
        stale = [claim for claim in running if claim not in holding]
        among = [holding, stale, claims][number % 3] or claims
        return among[number // 3 % len(among)] if among else None

    def claims_of(self, chosen: Sequence[int]) -> list[Claim]:
        """Different ones."""
        claims = [claim for number in chosen if (claim := self.claim_of(number))]
        return list({(claim.ref, claim.lease): claim for claim in claims}.values())

    def finish_of(self, claim: Claim, ending: str, delay: timedelta) -> Finish:
        job = claim.job
        usage = job.usage + JobUsage(10, 2)
        match ending:
            case "succeeded" | "partial":
                return Finish(JobState.SUCCEEDED, DONE, usage, partial=ending == "partial", result=JobResult(1))
            case "cancelled":
                return cancelled(stages=job.stages, usage=usage)
            case _:
                error = JobError("PROVIDER_FAILED", "busy", retryable=ending == "retried")
                stages = (StageProgress(Stage.SCREEN, StageStatus.RUNNING, 1, 2), *job.stages[1:])
                return failed(job, error, stages=stages, usage=usage, retry_at=self.now + delay)

    @contextmanager
    def told(self) -> Iterator[list[tuple[JobId, JobEvent]]]:
        """Takes what the database told, and holds it against what the model tells of the same."""
        known = {job_id: job.last_seq for job_id, job in self.model.jobs.items()}
        told: list[tuple[JobId, JobEvent]] = []
        yield told
        expected = [
            (job_id, one) for job_id, job in self.model.jobs.items() for one in job.events[known.get(job_id, 0) :]
        ]
        assert Counter(told) == Counter(expected)

    # ------------------------------------------------------------------------------------------------ callers

    @initialize()
    def two_jobs(self) -> None:
        for user_id in (UserId("alice"), UserId("bob")):
            self.accept(user_id, 0)

    @rule(user_id=users, messages=st.sampled_from([0, 0, 2, 25]))
    def accept(self, user_id: UserId, messages: int) -> None:
        hinted = self.model.has_room(user_id)
        self.model.accept(self.run(self.world.accept(user_id, messages)), hinted=hinted)

    @rule(user_id=users, count=st.integers(2, 6))
    def accept_many(self, user_id: UserId, count: int) -> None:
        for _ in range(count):
            self.accept(user_id, 0)

    @rule(number=numbers)
    def edit(self, number: int) -> None:
        memory_id, user_id = self.memory(number)
        hinted = self.model.has_room(user_id)
        self.model.accept(self.run(self.world.edit(memory_id)), hinted=hinted)

    def memory(self, number: int) -> tuple[MemoryId, UserId]:
        memory_ids = list(self.model.memories)
        memory_id = memory_ids[number % len(memory_ids)]
        return memory_id, self.model.jobs[self.model.memories[memory_id][1]].user_id

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        job_id = self.job(number)
        with self.told() as told:
            told.extend(self.run(self.world.cancel(job_id)))
            self.model.cancel(job_id, self.now)

    @rule(number=numbers)
    def retry(self, number: int) -> None:
        job_id = self.job(number)
        left = self.model.work_left(job_id)
        made = self.run(self.world.retry(job_id))
        assert (tuple(made.memory_ids) if made else ()) == tuple(left)
        if made:
            assert (made.retry_of, made.user_id) == (job_id, self.model.jobs[job_id].user_id)
            self.model.accept(made, hinted=False)

    # ------------------------------------------------------------------------------------------------ workers

    @rule(chosen=some, worker=st.integers(1, 3), lease=leases)
    def claim(self, chosen: Sequence[int], worker: int, lease: timedelta) -> None:
        job_ids, worker_id = self.jobs(chosen), f"worker-{worker}"
        with self.told() as told:
            claims = self.run(self.world.claim(job_ids, worker_id, lease))
            told.extend(begun(claim) for claim in claims)
            deadline = self.now + timedelta(seconds=RUN_LIMIT)
            self.model.claim(job_ids, worker_id, now=self.now, lease_until=self.now + lease, deadline=deadline)

    @rule(worker=st.integers(1, 3), lease=leases, times=st.sampled_from([1, 2]))
    def claim_all(self, worker: int, lease: timedelta, times: int) -> None:
        """Perhaps with each job named twice."""
        self.claim([number for number in range(len(self.model.jobs)) for _ in range(times)], worker, lease)

    @rule(chosen=st.lists(numbers, min_size=1, max_size=4), progress=progresses)
    def report(self, chosen: Sequence[int], progress: StageProgress) -> None:
        claims = self.claims_of(chosen)
        stages = tuple(progress if stage.stage is progress.stage else stage for stage in DONE)
        with self.told() as told:
            answers = self.run(all_of([self.world.report(claim, stages, progress) for claim in claims]))
            for claim, answer in zip(claims, answers, strict=True):
                job_id = claim.ref.job_id
                held = self.model.report(job_id, claim.lease, stages, progress, self.now)
                assert (answer is not None) == held
                if answer is not None:
                    told.append((job_id, answer[0]))
                    assert answer[1] == self.model.jobs[job_id].cancel_requested

    @rule(number=numbers, ending=endings, delay=delays)
    def finish(self, number: int, ending: str, delay: timedelta) -> None:
        self.finish_at_once([(number, ending)], delay)

    @rule(ends=st.lists(st.tuples(numbers, endings), min_size=2, max_size=4), delay=delays)
    def finish_at_once(self, ends: Sequence[tuple[int, str]], delay: timedelta) -> None:
        claims = [(claim, ending) for number, ending in ends if (claim := self.claim_of(number))]
        self.end([(claim, self.finish_of(claim, ending, delay)) for claim, ending in claims])

    @rule(endings=st.lists(endings, max_size=6), delay=delays)
    def work(self, endings: Sequence[str], delay: timedelta) -> None:
        """What mostly happens: all that may begin does, and some of it ends."""
        self.wait(1)
        self.pause(False)
        known = set(self.world.claims)
        self.claim_all(1, 20 * SECOND, 1)
        begun = [claim for key, claim in self.world.claims.items() if key not in known]
        self.end([(claim, self.finish_of(claim, ending, delay)) for claim, ending in zip(begun, endings, strict=False)])

    def end(self, ends: Sequence[tuple[Claim, Finish]]) -> None:
        with self.told() as told:
            for (claim, finish), answer in zip(ends, self.run(self.world.finish_at_once(ends)), strict=True):
                held = self.model.finish(claim.ref.job_id, claim.lease, finish, self.now)
                assert bool(answer) == held
                told.extend(answer)

    @rule(chosen=some)
    def give_back(self, chosen: Sequence[int]) -> None:
        claims = self.claims_of(chosen)
        with self.told() as told:
            told.extend(self.run(self.world.give_back(claims)))
            for claim in claims:
                self.model.release(claim.ref.job_id, claim.lease, self.now)

    @rule(chosen=some, lease=st.sampled_from([0, 5, 30, 300]))
    def extend(self, chosen: Sequence[int], lease: int) -> None:
        claims, until = self.claims_of(chosen), self.now + lease * SECOND
        holding = [claim for claim in claims if self.model.jobs[claim.ref.job_id].holds(claim.lease)]
        asked = [claim for claim in holding if self.model.jobs[claim.ref.job_id].cancel_requested]
        kept = self.run(self.world.leases.extend(claims, lease_until=until))
        assert Counter(kept) == Counter(claim.ref for claim in holding)
        answer = self.run(self.world.leases.cancel_requests(claims))
        assert Counter(answer) == Counter(claim.ref for claim in asked)
        for claim in holding:
            self.model.extend(claim.ref.job_id, claim.lease, until)

    # ------------------------------------------------------------------------------------------------ the scheduler

    @rule(seconds=st.sampled_from([1, 4, 10, 45, 700]))
    def wait(self, seconds: int) -> None:
        self.world.clock.moment += seconds * SECOND

    @rule()
    def look_for_the_lost(self) -> None:
        self.found = self.run(self.world.expired())
        assert {one.claim.ref.job_id: one.timed_out for one in self.found} == self.model.expired(self.now)

    @rule(delay=delays, late=st.booleans())
    def reap(self, delay: timedelta, late: bool) -> None:
        """Late: of what was found some time ago."""
        if not late:
            self.look_for_the_lost()
        lost_by_now = self.model.expired(self.now)
        with self.told() as told:
            told.extend(self.run(self.world.reap(self.found, retry_at=self.now + delay)))
            for one in self.found:
                claim = one.claim
                if claim.ref.job_id in lost_by_now:
                    finish = end_of(one, retry_at=self.now + delay)
                    self.model.finish(claim.ref.job_id, claim.lease, finish, self.now)

    @rule(ends=st.lists(st.tuples(numbers, endings), max_size=4))
    def lose_and_find(self, ends: Sequence[tuple[int, str]]) -> None:
        """All workers stand still, others take over, and the first come back."""
        self.wait(45)
        self.reap(0 * SECOND, False)
        self.pause(False)
        self.claim_all(2, 20 * SECOND, 1)
        self.finish_at_once(ends, 0 * SECOND)

    @rule(most=st.integers(1, 9))
    def hint(self, most: int) -> None:
        waiting = self.model.waiting(self.now)
        chosen = self.run(self.world.hint(most))
        room = 0 if self.model.paused else TENANT_CAP - sum(job.in_flight for job in self.model.jobs.values())
        assert len(chosen) <= min(most, max(room, 0))
        assert bool(chosen) == any(self.model.has_room(job.user_id) for job in waiting)
        for job_id in chosen:
            job = self.model.jobs[job_id]
            assert job in waiting
            assert self.model.has_room(job.user_id)
            job.hinted_at = self.now
        for job in waiting:
            # None of the same user was passed over.
            later = [self.model.jobs[other] for other in chosen if self.model.jobs[other].user_id == job.user_id]
            assert job.hinted_at or all(other.rank_at <= job.rank_at for other in later)

    @rule(age=delays)
    def forget_hints(self, age: timedelta) -> None:
        before = self.now - age
        waiting = [job for job in self.model.jobs.values() if job.state is JobState.QUEUED]
        old = [job for job in waiting if job.hinted_at and job.hinted_at < before]
        assert self.run(self.world.scheduling.forget_hints(fresh_before=before, before=before, limit=1000)) == len(old)
        for job in old:
            job.hinted_at = None

    @rule(chosen=some)
    def take_back(self, chosen: Sequence[int]) -> None:
        job_ids = self.jobs(chosen)
        self.run(self.world.scheduling.take_back(self.world.refs(job_ids)))
        for job in map(self.model.jobs.__getitem__, job_ids):
            if job.state is JobState.QUEUED:
                job.hinted_at = None

    @rule(due_only=st.booleans(), limit=st.sampled_from([1, 100]))
    def let_go(self, due_only: bool, limit: int) -> None:
        deferred = self.model.deferred(self.now if due_only else datetime.max.replace(tzinfo=UTC))
        with self.told() as told:
            told.extend(self.run(self.world.let_go(due_only=due_only, limit=limit)))
            assert len(told) == min(limit, len(deferred))
            last = max((self.model.jobs[job_id].run_at for job_id, _ in told), default=self.now)
            released = [job_id for job_id, _ in told]
            assert all(self.model.jobs[job_id].run_at >= last for job_id in deferred if job_id not in released)
            for job_id in released:
                assert job_id in deferred
                self.model.let_go(job_id, self.now)

    # ------------------------------------------------------------------------------------------------ operators

    @rule(chosen=some, delay=delays)
    def defer(self, chosen: Sequence[int], delay: timedelta) -> None:
        job_ids, until = self.jobs(chosen), self.now + delay
        with self.told() as told:
            told.extend(self.run(self.world.defer(job_ids, until)))
            self.model.defer(job_ids, until, self.now)

    @rule()
    def hasten(self) -> None:
        with self.told() as told:
            told.extend(self.run(self.world.hasten()))
            for job_id in self.model.between_attempts(self.now):
                self.model.let_go(job_id, self.now)

    @rule(paused=st.sampled_from([False, False, True]))
    def pause(self, paused: bool) -> None:
        queues = self.world.queues
        changed = self.run(queues.pause(FREE_TIER, now=self.now) if paused else queues.resume(FREE_TIER))
        assert bool(changed) == (self.model.paused != paused)
        self.model.paused = paused

    @rule(deferred=st.booleans())
    def clear(self, deferred: bool) -> None:
        states = {JobState.QUEUED, *([JobState.DEFERRED] if deferred else [])}
        with self.told() as told:
            told.extend(self.run(self.world.clear(deferred=deferred)))
            for job in self.model.jobs.values():
                if job.state in states:
                    self.model.cancel(job.id, self.now)

    @rule(states=st.sampled_from([(JobState.FAILED,), (JobState.FAILED, JobState.CANCELLED)]))
    def requeue(self, states: Sequence[JobState]) -> None:
        ended = [job.id for job in self.model.jobs.values() if job.state in states]
        left = {job_id: tuple(work) for job_id in ended if (work := self.model.work_left(job_id))}
        without_work = [job_id for job_id in ended if job_id not in left and not self.model.retried(job_id)]
        made, skipped = self.run(self.world.requeue(states))
        new = [self.run(self.world.get(job_id)) for job_id in made]
        assert {job.retry_of: tuple(job.memory_ids) for job in new} == left
        assert (len(new), skipped) == (len(left), len(without_work))
        for job in new:
            self.model.accept(job, hinted=False)

    # ------------------------------------------------------------------------------------------------ at any time

    @invariant()
    def the_database_is_where_the_model_is(self) -> None:
        jobs, memories = self.run(self.world.read())
        check_jobs(jobs, memories, tenant_cap=TENANT_CAP, user_cap=USER_CAP)
        for job_id, job in self.model.jobs.items():
            assert jobs[job_id] == job
        assert jobs.keys() == self.model.jobs.keys()
        assert memories == self.model.memories


async def all_of(work: Sequence[Coroutine[Any, Any, T]]) -> Sequence[T]:
    """All of them at the same time."""
    return await asyncio.gather(*work)


def begun(claim: Claim) -> tuple[JobId, JobEvent]:
    """What a claim tells."""
    job = claim.job
    assert (job.state, job.started_at is not None) == (JobState.RUNNING, True)
    return job.id, JobEvent(job.sequence, JobState.RUNNING, job.attempt, job.started_at or job.created_at)


def queued(now: datetime) -> JobEvent:
    """What a new job tells."""
    return JobEvent(1, JobState.QUEUED, 0, now, run_at=now)
