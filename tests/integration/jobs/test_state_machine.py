"""Jobs in PostgreSQL against a model in plain Python: whatever happens in whichever order, the two agree."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
from collections import Counter
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, note
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from memoro_core.ids import JobId, UserId
from memoro_core.postgres.database import open_database
from memoro_core.settings import Settings
from tests.support.job_checks import check_moves
from tests.support.job_machine import (
    DONE,
    SECOND,
    USER_CAP,
    JobsMachine,
    all_of,
    begun,
    delays,
    endings,
    numbers,
    queued,
    users,
)
from tests.support.job_world import Told

SEARCH = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))
"""How many histories to try in a search for what is rare; one that fails is then cut down to what matters."""
LATEST = datetime(2020, 1, 1, tzinfo=UTC)


class RacingJobsMachine(JobsMachine):
    """A history in which now and then some things happen at the same time."""

    @rule(
        number=numbers,
        steps=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), endings, delays), min_size=2, max_size=6),
    )
    def at_once(self, number: int, steps: Sequence[tuple[int, int, str, timedelta]]) -> None:
        """To the same few jobs."""
        self.race([self.any_of(what, number + near, ending, delay) for what, near, ending, delay in steps])

    @rule(user_id=users, workers=st.integers(2, 4))
    def claim_at_once(self, user_id: UserId, workers: int) -> None:
        """Different jobs, so that nothing but the caps stands between the workers."""
        self.accept_many(user_id, USER_CAP + 2)
        self.pause(False)
        job_ids = list(self.model.jobs)
        self.race([self.claimed_by(f"worker-{first}", job_ids[first::workers]) for first in range(workers)])

    def race(self, work: Sequence[Coroutine[Any, Any, Told]]) -> None:
        """In no known order: the database says what came of it, and the model goes on from there."""
        before = copy.deepcopy(self.model.jobs)
        answers = self.run(all_of(work))
        self.model.jobs, self.model.memories = self.run(self.world.read())
        check_moves(before, self.model.jobs)
        news = [
            (job_id, one)
            for job_id, job in self.model.jobs.items()
            for one in job.events[before[job_id].last_seq if job_id in before else 0 :]
        ]
        note(f"{len(news)} events")
        assert Counter(one for told in answers for one in told) == Counter(news), "each is told once, by its cause"

    async def claimed_by(self, worker_id: str, job_ids: Sequence[JobId]) -> Told:
        return [begun(claim) for claim in await self.world.claim(job_ids, worker_id, 5 * SECOND)]

    async def any_of(self, what: int, number: int, ending: str, delay: timedelta) -> Told:
        world, job_ids, claim = self.world, self.jobs(range(number, number + 4)), self.claim_of(number)
        match what:
            case 0 | 1:
                return await self.claimed_by(f"worker-{number}", job_ids)
            case 2 if claim:
                return await world.finish(claim, self.finish_of(claim, ending, delay))
            case 3 if claim:
                answer = await world.report(claim, DONE, DONE[number % len(DONE)])
                return [(claim.ref.job_id, answer[0])] if answer else []
            case 4 if claim:
                return await world.give_back([claim])
            case 5:
                return await world.cancel(job_ids[0])
            case 6:
                return await world.reap(await world.expired(), retry_at=self.now + delay)
            case 7:
                return await world.defer(job_ids, self.now + delay)
            case 8:
                return [*await world.let_go(due_only=False), *await world.hasten()]
            case 9:
                made = [await world.retry(job_id) for job_id in job_ids]
                return [(job.id, queued(job.created_at)) for job in made if job]
            case _:
                job = await world.accept(UserId("alice"), 0)
                return [(job.id, queued(job.created_at))]


@pytest.mark.slow
@pytest.mark.timeout(0 if SEARCH else 120)
@pytest.mark.parametrize(("machine", "examples"), [(JobsMachine, 25), (RacingJobsMachine, 15)])
def test_jobs_keep_to_their_state_machine(settings: Settings, machine: type[JobsMachine], examples: int) -> None:
    """Each history lies earlier than those before it, so that what looks at all tenants finds only its own jobs."""
    starts = (LATEST - timedelta(days=number) for number in itertools.count())
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as loop:
        opened = open_database(settings)
        database = loop.run(opened.__aenter__())

        try:
            run_state_machine_as_test(
                cast(type[JobsMachine], lambda: machine(loop, database, next(starts))),
                settings=profile(
                    max_examples=SEARCH or examples,
                    # Shortening a failed history takes minutes, and needs luck with what happens at once.
                    phases=set(Phase) if SEARCH else set(Phase) - {Phase.shrink, Phase.explain},
                    stateful_step_count=60,
                    deadline=None,
                    print_blob=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            loop.run(opened.__aexit__(None, None, None))
