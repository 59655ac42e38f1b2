"""Running jobs: each to its end, whatever the handler does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta

import pytest

from memoro_core.errors import MemoroError, ProviderError, Reason, not_found
from memoro_core.ids import JobId, new_id
from memoro_core.jobs.model import (
    PLANNED_STAGES,
    JobKind,
    JobRef,
    JobState,
    JobUsage,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_core.jobs.run_ports import RunContext
from memoro_core.llm.model import Operation, Usage
from tests.integration.jobs.conftest import MakeRunner
from tests.support.domain import Domain
from tests.support.jobs import StubHandler, events_of, job_of, new_job, now, reap, try_claim, until


async def for_ever(_: RunContext) -> None:
    await asyncio.sleep(3600)


async def state_of(domain: Domain, ref: JobRef) -> JobState:
    return (await job_of(domain, ref)).state


async def test_a_run_that_goes_well(domain: Domain, make_runner: MakeRunner) -> None:
    ref = await new_job(domain)
    async with make_runner(StubHandler(domain.run_store)) as runner:
        assert await runner.run(ref) is JobState.SUCCEEDED
        assert runner.running == 0
    events = await events_of(domain, ref)
    assert [event.state for event in events] == [JobState.QUEUED, *[JobState.RUNNING] * 3, JobState.SUCCEEDED]


async def test_a_hundred_hints_for_one_job_run_it_once(domain: Domain, make_runner: MakeRunner) -> None:
    ref = await new_job(domain)
    handler = StubHandler(domain.run_store)
    claimed = 0

    async def note() -> None:
        nonlocal claimed
        claimed += 1

    async with make_runner(handler) as runner:
        states = await asyncio.gather(*(runner.run(ref, claimed=note) for _ in range(100)))
    assert sorted(states, key=str) == [*[None] * 99, JobState.SUCCEEDED]
    assert (handler.runs, claimed) == (1, 100)
    assert (await job_of(domain, ref)).attempt == 1


async def test_a_failure_that_may_pass_is_tried_again_until_attempts_are_used_up(
    domain: Domain, make_runner: MakeRunner
) -> None:
    async def fail(context: RunContext) -> None:
        used = Usage("p", "m", Operation.EMBED, 5, 1)
        async with context.spending(used, b""):
            raise ProviderError("busy", retryable=True, usage=(used,))

    ref = await new_job(domain)
    handler = StubHandler(domain.run_store, fail)
    async with make_runner(handler) as runner:
        job = await runner.execute(ref)
    assert (job.state, job.attempt) == (JobState.FAILED, job.max_attempts)
    assert handler.runs == job.max_attempts
    assert job.error is not None
    assert (job.error.reason, job.error.retryable) == ("PROVIDER_FAILED", True)
    assert job.usage == JobUsage(5 * job.attempt, job.attempt)
    assert {stage.status for stage in job.stages if stage.stage is Stage.EMBED} == {StageStatus.FAILED}
    retries = [event for event in await events_of(domain, ref) if event.state is JobState.QUEUED and event.error]
    assert len(retries) == job.max_attempts - 1
    assert all(event.run_at is not None and event.run_at > event.at for event in retries)


async def test_a_failure_that_time_cannot_cure_is_not_tried_again(domain: Domain, make_runner: MakeRunner) -> None:
    async def refuse(_: RunContext) -> None:
        raise not_found(Reason.MEMORY_NOT_FOUND, "memory", "x")

    ref = await new_job(domain)
    async with make_runner(StubHandler(domain.run_store, refuse)) as runner:
        assert await runner.run(ref) is JobState.FAILED
    job = await job_of(domain, ref)
    assert job.attempt == 1
    assert job.error is not None
    assert (job.error.reason, job.error.retryable) == ("MEMORY_NOT_FOUND", False)


async def test_an_unexpected_exception_is_tried_again_and_leaks_nothing(
    domain: Domain, make_runner: MakeRunner
) -> None:
    async def break_down(_: RunContext) -> None:
        if (await job_of(domain, ref)).attempt == 1:
            raise RuntimeError("secret path /srv")

    ref = await new_job(domain)
    async with make_runner(StubHandler(domain.run_store, break_down)) as runner:
        assert (await runner.execute(ref)).state is JobState.SUCCEEDED
    failed = [event for event in await events_of(domain, ref) if event.error]
    assert [event.error.reason for event in failed if event.error] == ["INTERNAL"]
    assert "srv" not in str(failed)


async def test_a_provider_that_asks_for_time_gets_it(domain: Domain, make_runner: MakeRunner) -> None:
    async def throttle(_: RunContext) -> None:
        raise ProviderError("429", retryable=True, retry_after=60)

    ref = await new_job(domain)
    async with make_runner(StubHandler(domain.run_store, throttle)) as runner:
        assert await runner.run(ref) is JobState.QUEUED
    assert (await job_of(domain, ref)).run_at - now() > timedelta(seconds=50)


async def test_an_attempt_that_takes_too_long_is_ended(domain: Domain, make_runner: MakeRunner) -> None:
    ref = await new_job(domain)
    async with make_runner(StubHandler(domain.run_store, for_ever), timeout=0.2) as runner:
        assert await runner.run(ref) is JobState.QUEUED
    error = (await job_of(domain, ref)).error
    assert error is not None
    assert error.reason == "JOB_TIMED_OUT"


async def test_a_kind_of_job_has_a_time_of_its_own(domain: Domain, make_runner: MakeRunner) -> None:
    async def end_of(timeouts: Mapping[JobKind, float]) -> str:
        ref = await new_job(domain)
        async with make_runner(StubHandler(domain.run_store, for_ever), timeout=0.6, timeouts=timeouts) as runner:
            began = time.monotonic()
            assert await runner.run(ref) is JobState.QUEUED
        job = await job_of(domain, ref)
        assert job.error is not None
        assert job.error.reason == "JOB_TIMED_OUT"
        return "soon" if time.monotonic() - began < 0.6 else "late"

    assert await end_of({JobKind.MEMORY_ENRICH: 0.1}) == "soon"
    assert await end_of({JobKind.MEMORY_RELATE: 0.1}) == "late"


async def test_a_running_job_is_cancelled_at_its_next_safe_point(domain: Domain, make_runner: MakeRunner) -> None:
    asked = asyncio.Event()

    async def work(_: RunContext) -> None:
        await domain.job_store.cancel(domain.tenant, ref.job_id, now=now())
        asked.set()

    ref = await new_job(domain)
    handler = StubHandler(domain.run_store, work)
    async with make_runner(handler) as runner:
        assert await runner.run(ref) is JobState.CANCELLED
    assert asked.is_set()
    assert handler.ended == 0
    await events_of(domain, ref)


async def test_a_lease_is_kept_for_as_long_as_the_run_takes(domain: Domain, make_runner: MakeRunner) -> None:
    async def work(_: RunContext) -> None:
        for _turn in range(15):
            await asyncio.sleep(0.1)
            assert ref not in dict(await reap(domain, now=now()))

    ref = await new_job(domain)
    async with make_runner(StubHandler(domain.run_store, work), lease=0.6, heartbeat=0.1) as runner:
        assert await runner.run(ref) is JobState.SUCCEEDED


async def test_a_run_that_lost_its_job_is_ended_and_writes_nothing(domain: Domain, make_runner: MakeRunner) -> None:
    ref = await new_job(domain)
    handler = StubHandler(domain.run_store, for_ever)
    async with make_runner(handler, heartbeat=0.1) as runner:
        run = asyncio.create_task(runner.run(ref))
        await until(handler.started)
        later = now() + timedelta(hours=1)
        await reap(domain, now=later)
        assert await try_claim(domain.run_store, [ref], at=later)
        assert await asyncio.wait_for(run, 5) is None
    job = await job_of(domain, ref)
    assert (job.state, job.attempt, job.stages) == (JobState.RUNNING, 2, PLANNED_STAGES)


async def test_a_stop_lets_runs_end(domain: Domain, make_runner: MakeRunner) -> None:
    async def work(_: RunContext) -> None:
        await asyncio.sleep(0.3)

    ref, late = await new_job(domain), await new_job(domain)
    handler = StubHandler(domain.run_store, work)
    async with make_runner(handler) as runner:
        run = asyncio.create_task(runner.run(ref))
        await until(handler.started)
        await runner.stop(grace=5)
        assert await run is JobState.SUCCEEDED
        assert await runner.run(late) is None
        with pytest.raises(MemoroError) as draining:
            await runner.execute(late)
        assert draining.value.reason is Reason.SERVER_DRAINING
    assert await state_of(domain, late) is JobState.QUEUED


async def test_a_stop_hands_back_what_does_not_end(domain: Domain, make_runner: MakeRunner) -> None:
    ref = await new_job(domain)
    handler = StubHandler(domain.run_store, for_ever)
    async with make_runner(handler) as runner:
        run = asyncio.create_task(runner.run(ref))
        await until(handler.started)
        await runner.stop(grace=0.1)
        assert await run is None
    job = await job_of(domain, ref)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    async with make_runner(StubHandler(domain.run_store)) as another:
        assert await another.run(ref) is JobState.SUCCEEDED
    await events_of(domain, ref)


async def test_a_caller_that_goes_away_leaves_the_run_to_end(domain: Domain, make_runner: MakeRunner) -> None:
    async def work(_: RunContext) -> None:
        await asyncio.sleep(0.2)

    ref = await new_job(domain)
    handler = StubHandler(domain.run_store, work)
    async with make_runner(handler) as runner:
        call = asyncio.create_task(runner.execute(ref))
        await until(handler.started)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        async def ended() -> bool:
            return await state_of(domain, ref) is JobState.SUCCEEDED

        await until(ended)


async def test_executing_waits_for_a_job_that_runs_elsewhere(domain: Domain, make_runner: MakeRunner) -> None:
    async def work(_: RunContext) -> None:
        await asyncio.sleep(0.3)

    ref = await new_job(domain)
    handler = StubHandler(domain.run_store, work)
    async with make_runner(handler) as elsewhere, make_runner(handler) as here:
        run = asyncio.create_task(elsewhere.run(ref))
        await until(handler.started)
        assert (await here.execute(ref)).state is JobState.SUCCEEDED
        await run
    assert handler.runs == 1


async def test_executing_what_is_not_there(domain: Domain, make_runner: MakeRunner) -> None:
    async with make_runner(StubHandler(domain.run_store)) as runner:
        with pytest.raises(MemoroError) as missing:
            await runner.execute(JobRef(domain.tenant, JobId(new_id())))
    assert missing.value.reason is Reason.JOB_NOT_FOUND


async def test_reports_made_at_once_are_written_one_by_one(domain: Domain, make_runner: MakeRunner) -> None:
    async def work(context: RunContext) -> None:
        await asyncio.gather(
            *(context.report(StageProgress(Stage.EXTRACT, StageStatus.RUNNING, done, 10)) for done in range(10))
        )

    ref = await new_job(domain)
    async with make_runner(StubHandler(domain.run_store, work)) as runner:
        assert await runner.run(ref) is JobState.SUCCEEDED
    told = [event.stage.completed for event in await events_of(domain, ref) if event.stage]
    assert told == [0, *range(10), 1]
