"""What a call costs the process that serves it, by turns for several kinds of calls: small differences show.

A turn lasts about a second, so that those that follow each other meet the same weather; one that is under way for a
while is measured, so that what a first call costs is left out. `take_turns` starts this module as the process that
generates the load.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Final

import grpc.aio
import uvloop

from benchmarks.grpc_load import request

_CONCURRENCY: Final = 64
_WARM_UP: Final = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of calls: who is called, the method, the process that answers, and who calls."""

    endpoint: str
    method: str
    pid: int
    key: str = field(default="", repr=False)


async def take_turns(targets: Mapping[str, Target], *, turns: int, seconds: float) -> Mapping[str, Sequence[float]]:
    """Microseconds of processor time a call, of each turn of each target; their order turns round each time."""
    plan = {name: asdict(target) for name, target in targets.items()}
    generator = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.turns", str(turns), str(seconds)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    output, _ = await generator.communicate(json.dumps(plan).encode())
    costs: dict[str, list[float]] = json.loads(output)
    return costs


def middle(costs: Sequence[float]) -> float:
    """The mean of the middle half: of what the machine does besides, little is left in it."""
    quarter = len(costs) // 4
    return fmean(sorted(costs)[quarter : len(costs) - quarter])


class _Load:
    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._metadata = (("authorization", f"Bearer {target.key}"),)
        self._prefix = os.urandom(6).hex()
        self._number = 0
        self._done = 0

    async def turn(self) -> float:
        """Microseconds of the process' time a call."""
        async with grpc.aio.insecure_channel(self._target.endpoint) as channel:
            await channel.channel_ready()
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self._target.method)
            end = time.perf_counter() + _WARM_UP + self._seconds
            callers = [asyncio.create_task(self._call(call, end)) for _ in range(_CONCURRENCY)]
            await asyncio.sleep(_WARM_UP)
            spent, done = _spent(self._target.pid), self._done
            await asyncio.gather(*callers)
            return (_spent(self._target.pid) - spent) / (self._done - done) / 1000

    async def _call(self, call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], end: float) -> None:
        while time.perf_counter() < end:
            self._number += 1
            await call(request(self._prefix, self._number), metadata=self._metadata, timeout=10)
            self._done += 1


def _spent(pid: int) -> int:
    """Nanoseconds that the threads of a process have run for; the times of psutil come in hundredths of a second."""
    return sum(int(task.read_text("ascii").split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))


async def _main(targets: Mapping[str, Target], turns: int, seconds: float) -> None:
    loads = {name: _Load(target, seconds) for name, target in targets.items()}
    for load in loads.values():
        await load.turn()
    costs: dict[str, list[float]] = {name: [] for name in loads}
    for number in range(turns):
        for name in list(loads)[:: 1 if number % 2 else -1]:
            costs[name].append(await loads[name].turn())
    print(json.dumps(costs))


if __name__ == "__main__":
    plan = {name: Target(**target) for name, target in json.load(sys.stdin).items()}
    uvloop.run(_main(plan, int(sys.argv[1]), float(sys.argv[2])))
