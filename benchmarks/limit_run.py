"""Several server processes decide about one hot tenant, while its policy changes and Redis is restarted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from benchmarks.limit_log import Entry, Found, Reign, check
from memoro_core.embedded.stack import Stack
from memoro_core.limits.bucket import LEASE, SECOND
from memoro_core.limits.model import Rate

_POLICIES: Final = (Rate(480_000, 4_000), Rate(960_000, 12_000), Rate(360_000, 2_000))
_DOWN: Final = 0.5
"""Seconds for which Redis stays away: longer than any lease."""
_AFTER: Final = SECOND // 2
"""How long after an outage a process may still decide alone or bring what it admitted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: decisions by what made them, calls that failed, weight admitted, and the worst windows.

    `alone`: parts of a second with decisions that were made without Redis, the restart apart.
    """

    calls: int
    decided: Counter[str]
    failures: int
    admitted: int
    seconds: float
    alone: float
    found: Found


async def run(stack: Stack, *, calls: int, processes: int, pause: float) -> Outcome:
    """So many calls in all; the policy changes after a quarter and after three, Redis is killed after the half."""
    with tempfile.TemporaryDirectory(prefix="memoro-limits-") as folder:
        logs = [Path(folder) / str(number) for number in range(processes)]
        tenant = str(uuid4())
        callers = [await _caller(stack, tenant, calls // processes, processes, pause, log) for log in logs]
        for caller in callers:
            assert caller.stdout is not None
            while await caller.stdout.readline() != b"ready\n":
                pass
        started = time.monotonic()
        lasts = calls / processes / 8 * max(pause, 0.0004)
        outage = (0, 0)
        for number, policy in enumerate(_POLICIES):
            for caller in callers:
                assert caller.stdin is not None
                line = json.dumps({"per_minute": policy.per_minute, "burst": policy.burst})
                caller.stdin.write(line.encode() + b"\n")
            await asyncio.sleep(max(0.5, lasts / 4))
            if number == 1:
                outage = await _restart(stack)
                await asyncio.sleep(max(0.5, lasts / 4))
        answers = [await caller.communicate() for caller in callers]
        seconds = time.monotonic() - started
        reports = [json.loads(output.splitlines()[-1]) for output, _ in answers]
        entries = sorted((entry for log in logs for entry in _entries(log)), key=lambda entry: entry.at)
    alone = [entry.at for entry in entries if entry.alone]
    outages = [outage, *((at, at + _AFTER) for at in alone)]
    elsewhere = len({at // (SECOND // 10) for at in alone if not outage[0] <= at <= outage[1]}) / 10
    decided = Counter({kind: sum(report[kind] for report in reports) for kind in ("leased", "shared", "local")})
    return Outcome(
        calls // processes * processes,
        decided,
        sum(report["failures"] for report in reports),
        sum(entry.weight for entry in entries),
        seconds,
        elsewhere,
        check(entries, _reigns([report["followed"] for report in reports]), outages),
    )


async def _caller(stack: Stack, tenant: str, calls: int, servers: int, pause: float, log: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.limit_caller", tenant, str(calls), str(servers), str(pause), str(log)),
        env={**os.environ, "MEMORO_DATABASE_URL": stack.database_url, "MEMORO_REDIS_URL": stack.redis_url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def _restart(stack: Stack) -> tuple[int, int]:
    """From when to when Redis was away."""
    gone = time.time_ns() // 1000
    assert stack.redis.pid is not None
    os.kill(stack.redis.pid, signal.SIGKILL)
    await stack.redis.wait()
    await asyncio.sleep(_DOWN)
    await stack.redis.start()
    return gone, time.time_ns() // 1000 + _AFTER


def _entries(log: Path) -> Sequence[Entry]:
    lines = (line.split() for line in log.read_text("utf-8").splitlines())
    return [Entry(int(at), int(weight), alone == "1") for at, weight, alone in lines]


def _reigns(followed: Sequence[Sequence[int]]) -> Sequence[Reign]:
    """From when the first process followed a policy until what the last one leased under it was forgotten."""
    reigns = []
    for number, policy in enumerate(_POLICIES):
        since = 0 if number == 0 else min(times[number] for times in followed)
        until = 1 << 62 if number + 1 == len(_POLICIES) else max(times[number + 1] for times in followed) + 2 * LEASE
        reigns.append(Reign(policy, since, until))
    return reigns
