"""The worker that leads does recurring work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from memoro_core.settings import Settings
from tests.support.jobs import until
from tests.support.processes import lines_of, running


async def test_a_worker_makes_up_for_the_sweep_that_was_missed(
    settings: Settings, owner_database_url: str, tmp_path: Path
) -> None:
    log, began = tmp_path / "worker", datetime.now(UTC)
    owner = await asyncpg.connect(owner_database_url)
    try:
        await owner.execute("DELETE FROM schedule_fires WHERE schedule = 'retention'")
        await owner.execute(
            "INSERT INTO schedule_fires (schedule, fire_at, started_at, ended_at) VALUES ('retention', $1, $1, $1)",
            began - timedelta(days=1),
        )
        async with running("memoro_worker", settings, log, MEMORO_WORKER_OPS_PORT="0"):

            async def ended() -> bool:
                return bool(lines_of(log, event="schedule_fired", schedule="retention"))

            await until(ended)
        rows = await owner.fetch(
            "SELECT fire_at, ended_at FROM schedule_fires WHERE schedule = 'retention' ORDER BY fire_at"
        )
    finally:
        await owner.close()
    fired = rows[1:]
    assert len(fired) == 1
    assert fired[0]["ended_at"] >= began
    assert began - timedelta(minutes=10) <= fired[0]["fire_at"] <= datetime.now(UTC)
