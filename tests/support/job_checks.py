"""What is true of all jobs at any time, whatever happened to them and in whichever order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping

from memoro_core.ids import JobId
from memoro_core.jobs.model import JobState
from memoro_core.memory.model import MemoryStatus
from tests.support.job_model import CLOCK_SKEW, JobRecord, Memories, allowed

UNDONE = {JobState.FAILED, JobState.CANCELLED}


def check_job(job: JobRecord) -> None:
    """A job and its events agree, and it has come here by allowed moves."""
    events, state = job.events, job.state
    assert [event.seq for event in events] == list(range(1, job.last_seq + 1))
    assert (events[-1].state, events[-1].attempt) == (state, job.attempt)
    assert all(allowed(before.state, after.state) for before, after in itertools.pairwise(events))
    assert sum(event.state.terminal for event in events) == state.terminal

    begun = [event for event in events if event.state is JobState.RUNNING and event.stage is None]
    assert job.lease == len(begun)
    assert 0 <= job.attempt <= job.max_attempts
    assert all(event.attempt <= job.max_attempts for event in events)

    assert (job.ended_at is not None) == state.terminal
    assert job.ended_at is None or job.ended_at == events[-1].at
    assert (job.lease_expires_at is not None) == (state is JobState.RUNNING)
    if job.lease_expires_at is not None:
        assert job.run_deadline is not None
        assert job.started_at is not None
        assert job.lease_expires_at <= job.run_deadline
        assert job.started_at + CLOCK_SKEW >= job.run_at, "begun before its time"

    assert not job.cancel_requested or state.terminal or state is JobState.RUNNING, "it waits, and can never begin"
    assert (job.result is not None) == (state is JobState.SUCCEEDED)
    assert not job.partial or state is JobState.SUCCEEDED
    assert state is not JobState.FAILED or job.error is not None
    assert state not in {JobState.SUCCEEDED, JobState.CANCELLED} or job.error is None


def check_jobs(jobs: Mapping[JobId, JobRecord], memories: Memories, *, tenant_cap: int, user_cap: int) -> None:
    """A tenant's jobs each for itself, within their caps, retried at most once, and with no memory left in between."""
    for job in jobs.values():
        check_job(job)
    running = Counter(job.user_id for job in jobs.values() if job.state is JobState.RUNNING)
    assert running.total() <= tenant_cap
    assert all(count <= user_cap for count in running.values())
    retried = Counter(job.retry_of for job in jobs.values() if job.retry_of is not None)
    assert all(count == 1 and jobs[job_id].state in UNDONE for job_id, count in retried.items())
    for memory_id, (status, job_id) in memories.items():
        job = jobs[job_id]
        assert memory_id in job.memory_ids
        assert status is (MemoryStatus.FAILED if job.state in UNDONE else MemoryStatus.PENDING)


def check_moves(before: Mapping[JobId, JobRecord], after: Mapping[JobId, JobRecord]) -> None:
    """Nothing that was told is untold, no lease comes back, and what has ended stays as it is."""
    assert before.keys() <= after.keys()
    for job_id, old in before.items():
        new = after[job_id]
        assert new.events[: old.last_seq] == old.events
        assert new.lease >= old.lease
        assert not old.state.terminal or new == old
