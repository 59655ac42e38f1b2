"""Why a job can't be done again."""

from __future__ import annotations

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import JobId
from memoro_core.jobs.model import JobState

RETRYABLE: frozenset[JobState] = frozenset({JobState.FAILED, JobState.CANCELLED})
"""States of jobs whose work can be done again."""


def not_ended_badly(job_id: JobId, state: JobState) -> MemoroError:
    """FAILED_PRECONDITION / JOB_NOT_RETRYABLE: it has not ended, or it succeeded."""
    how = "succeeded" if state is JobState.SUCCEEDED else f"has not ended: it is {state}"
    return _not_retryable(f"job {job_id} {how}", state)


def retried_before(job_id: JobId, state: JobState, retried_by: JobId) -> MemoroError:
    """FAILED_PRECONDITION / JOB_NOT_RETRYABLE: another job does its work again."""
    return _not_retryable(f"job {job_id} was retried before, as job {retried_by}", state, retried_by=str(retried_by))


def nothing_left(job_id: JobId, state: JobState) -> MemoroError:
    """FAILED_PRECONDITION / JOB_NOT_RETRYABLE: its memories are gone, ready, or another job's."""
    return _not_retryable(f"nothing of the work of job {job_id} is left to do", state)


def _not_retryable(message: str, state: JobState, **metadata: str) -> MemoroError:
    return MemoroError(
        Code.FAILED_PRECONDITION, Reason.JOB_NOT_RETRYABLE, message, metadata={"state": state, **metadata}
    )
