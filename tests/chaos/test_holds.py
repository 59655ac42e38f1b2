"""Processes that race for the credits of one account are killed, and begun again, in the middle of it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from memoro_core.billing.model import Cause, Grant
from memoro_core.ids import GrantId, TenantId, new_id
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.settings import Settings
from tests.chaos.conftest import SEED
from tests.support.domain import open_domain
from tests.support.processes import Processes, open_processes
from tests.support.run_racing_holds import bound_of, job_of

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(180)]

RESERVATIONS = 100_000
PROCESSES = 4
SHARED = 2_500
"""How many jobs of the process beside it each asks for too."""
KILLS = 8
HELD = "SELECT job_id, amount FROM credit_holds WHERE tenant_id = $1"


async def test_what_fits_is_admitted_to_the_micro_credit(
    settings: Settings, owner_database_url: str, tmp_path: Path
) -> None:
    """Many reservations of different sizes on an account that has enough for half of them."""
    print(f"MEMORO_CHAOS_SEED={SEED}")  # shown with what fails
    lots = random.Random(SEED)
    bounds = {number: bound_of(number) for number in range(RESERVATIONS)}
    credits = sum(bounds.values()) // 2
    now = datetime.now(UTC)
    async with open_domain(settings) as domain:
        store = PostgresCreditStore(domain.database)
        grant = Grant(GrantId(new_id()), credits, credits, 0, None, "", now)
        await store.add_credits(domain.tenant, grant, Cause(), None, now=now)
        async with open_processes((), settings, tmp_path / "log") as processes:
            racers = Racers(processes, domain.tenant, tmp_path)
            await racers.start()
            await racers.kill(lots, KILLS)
            await racers.ended()
        account = (await store.balance(domain.tenant)).account
        verification = await store.verify(domain.tenant, within=60)
    owner = await asyncpg.connect(owner_database_url)
    held = {row["job_id"]: row["amount"] for row in await owner.fetch(HELD, domain.tenant)}
    await owner.close()

    admitted = {number for number in bounds if job_of(number) in held}
    assert {job_of(number): bounds[number] for number in admitted} == held, "each for its own bound"
    assert account.held == sum(held.values())
    assert account.available == credits - account.held >= 0
    turned_away = bounds.keys() - admitted
    assert all(bounds[number] > account.available for number in turned_away), "nothing that fits was turned away"
    assert len(turned_away) > RESERVATIONS // 4, "there was too little for all"
    told = racers.verdicts()
    assert {number for number in told if told[number] == {"held"}} == admitted
    assert {number for number in told if told[number] == {"refused"}} == turned_away
    assert verification.valid, verification
    assert verification.entries == len(admitted) + 1


class Racers:
    """The processes, each with its jobs and the file in which it notes what it was told."""

    def __init__(self, processes: Processes, tenant_id: TenantId, folder: Path) -> None:
        self._processes = processes
        each = RESERVATIONS // PROCESSES
        self._commands: Mapping[Path, tuple[str, ...]] = {
            (file := folder / f"verdicts-{number}"): (
                *("-m", "tests.support.run_racing_holds", str(tenant_id)),
                *(str(max(0, each * number - SHARED)), str(each * (number + 1)), str(number), str(file)),
            )
            for number in range(PROCESSES)
        }
        self._running: dict[Path, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        for file, command in self._commands.items():
            self._running[file] = await self._processes.start(*command)

    async def kill(self, lots: random.Random, times: int) -> None:
        """Kills one or another that has got on since it was begun, and begins it again."""
        for _ in range(times):
            file = lots.choice(list(self._running))
            victim, before = self._running[file], _size(file)
            async with asyncio.timeout(60):
                while _size(file) == before and victim.returncode is None:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(lots.uniform(0, 0.05))
            await self._processes.end(victim, signal.SIGKILL)
            self._running[file] = await self._processes.start(*self._commands[file])

    async def ended(self) -> None:
        async with asyncio.timeout(100):
            codes = [await process.wait() for process in self._running.values()]
        assert codes == [0] * PROCESSES

    def verdicts(self) -> Mapping[int, set[str]]:
        told: defaultdict[int, set[str]] = defaultdict(set)
        for file in self._commands:
            for line in file.read_text().splitlines():
                number, verdict = line.split()
                told[int(number)].add(verdict)
        return told


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
