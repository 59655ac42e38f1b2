"""The state machine: its moves, and how runs that did not succeed end."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.billing.model import DeferralReason
from memoro_core.ids import JobId, UserId
from memoro_core.jobs.model import (
    TERMINAL,
    Finish,
    Job,
    JobError,
    JobKind,
    JobResult,
    JobState,
    JobUsage,
    Priority,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_core.jobs.states import HUNG, TRANSITIONS, WORKER_LOST, can_move, cancelled, check_finish, failed, lost

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ERROR = JobError("PROVIDER_FAILED", "no", retryable=True)

errors = st.builds(JobError, st.sampled_from(["INTERNAL", "PROVIDER_FAILED"]), st.text(max_size=20), st.booleans())
stages = st.lists(
    st.builds(
        StageProgress, st.sampled_from(Stage), st.sampled_from(StageStatus), st.integers(0, 9), st.integers(0, 9)
    ),
    max_size=5,
    unique_by=lambda stage: stage.stage,
)


@st.composite
def running_jobs(draw: st.DrawFn) -> Job:
    limit = draw(st.integers(1, 20))
    return Job(
        id=JobId(uuid4()),
        kind=JobKind.MEMORY_ENRICH,
        state=JobState.RUNNING,
        priority=Priority.NORMAL,
        user_id=UserId("u"),
        memory_ids=(),
        stages=draw(stages),
        attempt=draw(st.integers(1, limit)),
        max_attempts=limit,
        run_at=NOW,
        sequence=2,
        created_at=NOW,
        cancel_requested=draw(st.booleans()),
    )


def test_every_state_has_its_moves_and_ended_jobs_have_none() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert {state for state, moves in TRANSITIONS.items() if not moves} == set(TERMINAL)
    assert all(state not in moves for state, moves in TRANSITIONS.items())


def test_every_state_can_be_reached_and_every_job_can_end() -> None:
    reached = {JobState.QUEUED}
    while grown := {new for old in reached for new in TRANSITIONS[old]} - reached:
        reached |= grown
    assert reached == set(JobState)
    for state in set(JobState) - TERMINAL:
        assert can_move(state, JobState.CANCELLED)
    assert not can_move(JobState.QUEUED, JobState.SUCCEEDED)


@given(running_jobs(), errors, stages)
def test_a_failed_run_is_tried_again_exactly_when_that_may_help(
    job: Job, error: JobError, reached: list[StageProgress]
) -> None:
    end = failed(job, error, stages=reached, usage=JobUsage(3, 4), retry_at=NOW + timedelta(seconds=2))
    check_finish(end)
    again = error.retryable and job.attempt < job.max_attempts
    assert end.state is (JobState.QUEUED if again else JobState.FAILED)
    assert end.run_at == (NOW + timedelta(seconds=2) if again else None)
    assert (end.error, end.usage) == (error, JobUsage(3, 4))
    assert [stage.stage for stage in end.stages] == [stage.stage for stage in reached]
    assert all(stage.status is not StageStatus.RUNNING for stage in end.stages)


@given(running_jobs(), st.booleans())
def test_a_lost_run_is_cancelled_if_asked_tried_again_if_it_may_be_and_else_failed(job: Job, timed_out: bool) -> None:
    end = lost(job, timed_out=timed_out, retry_at=NOW)
    error = HUNG if timed_out else WORKER_LOST
    check_finish(end)
    if job.cancel_requested:
        assert end.state is JobState.CANCELLED
    elif job.attempt < job.max_attempts:
        assert (end.state, end.run_at, end.error) == (JobState.QUEUED, NOW, error)
    else:
        assert (end.state, end.error) == (JobState.FAILED, error)


@pytest.mark.parametrize(
    "end",
    [
        Finish(JobState.RUNNING, (), JobUsage()),
        Finish(JobState.DEFERRED, (), JobUsage()),
        Finish(JobState.DEFERRED, (), JobUsage(), run_at=NOW),
        Finish(JobState.DEFERRED, (), JobUsage(), deferral_reason=DeferralReason.RELATIONS),
        Finish(JobState.QUEUED, (), JobUsage(), error=ERROR, run_at=NOW, deferral_reason=DeferralReason.RELATIONS),
        Finish(JobState.QUEUED, (), JobUsage(), error=ERROR),
        Finish(JobState.QUEUED, (), JobUsage(), run_at=NOW),
        Finish(JobState.FAILED, (), JobUsage()),
        Finish(JobState.FAILED, (), JobUsage(), error=ERROR, run_at=NOW),
        Finish(JobState.FAILED, (), JobUsage(), error=ERROR, partial=True),
        Finish(JobState.SUCCEEDED, (), JobUsage()),
        Finish(JobState.SUCCEEDED, (), JobUsage(), result=JobResult(), error=ERROR),
        Finish(JobState.CANCELLED, (), JobUsage(), result=JobResult()),
    ],
)
def test_an_end_that_contradicts_itself_is_refused(end: Finish) -> None:
    with pytest.raises(ValueError, match=r"job|run"):
        check_finish(end)


def test_ends_that_make_sense_pass() -> None:
    check_finish(Finish(JobState.SUCCEEDED, (), JobUsage(), result=JobResult(), partial=True))
    check_finish(Finish(JobState.DEFERRED, (), JobUsage(), run_at=NOW, deferral_reason=DeferralReason.RELATIONS))
    check_finish(cancelled(stages=(), usage=JobUsage()))
    check_finish(dataclasses.replace(cancelled(stages=(), usage=JobUsage()), state=JobState.FAILED, error=ERROR))
