"""Many watches in this process on jobs that report in another one, and how long each event was under way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio

from benchmarks import event_floor
from benchmarks.deployment import Account, Deployment
from benchmarks.event_source import LONGEST_LINE, SEQUENCE_BYTES
from memoro import AsyncClient, NewMemory
from memoro.v1 import jobs_pb2, jobs_service_pb2

_PATIENCE: Final = 5.0
"""Seconds without any message after which no more are awaited."""
_OPEN_WITHIN: Final = 60.0
_DEADLINE: Final = 300.0
_BATCH: Final = 100
_ENDED: Final = frozenset({jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED})

Key = tuple[str, int]
"""An event: its job and its number."""


class Way(StrEnum):
    """How events come to the client."""

    FLOOR = "XREAD and a bare stream"
    WATCH_JOB = "WatchJob"
    WATCH_JOBS = "WatchJobs"


@dataclass(frozen=True, slots=True)
class Load:
    """What a round's jobs do: `events` reports each, `interval` seconds apart, so many jobs at once."""

    jobs: int
    events: int
    interval: float
    concurrency: int


@dataclass(frozen=True, slots=True)
class Round:
    """What became of the events of one round; `ended` counts jobs whose last event arrived."""

    published: int
    streams: int
    ended: int
    milliseconds: Sequence[float]
    message_bytes: float

    @property
    def complete(self) -> bool:
        """Whether every event arrived."""
        return len(self.milliseconds) == self.published


@dataclass(slots=True, eq=False)
class _Stream:
    """One stream and what has come over it, with the moment of its arrival."""

    start: Callable[[], grpc.aio.UnaryStreamCall[bytes, bytes]]
    name: str
    is_open: Callable[[bytes], bool]
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: list[tuple[int, bytes]] = field(default_factory=list)
    told_at_first: int = 0
    """How many messages only said how things stood."""

    async def follow(self) -> None:
        """Reads until the stream ends; one that fails counts as what it has brought."""
        try:
            async for message in self.start():
                self.arrived.append((time.monotonic_ns(), message))
                if not self.opened.is_set() and self.is_open(message):
                    self.told_at_first = len(self.arrived)
                    self.opened.set()
        except grpc.aio.AioRpcError as error:
            sys.stderr.write(f"a watch broke: {error.code().name} {error.details()}\n")
        finally:
            self.opened.set()


class Watchers:
    """Opens watches of each way, and measures rounds on them."""

    def __init__(
        self,
        source: asyncio.subprocess.Process,
        accounts: Sequence[Account],
        clients: Sequence[AsyncClient],
        channels: Sequence[grpc.aio.Channel],
        floor_channels: Sequence[grpc.aio.Channel],
    ) -> None:
        self._source = source
        self._accounts = accounts
        self._clients = clients
        self._channels = channels
        self._floor_channels = floor_channels
        self.message_bytes = 200
        """Size of the floor's messages."""

    async def serves(self, way: Way) -> bool:
        """Whether the server knows the call."""
        [stream] = self._open(way, 0, [""])
        call = stream.start()
        try:
            async with asyncio.timeout(_OPEN_WITHIN):
                await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.UNIMPLEMENTED
        finally:
            call.cancel()
        return True

    async def round(
        self, way: Way, load: Load, *, while_open: Callable[[asyncio.Task[Any]], Any] | None = None
    ) -> Round:
        """New jobs of all tenants, watches on them, and then the jobs run.

        `while_open` is awaited once all watches are open, with a task that is done when the jobs have ended.
        """
        each = load.jobs // len(self._accounts)
        names = [await _new_jobs(client, each) for client in self._clients]
        streams = [stream for number, jobs in enumerate(names) for stream in self._open(way, number, jobs)]
        followers: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(_OPEN_WITHIN):
                # Not all in one moment: it is not how they come, and gRPC refuses some of more than 1,000 that wait.
                for some in (streams[start : start + _BATCH] for start in range(0, len(streams), _BATCH)):
                    followers += [asyncio.create_task(stream.follow()) for stream in some]
                    await asyncio.gather(*(stream.opened.wait() for stream in some))
            running = asyncio.create_task(self._run(way, load, names))
            if while_open is not None:
                await while_open(running)
            published = await running
            await _settle(streams, len(published))
        finally:
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
        return _round_of(way, streams, published)

    async def _run(self, way: Way, load: Load, names: Sequence[Sequence[str]]) -> Mapping[Key, int]:
        order = {
            "jobs": [
                (str(account.tenant_id), job)
                for account, jobs in zip(self._accounts, names, strict=True)
                for job in jobs
            ],
            "events": load.events,
            "interval": load.interval,
            "concurrency": load.concurrency,
            "floor_bytes": self.message_bytes if way is Way.FLOOR else 0,
        }
        assert self._source.stdin is not None
        assert self._source.stdout is not None
        self._source.stdin.write(json.dumps(order).encode() + b"\n")
        await self._source.stdin.drain()
        answer = json.loads(await self._source.stdout.readline())
        return {(job, sequence): moment for job, sequence, moment in answer["published"]}

    def _open(self, way: Way, number: int, jobs: Sequence[str]) -> Sequence[_Stream]:
        """One stream per job, or one for all of the tenant's."""
        metadata = (("authorization", f"Bearer {self._accounts[number].api_key}"),)
        channel = self._channels[number]
        match way:
            case Way.FLOOR:
                floor: Any = self._floor_channels[number].unary_stream(event_floor.METHOD)
                return [_Stream(partial(floor, job.encode()), job, lambda _: True) for job in jobs]
            case Way.WATCH_JOB:
                watch_job: Any = channel.unary_stream("/memoro.v1.JobsService/WatchJob")
                requests = [jobs_service_pb2.WatchJobRequest(job_id=job).SerializeToString() for job in jobs]
                return [
                    _Stream(partial(watch_job, request, metadata=metadata, timeout=_DEADLINE), job, lambda _: True)
                    for job, request in zip(jobs, requests, strict=True)
                ]
            case Way.WATCH_JOBS:
                watch_jobs: Any = channel.unary_stream("/memoro.v1.JobsService/WatchJobs")
                request = jobs_service_pb2.WatchJobsRequest().SerializeToString()
                start = partial(watch_jobs, request, metadata=metadata, timeout=_DEADLINE)
                return [_Stream(start, "", _all_snapshots_told)]


