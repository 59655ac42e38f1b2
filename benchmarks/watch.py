"""From a worker's publishing of an event to the client that watches its job, against the same hop without us.

The floor is `XADD`, `XREAD BLOCK` in a bare grpc.aio server, and a message of the same size on a bare stream; the jobs,
their writes to PostgreSQL, the number of streams and of connections, and the bursts in which a worker that begins many
jobs at once sends are the same. Then many watches are held open on one server process while jobs go on: what they cost
it in connections to Redis and in memory, and whether each is told of its job's end.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import psutil
from redis.asyncio import Redis

from benchmarks.deployment import Account, Deployment, add_account, open_deployment, running, running_server
from benchmarks.report import Result, percentile, publish, table
from benchmarks.watching import Load, Round, Way, open_watchers
from memoro_core.embedded.ports import free_port

TARGET: Final = 2.0
MAX_CONNECTIONS: Final = 2
TENANTS: Final = 4


@dataclass(slots=True)
class Footprint:
    """What one server process holds while its watches are open."""

    watching_connections: int = 0
    connections: int = 0
    watch_kib: float = 0.0


async def main(rounds: int = 7, streams: int = 100, watches: int = 2000) -> Result:
    """Interleaves the ways, all events of a way together; then the many watches on a server of their own."""
    async with open_deployment() as deployment, running("benchmarks.keep_awake"):
        accounts = [await add_account(deployment, f"watch-{number}") for number in range(TENANTS)]
        by_way = await _latencies(deployment, accounts, rounds, Load(streams, 10, 0.5, streams))
        crowd, footprint = await _crowd(deployment, accounts, Load(watches, 2, 0.5, 100))

    rows = [_row(way, many) for way, many in by_way.items()]
    print(table("Worker to client", _HEADER, [*rows, _row(f"{Way.WATCH_JOB}, {watches} open", [crowd])]))
    print(
        table(
            f"{watches} watches on one server process",
            ("told of the end", "connections to Redis that watch", "all its connections to Redis", "KiB per watch"),
            [
                (
                    f"{crowd.ended}",
                    f"{footprint.watching_connections}",
                    f"{footprint.connections}",
                    f"{footprint.watch_kib:.1f}",
                )
            ],
        )
    )
    value, floor = (
        percentile([time for one in by_way[way] for time in one.milliseconds], 99) for way in (Way.WATCH_JOB, Way.FLOOR)
    )
    passed = (
        value / floor <= TARGET
        and all(one.complete for one in (*by_way[Way.WATCH_JOB], crowd))
        and footprint.watching_connections <= MAX_CONNECTIONS
    )
    return Result("watch", value, floor, value / floor, TARGET, passed)


_HEADER: Final = ("", "streams", "events", "arrived", "p50 ms", "p99 ms", "longest ms")


def _row(name: str, rounds: Sequence[Round]) -> tuple[str, ...]:
    times = [time for one in rounds for time in one.milliseconds]
    return (
        name,
        f"{rounds[0].streams}",
        f"{sum(one.published for one in rounds)}",
        f"{len(times)}",
        *(f"{percentile(times, rank):.2f}" for rank in (50, 99)),
        f"{max(times):.2f}",
    )


async def _latencies(
    deployment: Deployment, accounts: Sequence[Account], rounds: int, load: Load
) -> dict[Way, list[Round]]:
    floor_port = free_port()
    floor_endpoint = f"127.0.0.1:{floor_port}"
    async with (
        running("benchmarks.event_floor", str(floor_port), deployment.stack.redis_url),
        running_server(deployment) as (_, endpoint),
        open_watchers(deployment, accounts, endpoint, floor_endpoint) as watchers,
    ):
        ways = [Way.FLOOR, Way.WATCH_JOB]
        if await watchers.serves(Way.WATCH_JOBS):
            ways.append(Way.WATCH_JOBS)
        watchers.message_bytes = round((await watchers.round(Way.WATCH_JOB, load)).message_bytes)
        await watchers.round(Way.FLOOR, load)
        measured: dict[Way, list[Round]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                measured[way].append(await watchers.round(way, load))
    return measured


async def _crowd(deployment: Deployment, accounts: Sequence[Account], load: Load) -> tuple[Round, Footprint]:
    async with (
        running_server(deployment) as (server, endpoint),
        open_watchers(deployment, accounts, endpoint, endpoint) as watchers,
        Redis.from_url(deployment.stack.redis_url, protocol=2) as redis,
    ):
        # What the first calls load is no watch's.
        await watchers.round(Way.WATCH_JOB, Load(len(accounts), 1, 0.1, len(accounts)))
        footprint, before = Footprint(), server.memory_info().rss
        crowd = await watchers.round(
            Way.WATCH_JOB,
            load,
            while_open=partial(
                _look, server=server, redis=redis, footprint=footprint, watches=load.jobs, before=before
            ),
        )
    return crowd, footprint


async def _look(
    jobs: asyncio.Task[Any], *, server: psutil.Process, redis: Redis, footprint: Footprint, watches: int, before: int
) -> None:
    """Looks at the server again and again until the jobs have ended; the most that it held."""
    footprint.watch_kib = (server.memory_info().rss - before) / 1024 / watches
    redis_port = redis.connection_pool.connection_kwargs["port"]
    while not jobs.done():
        ports = {
            connection.laddr.port
            for connection in server.net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port == redis_port
        }
        listed = [one for one in await redis.client_list() if int(one["addr"].rpartition(":")[2]) in ports]
        footprint.connections = max(footprint.connections, len(listed))
        footprint.watching_connections = max(footprint.watching_connections, sum(map(_watches, listed)))
        await asyncio.wait({jobs}, timeout=0.5)


def _watches(connection: dict[str, str]) -> bool:
    """Whether a connection of CLIENT LIST subscribes, or reads or waits at a stream."""
    subscribes = any(int(connection.get(kind, 0)) for kind in ("sub", "psub", "ssub"))
    return subscribes or "b" in connection["flags"] or connection["cmd"].startswith(("xread", "subscribe"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--watches", type=int, default=2000)
    options = parser.parse_args()
    publish(asyncio.run(main(options.rounds, options.streams, options.watches)))
