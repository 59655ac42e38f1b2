"""A process that asks for holds, batch after batch, and writes down each verdict once it is committed.

Begun again, it asks for what it has no verdict of, and again for some of what it has.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from memoro_core.billing.calendar import Calendar
from memoro_core.billing.model import Held, HoldRequest
from memoro_core.ids import JobId, TenantId, UserId
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Database, open_database
from memoro_core.settings import Settings

AGAIN: Final = 1_000
LARGEST_BATCH: Final = 400
LARGEST_BOUND: Final = 20_000
PARALLEL: Final = 3


def bound_of(number: int) -> int:
    """What a job asks for: the same in every process."""
    return random.Random(number).randint(1, LARGEST_BOUND)


def job_of(number: int) -> JobId:
    """The same in every process."""
    return JobId(UUID(int=number + 1))


async def race(database: Database, tenant_id: TenantId, numbers: Sequence[int], verdicts: Path) -> None:
    """Asks for all of these, in this order, some batches at a time."""
    told = {int(line.split()[0]) for line in verdicts.read_text().splitlines()} if verdicts.exists() else set()
    again = random.sample(sorted(told), min(AGAIN, len(told)))
    batches = iter(_batches([*again, *(number for number in numbers if number not in told)]))
    holds = CreditHolds(Calendar(UTC), margin_basis_points=0)
    # Without a buffer: what is written is written whole, or not at all.
    with verdicts.open("ab", buffering=0) as file:

        async def ask() -> None:
            for batch in batches:
                requests = [HoldRequest(job_of(number), UserId("alice"), bound_of(number)) for number in batch]
                async with database.tenant_tx(tenant_id) as connection:
                    answers = await holds.hold_in(connection, tenant_id, requests, now=datetime.now(UTC))
                lines = [
                    f"{number} {'held' if isinstance(answer, Held) else 'refused'}\n"
                    for number, answer in zip(batch, answers, strict=True)
                ]
                file.write("".join(lines).encode())

        await asyncio.gather(*(ask() for _ in range(PARALLEL)))


def _batches(numbers: Sequence[int]) -> Sequence[Sequence[int]]:
    batches, first = [], 0
    while first < len(numbers):
        size = random.randint(1, LARGEST_BATCH)
        batches.append(numbers[first : first + size])
        first += size
    return batches


async def main(tenant: str, first: str, last: str, seed: str, verdicts: str) -> None:
    numbers = list(range(int(first), int(last)))
    random.Random(seed).shuffle(numbers)
    async with open_database(Settings()) as database:
        await race(database, TenantId(UUID(tenant)), numbers, Path(verdicts))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
