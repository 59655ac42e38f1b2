"""Following a job across servers that drain, die, fall silent and forget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from memoro import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InternalError,
    JobCancelled,
    JobFailed,
    JobState,
    NotFound,
    Stage,
    StageStatus,
    Unavailable,
)
from memoro.convert import job as job_of
from memoro.convert import job_update
from memoro.endpoint import parse_endpoint
from memoro.methods import WATCH_JOB
from memoro.transport import AioTransport
from memoro.v1 import jobs_pb2, jobs_service_pb2
from memoro.watching import apply_update, watch_job
from tests.support.scripted_server import Failure, ScriptedServer

State: TypeAlias = jobs_pb2.JobState.ValueType
QUEUED = jobs_pb2.JOB_STATE_QUEUED
RUNNING = jobs_pb2.JOB_STATE_RUNNING
SUCCEEDED = jobs_pb2.JOB_STATE_SUCCEEDED
FAILED = jobs_pb2.JOB_STATE_FAILED
CANCELLED = jobs_pb2.JOB_STATE_CANCELLED
DRAINING = Failure(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_after=0.1)


def snapshot(sequence: int, state: State = QUEUED) -> jobs_service_pb2.WatchJobResponse:
    job = jobs_pb2.Job(id="j1", state=state, sequence=sequence)
    return jobs_service_pb2.WatchJobResponse(snapshot=job, sequence=sequence, resume_token=f"t{sequence}")


def update(
    sequence: int, state: jobs_pb2.JobState.ValueType = RUNNING, **fields: Any
) -> jobs_service_pb2.WatchJobResponse:
    change = jobs_pb2.JobUpdate(job_id="j1", state=state, **fields)
    return jobs_service_pb2.WatchJobResponse(update=change, sequence=sequence, resume_token=f"t{sequence}")


def heartbeat(sequence: int) -> jobs_service_pb2.WatchJobResponse:
    return jobs_service_pb2.WatchJobResponse(
        heartbeat=jobs_pb2.Heartbeat(), sequence=sequence, resume_token=f"t{sequence}"
    )


def tokens(server: ScriptedServer) -> list[str]:
    return [request.resume_token for request in server.requests("WatchJob")]


async def test_a_watch_begins_with_a_snapshot_and_ends_with_the_job(
    server: ScriptedServer, client: AsyncClient
) -> None:
    stage = jobs_pb2.StageProgress(stage=jobs_pb2.STAGE_EMBED, completed=1, total=1)
    server.script("WatchJob", [snapshot(1), heartbeat(1), update(2, stage=stage), update(3, SUCCEEDED)])
    updates = [update async for update in client.jobs.watch("j1")]
    assert [one.sequence for one in updates] == [1, 2, 3]
    assert updates[0].snapshot is not None
    assert updates[1].stage is not None
    assert updates[1].stage.stage is Stage.EMBED
    assert updates[-1].state.ended


async def test_a_watch_goes_on_where_it_broke(server: ScriptedServer, client: AsyncClient) -> None:
    server.script(
        "WatchJob",
        [snapshot(1), update(2), DRAINING],
        # What was seen before the break may be told again.
        [update(2), update(3), Failure(grpc.StatusCode.INTERNAL, message="RST_STREAM")],
        [Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=0.2)],
        [heartbeat(3), update(4, SUCCEEDED)],
    )
    assert [update.sequence async for update in client.jobs.watch("j1")] == [1, 2, 3, 4]
    assert tokens(server) == ["", "t2", "t3", "t3"]


async def test_a_watch_outlasts_the_death_of_the_server(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("WatchJob", [snapshot(1), update(2), lambda *_: server.stopping.wait(20)])
    seen: list[int] = []

    async def follow() -> None:
        async with aclosing(client.jobs.watch("j1")) as updates:
            async for one in updates:
                seen.append(one.sequence)

    following = asyncio.ensure_future(follow())
    while seen != [1, 2]:
        await asyncio.sleep(0.01)
    server.script("WatchJob", [update(3), update(4, SUCCEEDED)])
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(0.5)
    server.start()
    async with asyncio.timeout(15):
        await following
    assert seen == [1, 2, 3, 4]
    assert tokens(server)[-1] == "t2"


def test_a_blocking_watch_outlasts_a_broken_stream(server: ScriptedServer, blocking_client: Client) -> None:
    server.script("WatchJob", [snapshot(1), DRAINING], [update(2), update(3, SUCCEEDED)])
    handle = blocking_client.jobs.handle("j1")
    assert [update.sequence for update in handle.watch()] == [1, 2, 3]
    assert handle.latest is not None
    assert handle.latest.state is JobState.SUCCEEDED


def test_a_blocking_watch_can_be_left(server: ScriptedServer, blocking_client: Client) -> None:
    told: list[int] = []

    def endless() -> Iterator[jobs_service_pb2.WatchJobResponse]:
        yield snapshot(1)
        while not server.stopping.wait(0.02):
            told.append(1)
            yield heartbeat(1)

    server.script("WatchJob", endless())
    for _ in blocking_client.jobs.watch("j1"):
        break
    time.sleep(0.3)
    count = len(told)
    time.sleep(0.2)
    assert len(told) == count


async def test_forgotten_events_are_made_up_for_by_a_snapshot(server: ScriptedServer, client: AsyncClient) -> None:
    gone = Failure(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    server.script("WatchJob", [snapshot(1), DRAINING], [gone], [snapshot(5, RUNNING), update(6, SUCCEEDED)])
    updates = [update async for update in client.jobs.watch("j1")]
    assert [one.sequence for one in updates] == [1, 5, 6]
    assert updates[1].snapshot is not None
    assert tokens(server) == ["", "t1", ""]
    server.script("WatchJob", [gone], [snapshot(5, SUCCEEDED)])
    assert [update.sequence async for update in client.jobs.watch("j1", resume_token="t1")] == [5]


async def test_a_snapshot_without_news_is_left_out(server: ScriptedServer, client: AsyncClient) -> None:
    gone = Failure(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    server.script("WatchJob", [snapshot(2), DRAINING], [gone], [snapshot(2), update(3, SUCCEEDED)])
    assert [update.sequence async for update in client.jobs.watch("j1")] == [2, 3]


async def test_a_silent_server_is_asked_anew(
    server: ScriptedServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoro.watching.WATCH_JOB", replace(WATCH_JOB, deadline=0.3))
    server.script("WatchJob", [snapshot(1), lambda *_: server.stopping.wait(2)], [update(2, SUCCEEDED)])
    assert [update.sequence async for update in client.jobs.watch("j1")] == [1, 2]


async def test_what_a_new_stream_would_not_cure_is_raised(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("WatchJob", [snapshot(1), Failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")])
    with pytest.raises(NotFound):
        _ = [update async for update in client.jobs.watch("j1")]
    assert len(server.calls) == 1


async def test_patience_ends(server: ScriptedServer) -> None:
    server.script("WatchJob", [DRAINING])
    transport = AioTransport(parse_endpoint(server.endpoint), None)
    start = time.monotonic()
    with pytest.raises(Unavailable):
        _ = [update async for update in watch_job(transport, "j1", patience=0.5)]
    assert 0.5 <= time.monotonic() - start < 3
    assert 2 <= len(server.calls) < 12
    await transport.close()


async def test_a_timeout_holds_across_streams(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("WatchJob", [snapshot(1), DRAINING], [lambda *_: server.stopping.wait(5)])
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"job j1 has not ended within 0\.6 s"):
        await client.jobs.handle("j1").result(timeout=0.6)
    assert 0.5 < time.monotonic() - start < 2


async def test_result_waits_for_the_end(server: ScriptedServer, client: AsyncClient) -> None:
    result = jobs_pb2.JobResult(memories=1, entities=4, relationships=3)
    server.script("WatchJob", [snapshot(1), update(2, attempt=1), update(3, SUCCEEDED, result=result, attempt=1)])
    handle = client.jobs.handle("j1")
    assert (await handle.result(timeout=5)).entities == 4
    assert handle.latest is not None
    assert handle.latest.attempt == 1
    # It is known now: no further call is made.
    await handle.result()
    assert len(server.calls) == 1


@pytest.mark.parametrize(("state", "kind"), [(FAILED, JobFailed), (CANCELLED, JobCancelled)])
async def test_result_tells_of_another_end(
    server: ScriptedServer,
    client: AsyncClient,
    state: jobs_pb2.JobState.ValueType,
    kind: type[JobFailed | JobCancelled],
) -> None:
    error = jobs_pb2.JobError(reason="PROVIDER_FAILED", message="it answered 400")
    server.script("WatchJob", [snapshot(1), update(2, state, error=error if state == FAILED else None)])
    with pytest.raises((JobFailed, JobCancelled)) as caught:
        await client.jobs.handle("j1").result()
    assert type(caught.value) is kind
    assert caught.value.job.state.ended
    if state == FAILED:
        assert caught.value.reason == "PROVIDER_FAILED"
        assert "it answered 400" in str(caught.value)


async def test_a_watch_taken_up_after_the_end_is_made_up_for_by_a_read(
    server: ScriptedServer, client: AsyncClient
) -> None:
    server.script("WatchJob", [])
    server.script(
        "GetJob",
        jobs_service_pb2.GetJobResponse(
            job=jobs_pb2.Job(id="j1", state=SUCCEEDED, result=jobs_pb2.JobResult(memories=2))
        ),
    )
    assert (await client.jobs.handle("j1").result()).memories == 2
    server.script("GetJob", jobs_service_pb2.GetJobResponse(job=jobs_pb2.Job(id="j1", state=RUNNING)))
    with pytest.raises(InternalError, match="has ended before the job"):
        await client.jobs.handle("j1").result()


async def test_cancel_keeps_the_handle_up_to_date(server: ScriptedServer, client: AsyncClient) -> None:
    job = jobs_pb2.Job(id="j1", state=RUNNING, cancel_requested=True)
    server.script("CancelJob", jobs_service_pb2.CancelJobResponse(job=job))
    handle = client.jobs.handle("j1")
    assert (await handle.cancel()).cancel_requested
    assert handle.latest is not None
    assert handle.latest.cancel_requested
    assert server.requests("CancelJob")[0].request_id


@given(st.lists(st.integers(1, 12), max_size=30), st.integers(0, 12))
def test_updates_seen_twice_change_nothing(sequences: list[int], base: int) -> None:
    job = job_of(jobs_pb2.Job(id="j1", state=QUEUED, sequence=base))
    highest = base
    for sequence in sequences:
        before = job
        job = apply_update(job, job_update(update(sequence, attempt=sequence)))
        highest = max(highest, sequence)
        assert job.sequence == highest
        if sequence <= before.sequence:
            assert job is before
    if highest > base:
        assert job.attempt == highest


def test_a_stage_that_moves_takes_the_place_of_what_it_was() -> None:
    stages = [jobs_pb2.StageProgress(stage=one) for one in (jobs_pb2.STAGE_SCREEN, jobs_pb2.STAGE_EMBED)]
    job = job_of(jobs_pb2.Job(id="j1", stages=stages))
    moved = jobs_pb2.StageProgress(stage=jobs_pb2.STAGE_EMBED, completed=3, total=4)
    job = apply_update(job, job_update(update(1, stage=moved)))
    assert [(stage.stage, stage.completed) for stage in job.stages] == [(Stage.SCREEN, 0), (Stage.EMBED, 3)]


def test_a_job_that_succeeds_has_no_stage_under_way() -> None:
    running = jobs_pb2.StageProgress(stage=jobs_pb2.STAGE_COMMIT, status=jobs_pb2.STAGE_STATUS_RUNNING, total=4)
    partial = jobs_pb2.StageProgress(stage=jobs_pb2.STAGE_EMBED, status=jobs_pb2.STAGE_STATUS_PARTIAL, total=4)
    at = Timestamp(seconds=1_700_000_000)
    job = job_of(jobs_pb2.Job(id="j1", stages=[partial, running]))
    job = apply_update(job, job_update(update(1, attempt=1, event_time=at)))
    assert job.start_time == at.ToDatetime(tzinfo=UTC)
    assert job.end_time is None
    later = Timestamp(seconds=at.seconds + 3)
    job = apply_update(job, job_update(update(2, SUCCEEDED, attempt=1, event_time=later)))
    assert [stage.status for stage in job.stages] == [StageStatus.PARTIAL, StageStatus.SUCCEEDED]
    assert job.stages[1].completed == 4
    assert job.start_time is not None
    assert job.end_time == job.start_time + timedelta(seconds=3)
