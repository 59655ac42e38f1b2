"""A load generator in a process of its own, for two methods in turns: what a call of each turn cost, in JSON.

A turn lasts a part of a second, so that two that follow each other meet the same weather on the machine. It is measured
once it is under way: what a tenant costs that has not called for a while is another question.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

import grpc.aio
import uvloop

from benchmarks.limits_server import BARE, COST, LIMITED

_CONCURRENCY: Final = 64
_WARM_UP: Final = 0.1
_REQUEST: Final = bytes(150)
"""As long as a short text with its ids."""


async def _load(endpoint: str, turns: int, seconds: float) -> None:
    async with grpc.aio.insecure_channel(endpoint) as channel:
        await channel.channel_ready()
        calls = {method: channel.unary_unary(method) for method in (BARE, COST, LIMITED)}

        async def spent() -> int:
            return int(await calls[COST](b""))

        async def turn(method: str) -> float:
            """Microseconds of the server's processor time a call."""
            done, end = 0, time.perf_counter() + _WARM_UP + seconds

            async def caller() -> None:
                nonlocal done
                while time.perf_counter() < end:
                    await calls[method](_REQUEST)
                    done += 1

            callers = [asyncio.create_task(caller()) for _ in range(_CONCURRENCY)]
            await asyncio.sleep(_WARM_UP)
            before, done_before = await spent(), done
            await asyncio.gather(*callers)
            return (await spent() - before) / (done - done_before) / 1000

        for method in (BARE, LIMITED):
            await turn(method)
        costs: dict[str, list[float]] = {BARE: [], LIMITED: []}
        for number in range(turns):
            for method in sorted(costs, reverse=bool(number % 2)):
                costs[method].append(await turn(method))
    print(json.dumps(costs))


if __name__ == "__main__":
    uvloop.run(_load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
