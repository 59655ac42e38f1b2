"""Following all jobs across servers that drain, die, fall silent and forget."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeAlias

import grpc
import pytest

from memoro import (
    AsyncClient,
    AsyncJobsWatch,
    Client,
    InvalidArgument,
    JobKind,
    JobState,
    JobUpdate,
    PermissionDenied,
    Unavailable,
)
from memoro.endpoint import parse_endpoint
from memoro.methods import WATCH_JOBS
from memoro.transport import AioTransport
from memoro.v1 import jobs_pb2, jobs_service_pb2
from tests.support.scripted_server import Failure, ScriptedServer

State: TypeAlias = jobs_pb2.JobState.ValueType
Response: TypeAlias = jobs_service_pb2.WatchJobsResponse
QUEUED = jobs_pb2.JOB_STATE_QUEUED
RUNNING = jobs_pb2.JOB_STATE_RUNNING
SUCCEEDED = jobs_pb2.JOB_STATE_SUCCEEDED
DRAINING = Failure(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_after=0.1)
FORGOTTEN = Failure(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
STOP = Failure(grpc.StatusCode.INVALID_ARGUMENT, "STOP")


def snapshot(job: str, sequence: int, state: State = QUEUED) -> Response:
    held = jobs_pb2.Job(id=job, state=state, sequence=sequence)
    return Response(snapshot=held, sequence=sequence, resume_token=f"at-{job}")


def update(job: str, sequence: int, token: str, state: State = RUNNING, **fields: Any) -> Response:
    change = jobs_pb2.JobUpdate(job_id=job, state=state, **fields)
    return Response(update=change, sequence=sequence, resume_token=token)


def heartbeat(token: str) -> Response:
    return Response(heartbeat=jobs_pb2.Heartbeat(), resume_token=token)


def tokens(server: ScriptedServer) -> list[str]:
    return [request.resume_token for request in server.requests("WatchJobs")]


async def told_by(watch: AsyncJobsWatch) -> list[JobUpdate]:
    """What the watch tells until the script stops it."""
    told = []
    with suppress(InvalidArgument):
        async for one in watch:
            told.append(one)
    return told


def numbered(updates: list[JobUpdate]) -> list[tuple[str, int]]:
    return [(one.job_id, one.sequence) for one in updates]


async def test_it_begins_with_snapshots_and_goes_on_with_updates(server: ScriptedServer, client: AsyncClient) -> None:
    server.script(
        "WatchJobs",
        [snapshot("j1", 4, RUNNING), snapshot("j2", 1), heartbeat("t0"), update("j1", 5, "t1"), heartbeat("t2"), STOP],
    )
    watch = client.jobs.watch_all(states=[JobState.RUNNING], kinds=[JobKind.MEMORY_ENRICH], user_id="ann")
    seen: list[tuple[JobUpdate, str]] = []
    with suppress(InvalidArgument):
        async for one in watch:
            seen.append((one, watch.resume_token))
    assert [(one.job_id, one.sequence, one.snapshot is not None) for one, _ in seen] == [
        *(("j1", 4, True), ("j2", 1, True), ("j1", 5, False))
    ]
    assert [one.resume_token for one, _ in seen] == [token for _, token in seen] == ["at-j1", "at-j2", "t1"]
    assert watch.resume_token == "t2"
    assert not any(one.after_gap for one, _ in seen)
    [request] = server.requests("WatchJobs")
    assert (list(request.states), list(request.kinds), request.user_id) == (
        *([RUNNING], [jobs_pb2.JOB_KIND_MEMORY_ENRICH], "ann"),
    )


async def test_it_goes_on_where_it_broke_and_tells_nothing_twice(server: ScriptedServer, client: AsyncClient) -> None:
    server.script(
        "WatchJobs",
        [heartbeat("t0"), update("j1", 1, "t1"), update("j2", 1, "t2"), DRAINING],
        # What was told before the break may come again, in the middle of what was not.
        [update("j1", 1, "t1"), update("j1", 2, "t3"), update("j2", 1, "t2"), update("j2", 2, "t4"), heartbeat("t5")],
        [Failure(grpc.StatusCode.INTERNAL, message="RST_STREAM")],
        [Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=0.1)],
        [update("j1", 3, "t6", SUCCEEDED), STOP],
    )
    watch = client.jobs.watch_all(user_id="ann")
    assert numbered(await told_by(watch)) == [("j1", 1), ("j2", 1), ("j1", 2), ("j2", 2), ("j1", 3)]
    # The second stream ended with OK, which an endless one does not do of its own will.
    assert tokens(server) == ["", "t2", "t5", "t5", "t5"]
    assert {request.user_id for request in server.requests("WatchJobs")} == {"ann"}
    assert watch.resume_token == "t6"


async def test_another_consumer_goes_on_with_the_token(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("WatchJobs", [heartbeat("t0"), update("j1", 1, "t1"), update("j1", 2, "t2")])
    async with client.jobs.watch_all() as watch:
        kept = (await anext(watch)).resume_token
    server.script("WatchJobs", [update("j1", 2, "t2"), STOP])
    assert numbered(await told_by(client.jobs.watch_all(resume_token=kept))) == [("j1", 2)]
    assert tokens(server) == ["", "t1"]


async def test_it_begins_when_it_is_entered(server: ScriptedServer, client: AsyncClient) -> None:
    first = snapshot("j1", 2)
    server.script("WatchJobs", [first, heartbeat("t0"), update("j1", 3, "t1"), lambda *_: server.stopping.wait(20)])
    async with client.jobs.watch_all() as watch:
        assert len(server.calls) == 1
        # What is held for the first iteration is not told yet: it would be lost with its token.
        assert watch.resume_token == ""
        assert ((await anext(watch)).sequence, watch.resume_token) == (2, "at-j1")
        assert ((await anext(watch)).sequence, watch.resume_token) == (3, "t1")
    # With nothing to tell, there is a place to keep from the start.
    server.script("WatchJobs", [heartbeat("t0"), lambda *_: server.stopping.wait(20)])
    async with client.jobs.watch_all() as idle:
        assert idle.resume_token == "t0"
    # With a token the server may have nothing to say for a while; the place is known.
    server.script("WatchJobs", [lambda *_: server.stopping.wait(20)])
    async with asyncio.timeout(5), client.jobs.watch_all(resume_token="t1") as again:
        assert again.resume_token == "t1"
    server.script("WatchJobs", [Failure(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")])
    with pytest.raises(PermissionDenied):
        await client.jobs.watch_all().__aenter__()


async def test_snapshots_that_break_off_go_on(server: ScriptedServer, client: AsyncClient) -> None:
    server.script(
        "WatchJobs",
        [snapshot("j1", 2), DRAINING],
        [snapshot("j2", 5), heartbeat("t0"), update("j2", 5, "t1"), update("j1", 3, "t2"), STOP],
    )
    seen = await told_by(client.jobs.watch_all())
    # j2 stands in its snapshot as after the update that follows.
    assert numbered(seen) == [("j1", 2), ("j2", 5), ("j1", 3)]
    assert not any(one.after_gap for one in seen)
    assert tokens(server) == ["", "at-j1"]


async def test_forgotten_events_are_told_to_be(server: ScriptedServer, client: AsyncClient) -> None:
    server.script(
        "WatchJobs",
        [heartbeat("t0"), update("j1", 3, "t1"), update("j2", 7, "t2"), DRAINING],
        [FORGOTTEN],
        # j1 stands as it did, and is told all the same: j2, of which nothing is told, is no longer open.
        [snapshot("j1", 3, RUNNING), heartbeat("t8"), update("j3", 1, "t9"), STOP],
    )
    seen = await told_by(client.jobs.watch_all())
    assert [(one.job_id, one.sequence, one.after_gap) for one in seen] == [
        *(("j1", 3, False), ("j2", 7, False), ("j1", 3, True), ("j3", 1, False))
    ]
    assert tokens(server) == ["", "t2", ""]
    # The same for a token that a consumer has kept for too long, also when nothing is open.
    server.script("WatchJobs", [FORGOTTEN], [heartbeat("t8"), update("j3", 1, "t9"), STOP])
    async with client.jobs.watch_all(resume_token="t1") as watch:
        assert (await anext(watch)).after_gap


async def test_it_outlasts_the_death_of_the_server(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("WatchJobs", [heartbeat("t0"), update("j1", 1, "t1"), lambda *_: server.stopping.wait(20)])
    async with client.jobs.watch_all() as watch:
        assert (await anext(watch)).sequence == 1
        following = asyncio.ensure_future(anext(watch))
        server.script("WatchJobs", [update("j1", 2, "t2"), lambda *_: server.stopping.wait(20)])
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.5)
        server.start()
        async with asyncio.timeout(15):
            assert (await following).sequence == 2
    assert tokens(server)[-1] == "t1"


async def test_a_silent_server_is_asked_anew(
    server: ScriptedServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoro.jobs_watch.WATCH_JOBS", replace(WATCH_JOBS, deadline=0.3))
    server.script("WatchJobs", [heartbeat("t0"), lambda *_: server.stopping.wait(2)], [update("j1", 1, "t1")])
    async with client.jobs.watch_all() as watch:
        assert (await anext(watch)).sequence == 1
    assert tokens(server) == ["", "t0"]


async def test_patience_ends_and_the_token_stays(server: ScriptedServer) -> None:
    server.script("WatchJobs", [heartbeat("t0"), DRAINING], [DRAINING])
    transport = AioTransport(parse_endpoint(server.endpoint), None)
    watch = AsyncJobsWatch(transport, patience=0.5)
    with pytest.raises(Unavailable):
        await anext(watch)
    assert watch.resume_token == "t0"
    await transport.close()


async def test_what_is_remembered_is_bounded(
    server: ScriptedServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoro.jobs_watch.REMEMBERED_JOBS", 2)
    first = [update(f"j{number}", 1, f"t{number}") for number in range(4)]
    server.script("WatchJobs", [heartbeat("t"), *first, DRAINING], [*first[2:], *first[:1], STOP])
    told = numbered(await told_by(client.jobs.watch_all()))
    # The two that changed last are known, the first is forgotten and told again: at least once, always.
    assert told == [("j0", 1), ("j1", 1), ("j2", 1), ("j3", 1), ("j0", 1)]


async def test_a_filter_that_can_not_be_is_refused_before_the_call(server: ScriptedServer, client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="UNKNOWN can't be sent"):
        client.jobs.watch_all(states=[JobState.UNKNOWN])
    assert not server.calls


async def test_a_watch_that_is_closed_ends(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("WatchJobs", [heartbeat("t0"), update("j1", 1, "t1"), lambda *_: server.stopping.wait(20)])
    async with aclosing(client.jobs.watch_all()) as watch:
        await anext(watch)
    assert [one async for one in watch] == []


def test_the_blocking_watch_does_the_same(server: ScriptedServer, blocking_client: Client) -> None:
    server.script("WatchJobs", [heartbeat("t0"), update("j1", 1, "t1"), DRAINING], [update("j1", 2, "t2"), STOP])
    watch = blocking_client.jobs.watch_all(states=[JobState.RUNNING])
    seen = []
    with suppress(InvalidArgument):
        for one in watch:
            seen.append((one.sequence, watch.resume_token))
    assert seen == [(1, "t1"), (2, "t2")]
    assert list(watch) == []


def endless(server: ScriptedServer, told: list[int]) -> Iterator[Response]:
    yield heartbeat("t0")
    yield update("j1", 1, "t1")
    while not server.stopping.wait(0.02):
        told.append(1)
        yield heartbeat("t1")


def test_the_blocking_watch_is_left_with_its_stream(server: ScriptedServer, blocking_client: Client) -> None:
    told: list[int] = []
    server.script("WatchJobs", endless(server, told))
    with blocking_client.jobs.watch_all() as watch:
        for _ in watch:
            break
    time.sleep(0.3)
    count = len(told)
    time.sleep(0.2)
    assert len(told) == count
    assert list(watch) == []
    watch.close()


@pytest.mark.parametrize("silence", ["stream", "pause"])
def test_another_thread_ends_the_blocking_watch(server: ScriptedServer, blocking_client: Client, silence: str) -> None:
    broken = Failure(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_after=5)
    waits = broken if silence == "pause" else lambda *_: server.stopping.wait(20)
    server.script("WatchJobs", [heartbeat("t0"), update("j1", 1, "t1"), waits])
    seen: list[int] = []
    arrived = threading.Event()
    watch = blocking_client.jobs.watch_all()

    def follow() -> None:
        for one in watch:
            seen.append(one.sequence)
            arrived.set()

    following = threading.Thread(target=follow)
    following.start()
    assert arrived.wait(10)
    time.sleep(0.2)
    watch.close()
    following.join(2)
    assert not following.is_alive()
    assert seen == [1]
    assert len(server.calls) == 1
    # Other calls of the client go on.
    server.script("GetJob", jobs_service_pb2.GetJobResponse(job=jobs_pb2.Job(id="j1")))
    assert blocking_client.jobs.get("j1").id == "j1"
