"""Redis is away: jobs are run all the same, a little later."""

from __future__ import annotations

from pathlib import Path

from memoro_core.jobs.model import JobState
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.jobs import events_of, job_of, new_job, until
from tests.support.processes import WORKER, open_processes


async def test_jobs_are_run_while_redis_is_away(settings: Settings, domain: Domain, tmp_path: Path) -> None:
    away = settings.model_copy(
        update={"redis_url": "redis://127.0.0.1:1/0", "hint_timeout": 0.5, "extraction_provider": "none"}
    )
    refs = [await new_job(domain) for _ in range(20)]

    async def all_ended() -> bool:
        return all([(await job_of(domain, ref)).state is JobState.SUCCEEDED for ref in refs])

    async with open_processes(WORKER, away, tmp_path / "workers.log") as workers:
        for _ in range(2):
            await workers.start()
        await until(all_ended, seconds=40)
    for ref in refs:
        assert (await job_of(domain, ref)).attempt == 1
        await events_of(domain, ref)