@asynccontextmanager
async def open_watchers(
    deployment: Deployment, accounts: Sequence[Account], endpoint: str, floor_endpoint: str
) -> AsyncIterator[Watchers]:
    """A worker that reports, and clients with a connection for each tenant, to the floor as well."""
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(_running_source(deployment))
        clients, channels, floor_channels = [], [], []
        for account in accounts:
            clients.append(await stack.enter_async_context(AsyncClient(endpoint, api_key=account.api_key)))
            channels.append(await stack.enter_async_context(grpc.aio.insecure_channel(endpoint)))
            floor_channels.append(await stack.enter_async_context(grpc.aio.insecure_channel(floor_endpoint)))
        yield Watchers(source, accounts, clients, channels, floor_channels)


@asynccontextmanager
async def _running_source(deployment: Deployment) -> AsyncIterator[asyncio.subprocess.Process]:
    source = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.event_source"),
        env=deployment.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=LONGEST_LINE,
    )
    try:
        yield source
    finally:
        if source.returncode is None:
            source.terminate()
        await source.wait()


async def _new_jobs(client: AsyncClient, count: int) -> Sequence[str]:
    jobs: list[str] = []
    while len(jobs) < count:
        batch = [
            NewMemory(f"user-{number % 50}", f"Note {number}: the ferry leaves at nine.")
            for number in range(len(jobs), min(count, len(jobs) + _BATCH))
        ]
        for handle in await client.memories.create_batch(batch, timeout=60):
            if isinstance(handle, Exception):
                raise handle
            jobs.append(handle.job.id)
    return jobs


def _all_snapshots_told(message: bytes) -> bool:
    return jobs_service_pb2.WatchJobsResponse.FromString(message).WhichOneof("event") == "heartbeat"


async def _settle(streams: Sequence[_Stream], published: int) -> None:
    """Waits until as many messages as events have come, or none for a while."""
    came, last = 0, time.monotonic()
    while came < published and time.monotonic() - last < _PATIENCE:
        await asyncio.sleep(0.05)
        now = sum(len(stream.arrived) - stream.told_at_first for stream in streams)
        if now > came:
            came, last = now, time.monotonic()


def _round_of(way: Way, streams: Sequence[_Stream], published: Mapping[Key, int]) -> Round:
    arrived: dict[Key, int] = {}
    ended: set[str] = set()
    sizes: list[int] = []
    last = dict(sorted(published))
    for stream in streams:
        for moment, message in stream.arrived[stream.told_at_first :]:
            key = _floor_key(stream.name, message) if way is Way.FLOOR else _key(message)
            if key is not None and key in published:
                arrived.setdefault(key, moment)
                sizes.append(len(message))
                if key[1] == last[key[0]]:
                    ended.add(key[0])
    return Round(
        len(published),
        len(streams),
        len(ended),
        [(moment - published[key]) / 1e6 for key, moment in arrived.items()],
        sum(sizes) / max(1, len(sizes)),
    )


def _floor_key(name: str, message: bytes) -> Key:
    return name, int.from_bytes(message[:SEQUENCE_BYTES], "big")


def _key(message: bytes) -> Key | None:
    # Both calls answer alike: an update has the same fields with the same numbers in each.
    response = jobs_service_pb2.WatchJobResponse.FromString(message)
    return (response.update.job_id, response.sequence) if response.WhichOneof("event") == "update" else None
