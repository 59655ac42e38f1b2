"""The state machine of jobs: which moves there are, and how a run that did not succeed ends. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from memoro_core.errors import Reason
from memoro_core.jobs.model import Finish, Job, JobError, JobState, JobUsage, StageProgress, StageStatus

TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.DEFERRED, JobState.CANCELLED}),
        JobState.DEFERRED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
        JobState.RUNNING: frozenset(
            {JobState.QUEUED, JobState.DEFERRED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
        ),
        JobState.SUCCEEDED: frozenset(),
        JobState.FAILED: frozenset(),
        JobState.CANCELLED: frozenset(),
    }
)
"""Where a job may go from each state. Progress within RUNNING, and another time within QUEUED, are no moves."""

WORKER_LOST: Final = JobError(Reason.WORKER_LOST, "the worker that ran the job was lost", retryable=True)
HUNG: Final = JobError(Reason.JOB_TIMED_OUT, "the attempt took too long, and its worker did not end it", retryable=True)


def can_move(old: JobState, new: JobState) -> bool:
    """Whether the one state may follow the other."""
    return new in TRANSITIONS[old]


def failed(
    job: Job, error: JobError, *, stages: Sequence[StageProgress], usage: JobUsage, retry_at: datetime
) -> Finish:
    """The end of a run that failed: another attempt at `retry_at` if the error allows it and the job has one left."""
    stages = tuple(
        dataclasses.replace(stage, status=StageStatus.FAILED) if stage.status is StageStatus.RUNNING else stage
        for stage in stages
    )
    if error.retryable and job.attempt < job.max_attempts:
        return Finish(JobState.QUEUED, stages, usage, error=error, run_at=retry_at)
    return Finish(JobState.FAILED, stages, usage, error=error)


def cancelled(*, stages: Sequence[StageProgress], usage: JobUsage) -> Finish:
    """The end of a run that a caller cancelled."""
    return Finish(JobState.CANCELLED, stages, usage)


def lost(job: Job, *, timed_out: bool, retry_at: datetime) -> Finish:
    """The end of a run that nobody sees through any more: cancelled if that was asked for, else failed.

    `timed_out`: it took longer than it may, and its worker did not end it.
    """
    if job.cancel_requested:
        return cancelled(stages=job.stages, usage=job.usage)
    error = HUNG if timed_out else WORKER_LOST
    return failed(job, error, stages=job.stages, usage=job.usage, retry_at=retry_at)


def check_finish(finish: Finish) -> None:
    """Raises ValueError for an end of a run that makes no sense."""
    if not can_move(JobState.RUNNING, finish.state):
        raise ValueError(f"a run can't end {finish.state}")
    if (finish.run_at is not None) != (finish.state in {JobState.QUEUED, JobState.DEFERRED}):
        raise ValueError("a job has a time for its next attempt when it is QUEUED again or DEFERRED, and only then")
    if (finish.deferral_reason is not None) != (finish.state is JobState.DEFERRED):
        raise ValueError("a job has a reason to wait when it is DEFERRED, and only then")
    if (finish.result is not None) != (finish.state is JobState.SUCCEEDED):
        raise ValueError("a job has a result when it SUCCEEDED, and only then")
    if (finish.error is not None) != (finish.state in {JobState.QUEUED, JobState.FAILED}):
        raise ValueError("a job has an error when it FAILED or is tried again, and only then")
    if finish.partial and finish.state is not JobState.SUCCEEDED:
        raise ValueError("only a job that SUCCEEDED can be partial")
