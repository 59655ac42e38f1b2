"""Clients that hold on to what they get, or never stop: each is bounded or cut off, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import pytest_asyncio
import trustme

from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.embedded.stack import Stack
from memoro_core.settings import Settings
from tests.support import http2
from tests.support.deployment import Caller, Deployment, deployed
from tests.support.http2 import Kind, connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

HANDSHAKE, IDLE, STREAMS = 1.0, 2.0, 20
WATCH_ALL = "/memoro.v1.JobsService/WatchJobs"
LIST = "/memoro.v1.JobsService/ListJobs"


@dataclass
class Besieged:
    """A server with short patience, and a caller who does nothing wrong."""

    deployment: Deployment
    caller: Caller

    @property
    def port(self) -> int:
        return self.deployment.server.port

    @property
    def metadata(self) -> Mapping[str, str]:
        return dict(self.caller.metadata)

    async def serves_others(self) -> None:
        """Raises unless a call over another connection is answered soon."""
        started = time.monotonic()
        await self.caller.ask("JobsService/ListJobs", jobs.ListJobsRequest(), timeout=5.0)
        assert time.monotonic() - started < 3.0


def settings_on(stack: Stack) -> dict[str, object]:
    return {
        "database_url": stack.database_url,
        "redis_url": stack.redis_url,
        "grpc_port": 0,
        "handshake_timeout": HANDSHAKE,
        "max_connection_idle": IDLE,
        "max_connection_streams": STREAMS,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def besieged(stack: Stack) -> AsyncIterator[Besieged]:
    async with deployed(Settings.model_validate(settings_on(stack))) as deployment:
        yield Besieged(deployment, await deployment.caller())


async def test_who_pings_without_end_is_told_to_be_calm(besieged: Besieged) -> None:
    async with connection(besieged.port, http2.PREFACE, http2.settings({})) as flood:
        await flood.send(http2.ping() * 20_000)
        await besieged.serves_others()
        frames = await flood.until_closed(within=10)
    assert [it.error for it in frames if it.kind == Kind.GOAWAY] == [http2.ENHANCE_YOUR_CALM]
    await besieged.serves_others()


@pytest.mark.parametrize("said", [b"", http2.PREFACE[:10], http2.PREFACE], ids=["nothing", "half", "no settings"])
async def test_who_never_finishes_the_handshake_is_cut_off(besieged: Besieged, said: bytes) -> None:
    async with connection(besieged.port, said) as silent:
        await silent.until_closed(within=HANDSHAKE + 5)


async def test_who_is_no_client_of_http2_is_cut_off(besieged: Besieged) -> None:
    async with connection(besieged.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1000) as browser:
        await browser.until_closed(within=HANDSHAKE + 5)
    await besieged.serves_others()


async def test_who_never_finishes_its_headers_is_cut_off(besieged: Besieged) -> None:
    half = http2.call(1, LIST, besieged.metadata, flags=0)
    async with connection(besieged.port, http2.PREFACE, http2.settings({}), half) as slow:
        await slow.until_closed(within=IDLE + 10)


async def test_who_asks_for_nothing_is_cut_off(besieged: Besieged) -> None:
    async with connection(besieged.port, http2.PREFACE, http2.settings({})) as idle:
        await idle.until_closed(within=IDLE + 10)


async def test_who_never_finishes_a_tls_handshake_is_cut_off(stack: Stack, tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    chain, key = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    settings = Settings.model_validate({**settings_on(stack), "tls_cert_file": chain, "tls_key_file": key})
    async with deployed(settings) as deployment, connection(deployment.server.port, b"\x16\x03\x01") as slow:
        await slow.until_closed(within=HANDSHAKE + 5)


async def test_who_hoards_streams_gets_so_many_and_no_more(besieged: Besieged) -> None:
    async with connection(besieged.port, http2.PREFACE, http2.settings({})) as hoarder:
        began = await hoarder.gathered(0.5)
        [told] = [it for it in began if it.kind == Kind.SETTINGS and not it.flags & http2.ACK]
        values = dict(struct.iter_unpack(">HI", told.payload))
        assert values[http2.MAX_CONCURRENT_STREAMS] == STREAMS
        # It knows, and does not care.
        for stream in range(1, 2001, 2):
            await hoarder.send(http2.call(stream, WATCH_ALL, besieged.metadata), http2.message(stream, b""))
        frames = await hoarder.gathered(2.0)
        await besieged.serves_others()
        answered = {it.stream for it in frames if it.kind == Kind.DATA}
        assert len(answered) <= STREAMS
        assert 0 < running(besieged) <= STREAMS
    await until_idle(besieged)


def running(besieged: Besieged) -> int:
    return besieged.deployment.server._drain.running


def half_said(stream: int, path: str, metadata: Mapping[str, str]) -> bytes:
    """A call that announces a message of eight megabytes, and sends some kilobytes of it."""
    size = 8 * 1024 * 1024 - 100
    begun = http2.frame(Kind.DATA, b"\0" + size.to_bytes(4) + b"x" * 3000, flags=0, stream=stream)
    return http2.call(stream, path, metadata) + begun


@pytest.mark.parametrize("shown", [{}, {"authorization": "Bearer memoro_0_0"}], ids=["nothing", "a bad key"])
async def test_a_stranger_is_refused_before_his_message_is_read(besieged: Besieged, shown: Mapping[str, str]) -> None:
    begun = [half_said(stream, "/memoro.v1.MemoryService/CreateMemory", shown) for stream in range(1, 2 * STREAMS, 2)]
    async with connection(besieged.port, http2.PREFACE, http2.settings({}), *begun) as stranger:
        frames = await stranger.gathered(1.0)
    ended = {it.stream for it in frames if it.kind == Kind.HEADERS and it.flags & http2.END_STREAM}
    assert ended == {*range(1, 2 * STREAMS, 2)}


async def test_a_large_message_of_a_stranger_is_refused_as_a_small_one(besieged: Besieged) -> None:
    large = pb.CreateMemoryRequest(user_id="ann", text="x" * 7_000_000)
    outcome = await besieged.caller.call("MemoryService/CreateMemory", large, metadata=())
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")


async def test_few_strangers_are_waited_for_and_not_long(besieged: Besieged) -> None:
    """Of what needs no key: as many connections as are needed for more calls than are waited for at a time."""
    begun = [half_said(stream, "/grpc.health.v1.Health/Check", {}) for stream in range(1, 2 * STREAMS, 2)]
    async with AsyncExitStack() as stack:
        crowd = [
            await stack.enter_async_context(connection(besieged.port, http2.PREFACE, http2.settings({}), *begun))
            for _ in range(5)
        ]
        soon = await asyncio.gather(*(one.gathered(1.0) for one in crowd))
        assert len(ended_in(soon)) == 5 * STREAMS - 64
        await besieged.serves_others()
        later = await asyncio.gather(*(one.gathered(2.5) for one in crowd))
        assert len(ended_in(later)) == 64


async def test_a_tenant_that_finishes_nothing_is_in_nobodys_way_but_its_own(
    besieged: Besieged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoro_server.interceptors.parsing._MOST_OF_TENANT", STREAMS)
    tenant = await besieged.deployment.caller()
    key, asked = dict(tenant.metadata), jobs.ListJobsRequest()
    begun = [half_said(stream, "/memoro.v1.MemoryService/CreateMemory", key) for stream in range(1, 2 * STREAMS, 2)]
    async with connection(besieged.port, http2.PREFACE, http2.settings({}), *begun) as slow:
        assert ended_in([await slow.gathered(0.5)]) == []
        await besieged.serves_others()
        waits = await tenant.call("JobsService/ListJobs", asked, timeout=0.5)
        assert waits.code is grpc.StatusCode.DEADLINE_EXCEEDED
        in_turn = asyncio.create_task(tenant.call("JobsService/ListJobs", asked))
        await asyncio.sleep(0.2)
        await slow.send(http2.reset(1))
        assert (await in_turn).code is grpc.StatusCode.OK
    await until_idle(besieged)


def ended_in(of_connections: list[list[http2.Frame]]) -> list[http2.Frame]:
    frames = [it for frames in of_connections for it in frames]
    return [it for it in frames if it.kind == Kind.HEADERS and it.flags & http2.END_STREAM]


@pytest.mark.parametrize("path", [WATCH_ALL, "/grpc.health.v1.Health/Watch"])
async def test_who_does_not_say_what_to_watch_is_not_waited_for_long(
    besieged: Besieged, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("memoro_server.interceptors.parsing._PATIENCE", 0.5)
    monkeypatch.setattr("memoro_server.interceptors.parsing._PATIENCE_WITH_STRANGERS", 0.5)
    begun = half_said(1, path, besieged.metadata)
    async with connection(besieged.port, http2.PREFACE, http2.settings({}), begun) as slow:
        frames = await slow.gathered(1.5)
    assert ended_in([frames])
    await until_idle(besieged)


async def test_who_says_nothing_at_all_is_told_so(besieged: Besieged) -> None:
    silent = http2.call(1, LIST, besieged.metadata) + http2.frame(Kind.DATA, b"", flags=http2.END_STREAM, stream=1)
    async with connection(besieged.port, http2.PREFACE, http2.settings({}), silent) as nobody:
        frames = await nobody.gathered(1.0)
    assert ended_in([frames])
    await until_idle(besieged)


async def until_idle(besieged: Besieged) -> None:
    async with asyncio.timeout(10):
        while running(besieged):
            await asyncio.sleep(0.05)


async def test_who_resets_each_call_it_begins_gains_nothing(besieged: Besieged) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    async with connection(besieged.port, http2.PREFACE, http2.settings({})) as flood:
        await flood.gathered(0.3)
        for stream in range(1, 20_001, 2):
            await flood.send(
                http2.call(stream, LIST, besieged.metadata), http2.message(stream, b""), http2.reset(stream)
            )
        await besieged.serves_others()
        await flood.gathered(0.5)
    await until_idle(besieged)
    await besieged.serves_others()
    assert process.memory_info().rss - before < 64 * 1024 * 1024


async def test_who_stalls_within_a_message_is_ended_by_its_deadline(besieged: Besieged) -> None:
    whole = http2.message(1, pb.CreateMemoryRequest(user_id="ann", text="x" * 1000).SerializeToString(), flags=0)
    begun = http2.call(1, "/memoro.v1.MemoryService/CreateMemory", {**besieged.metadata, "grpc-timeout": "1S"})
    part = http2.frame(Kind.DATA, whole[9:500], stream=1)
    async with connection(besieged.port, http2.PREFACE, http2.settings({}), begun, part) as slow:
        frames = await slow.gathered(3.0)
    assert [it.kind for it in frames if it.stream == 1][-1] in {Kind.RST_STREAM, Kind.HEADERS}
    await until_idle(besieged)


@pytest.mark.parametrize("size", [17_000, 200_000])
async def test_metadata_that_is_too_large_is_refused(besieged: Besieged, size: int) -> None:
    fat = (*besieged.caller.metadata, ("x-fat", "x" * size))
    for _ in range(20):
        outcome = await besieged.caller.call("JobsService/ListJobs", jobs.ListJobsRequest(), metadata=fat)
        assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    # A token of some size is welcome.
    fine = (*besieged.caller.metadata, ("x-fine", "x" * 12_000))
    for _ in range(20):
        outcome = await besieged.caller.call("JobsService/ListJobs", jobs.ListJobsRequest(), metadata=fine)
        assert outcome.code is grpc.StatusCode.OK


async def test_who_never_reads_what_it_watches_costs_little(besieged: Besieged) -> None:
    process = psutil.Process()
    asked = jobs.WatchJobsRequest().SerializeToString()
    # A window of no bytes: what is sent to it stays with the server.
    closed = http2.settings({http2.INITIAL_WINDOW_SIZE: 0})
    create = pb.BatchCreateMemoriesRequest(
        requests=[pb.CreateMemoryRequest(user_id="ann", text="A text that makes an event.") for _ in range(100)]
    )
    await besieged.caller.ask("MemoryService/BatchCreateMemories", create)
    async with connection(besieged.port, http2.PREFACE, closed) as deaf:
        await deaf.gathered(0.3)
        for stream in range(1, 2 * STREAMS, 2):
            await deaf.send(http2.call(stream, WATCH_ALL, besieged.metadata), http2.message(stream, asked))
        reading = asyncio.create_task(deaf.gathered(60))
        before = process.memory_info().rss
        for _ in range(25):
            await besieged.caller.ask("MemoryService/BatchCreateMemories", create)
        grown = process.memory_info().rss - before
        await besieged.serves_others()
        reading.cancel()
    # 2,500 events for each of twenty readers.
    assert grown < 64 * 1024 * 1024, grown
    await until_idle(besieged)


async def test_who_never_reads_or_never_ends_is_cut_off_when_its_connection_is_old(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoro_server.app._AGE_GRACE", 1.0)
    settings = Settings.model_validate({**settings_on(stack), "max_connection_age": 1.0})
    closed = http2.settings({http2.INITIAL_WINDOW_SIZE: 0})
    async with deployed(settings) as deployment:
        besieged = Besieged(deployment, await deployment.caller())
        deaf = http2.call(1, WATCH_ALL, besieged.metadata) + http2.message(1, b"")
        # A message of a kilobyte to come, and no deadline.
        stalled = http2.call(1, LIST, besieged.metadata) + http2.frame(Kind.DATA, b"\0\0\0\4\0half", stream=1)
        for held in (deaf, stalled):
            async with connection(deployment.server.port, http2.PREFACE, closed, held) as holder:
                await holder.until_closed(within=10)
        await until_idle(besieged)
        await besieged.serves_others()
