"""What the clients do when a limit refuses a call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from memoro import AsyncClient, Client, DailyLimit, JobState, QuotaExceeded, RateLimited
from memoro.errors import error_of
from memoro.patience import Patience
from memoro.v1 import admin_service_pb2, jobs_pb2, jobs_service_pb2, memory_pb2, memory_service_pb2
from tests.support.scripted_server import Failure, ScriptedServer

GOT = memory_service_pb2.GetMemoryResponse(memory=memory_pb2.Memory(id="m1"))
CREATED = memory_service_pb2.CreateMemoryResponse(memory=memory_pb2.Memory(id="m1"))
SNAPSHOT = jobs_service_pb2.WatchJobResponse(
    snapshot=jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_SUCCEEDED, sequence=1), sequence=1, resume_token="t1"
)


def limited(retry_after: float | None, limit: str = "reads", reason: str = "RATE_LIMITED", **metadata: str) -> Failure:
    """As a server refuses, with its trailers."""
    pushback = "-1" if retry_after is None else str(round(retry_after * 1000))
    return Failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason,
        "too many calls",
        {"limit": limit, **metadata},
        retry_after=retry_after,
        trailers=(("grpc-retry-pushback-ms", pushback), ("ratelimit-remaining", "0")),
    )


@asynccontextmanager
async def impatient(server: ScriptedServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, wait_for_limits=False) as client:
        yield client


@contextmanager
def taking(at_least: float, less_than: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert at_least <= time.monotonic() - start < less_than


async def test_a_refused_call_is_made_again_as_the_server_says(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("GetMemory", limited(0.4), GOT)
    with taking(0.4, 2):
        assert (await client.memories.get("m1")).id == "m1"
    first, second = server.calls
    assert first.seconds is not None
    assert second.seconds is not None
    # It is one call, with one deadline.
    assert second.seconds <= first.seconds - 0.39


def test_the_blocking_client_waits_too(server: ScriptedServer, blocking_client: Client) -> None:
    server.script("GetMemory", limited(0.3), GOT)
    with taking(0.3, 2):
        assert blocking_client.memories.get("m1").id == "m1"


async def test_it_is_made_again_more_often_than_any_other(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("CreateMemory", *[limited(0.02)] * 12, CREATED)
    await client.memories.create(user_id="ann", text="hello")
    ids = {request.request_id for request in server.requests("CreateMemory")}
    assert (len(server.calls), len(ids)) == (13, 1)


async def test_what_is_never_repeated_otherwise_is_made_again_too(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("CreateApiKey", limited(0.1, "requests"), admin_service_pb2.CreateApiKeyResponse(secret="s"))
    assert (await client.admin.keys.create("t1")).secret == "s"


async def test_a_wait_beyond_the_deadline_is_not_begun(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("GetMemory", limited(1.5), GOT)
    with taking(0, 1), pytest.raises(RateLimited) as caught:
        await client.memories.get("m1", timeout=1.2)
    assert (caught.value.retry_after, caught.value.limit) == (1.5, "reads")
    assert len(server.calls) == 1


async def test_a_client_can_be_told_not_to_wait(server: ScriptedServer) -> None:
    server.script("GetMemory", limited(0.1), GOT)
    server.script("WatchJob", [limited(0.1, "open_streams")], [SNAPSHOT])
    async with impatient(server) as client:
        with pytest.raises(RateLimited):
            await client.memories.get("m1")
        with pytest.raises(RateLimited):
            _ = [update async for update in client.jobs.watch("j1")]
    server.script("GetMemory", limited(0.1), GOT)
    with Client(server.endpoint, wait_for_limits=False) as blocking, pytest.raises(RateLimited):
        blocking.memories.get("m1")
    assert len(server.calls) == 3


@pytest.mark.parametrize(("text", "waits"), [("", True), ("1", True), ("0", False)])
async def test_the_environment_can_tell_it_so(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, text: str, waits: bool
) -> None:
    monkeypatch.setenv("MEMORO_ENDPOINT", server.endpoint)
    monkeypatch.setenv("MEMORO_WAIT_FOR_LIMITS", text)
    for kind in ("asyncio", "blocking"):
        server.script("GetMemory", limited(0.05), GOT)
        try:
            if kind == "asyncio":
                async with AsyncClient.from_env() as client:
                    await client.memories.get("m1")
            else:
                with Client.from_env() as blocking:
                    blocking.memories.get("m1")
            assert waits
        except RateLimited:
            assert not waits


def test_the_environment_must_be_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORO_WAIT_FOR_LIMITS", "maybe")
    with pytest.raises(ValueError, match="MEMORO_WAIT_FOR_LIMITS: expected 1 or 0"):
        Client.from_env()


async def test_the_opening_of_a_stream_waits(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("WatchJob", *[[limited(0.1, "open_streams")]] * 3, [SNAPSHOT])
    with taking(0.3, 2):
        assert [update.state async for update in client.jobs.watch("j1")] == [JobState.SUCCEEDED]
    assert len(server.calls) == 4


def test_the_opening_of_a_blocking_stream_waits(server: ScriptedServer, blocking_client: Client) -> None:
    server.script("WatchJob", [limited(0.2)], [SNAPSHOT])
    with taking(0.2, 2):
        assert [update.state for update in blocking_client.jobs.watch("j1")] == [JobState.SUCCEEDED]


def test_a_watch_that_waits_can_be_closed(server: ScriptedServer, blocking_client: Client) -> None:
    server.script("WatchJobs", [limited(60, "open_streams")])
    watch = blocking_client.jobs.watch_all()
    with taking(0.2, 5):
        threading.Timer(0.2, watch.close).start()
        assert list(watch) == []


async def test_a_call_that_waits_can_be_cancelled(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("GetMemory", limited(5), GOT)
    with taking(0.2, 2), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.memories.get("m1")
    assert len(server.calls) == 1


async def test_a_day_or_a_quota_that_is_used_up_is_not_waited_for(server: ScriptedServer, client: AsyncClient) -> None:
    server.script(
        "GetMemory",
        limited(None, "daily_units", "DAILY_LIMIT", reset_time="2026-02-01T00:00:00Z"),
        limited(None, "max_memories", "QUOTA_EXCEEDED", maximum="10000"),
    )
    with pytest.raises(DailyLimit) as day:
        await client.memories.get("m1")
    assert (day.value.limit, day.value.reset_time) == ("daily_units", datetime(2026, 2, 1, tzinfo=UTC))
    with pytest.raises(QuotaExceeded) as quota:
        await client.memories.get("m1")
    assert (quota.value.limit, quota.value.maximum) == ("max_memories", 10_000)
    assert isinstance(quota.value, RateLimited)
    assert len(server.calls) == 2


def test_what_an_older_server_leaves_out_is_told_as_missing() -> None:
    day: Any = error_of(day_code := RateLimited.default_code, "no", reason="DAILY_LIMIT")
    quota: Any = error_of(day_code, "no", reason="QUOTA_EXCEEDED")
    assert (day.limit, day.reset_time, quota.maximum) == ("", None, 0)


def test_callers_who_are_refused_again_spread_out() -> None:
    refusal = RateLimited("no", retry_after=1.0)
    patience = Patience(10, waits=True)
    assert patience.pause(refusal) == 1.0
    later = [patience.pause(refusal) for _ in range(100)]
    assert all(1.0 <= pause <= 2.0 for pause in later)
    assert len(set(later)) > 50
    # However little is left, the wait that the server named is waited, and no more than fits.
    hasty = Patience(1.01, waits=True)
    assert all(1.0 <= hasty.pause(refusal) < 1.01 for _ in range(100))
