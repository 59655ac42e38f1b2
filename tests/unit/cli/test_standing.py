"""How a job stands, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memoro import JobError, JobResult, JobState, JobUpdate, JobUsage, Stage, StageProgress, StageStatus
from memoro.cli.standing import change_of, cost_of, last_error, next_run, standing, when

from .test_progress import JOB

NOW = datetime(2025, 3, 4, 12, tzinfo=UTC)
LATER = datetime.now(UTC) + timedelta(hours=2)
AT = LATER.astimezone().strftime("%Y-%m-%d %H:%M:%S")
OVERLOADED = JobError("PROVIDER_FAILED", "it answered 503", True)


def test_a_job_that_waits_for_its_first_attempt() -> None:
    assert standing(JOB) == "job j1 QUEUED"
    assert next_run(replace(JOB, run_time=LATER)) == last_error(JOB) == ""


def test_a_job_that_waits_for_a_retry_says_why_and_when() -> None:
    job = replace(JOB, attempt=2, error=OVERLOADED, run_time=LATER)
    assert standing(job) == (
        f"job j1 QUEUED after attempt 2 of 5: it answered 503 (PROVIDER_FAILED); runs at {AT} (in 2 h)"
    )
    assert (next_run(job), last_error(job)) == (f"at {AT} (in 2 h)", "it answered 503 (PROVIDER_FAILED)")
    assert standing(replace(job, run_time=datetime.now(UTC))).endswith("; runs at once")
    # Its worker was lost, and so is the reason.
    assert standing(replace(job, error=None, run_time=None)) == "job j1 QUEUED after attempt 2 of 5"


def test_a_deferred_job_says_until_when() -> None:
    deferred = replace(JOB, state=JobState.DEFERRED)
    assert standing(deferred) == "job j1 DEFERRED; runs when it is triggered"
    assert standing(replace(deferred, run_time=LATER)) == f"job j1 DEFERRED; runs at {AT} (in 2 h)"


def test_a_job_that_has_ended_says_how() -> None:
    done = replace(JOB, state=JobState.SUCCEEDED, attempt=2, partial=True, result=JobResult(1, 4, 3), error=OVERLOADED)
    assert standing(done) == "job j1 SUCCEEDED in part (1 memories, 4 entities, 3 relationships)"
    failed = replace(JOB, state=JobState.FAILED, attempt=5, error=OVERLOADED)
    assert standing(failed) == "job j1 FAILED it answered 503 (PROVIDER_FAILED)"


def test_a_job_says_what_it_costs() -> None:
    waiting = replace(JOB, cost_bound=2_500)
    assert (cost_of(JOB), cost_of(waiting)) == ("", "up to 0.0025")
    assert standing(waiting) == "job j1 QUEUED; up to 0.0025 credits"
    deferred = replace(waiting, state=JobState.DEFERRED, run_time=LATER)
    assert standing(deferred) == f"job j1 DEFERRED; up to 0.0025 credits; runs at {AT} (in 2 h)"
    done = replace(waiting, state=JobState.SUCCEEDED, result=JobResult(1, 4, 3), usage=JobUsage(charged=2_000))
    assert standing(done) == "job j1 SUCCEEDED (1 memories, 4 entities, 3 relationships); 0.002 credits"
    assert cost_of(replace(done, usage=JobUsage())) == ""
    ended = JobUpdate("j1", 3, "t", JobState.CANCELLED, 1, usage=JobUsage(charged=2_000))
    assert change_of(ended) == "CANCELLED; 0.002 credits"


def test_what_an_update_tells() -> None:
    stage = StageProgress(Stage.EMBED, StageStatus.RUNNING, 3, 8)
    assert change_of(JobUpdate("j1", 2, "t", JobState.RUNNING, 1, stage=stage)) == "RUNNING embed running 3/8"
    assert change_of(JobUpdate("j1", 3, "t", JobState.SUCCEEDED, 1, stage=stage)) == "SUCCEEDED"
    waiting = JobUpdate("j1", 3, "t", JobState.QUEUED, 1, error=OVERLOADED, run_time=LATER)
    assert change_of(waiting) == f"QUEUED after attempt 1: it answered 503 (PROVIDER_FAILED); runs at {AT} (in 2 h)"
    assert change_of(JobUpdate("j1", 4, "t", JobState.SUCCEEDED, 1, partial=True)) == "SUCCEEDED in part"
    assert change_of(JobUpdate("j1", 1, "", JobState.QUEUED, 0, snapshot=JOB)) == "QUEUED"


@pytest.mark.parametrize(
    ("seconds", "left"),
    [(1, "1 s"), (59, "59 s"), (60, "1 min"), (3 * 3600 + 5, "3 h"), (2 * 86_400, "2 d")],
)
def test_how_far_a_time_is(seconds: int, left: str) -> None:
    assert when(NOW + timedelta(seconds=seconds), NOW).endswith(f" (in {left})")
    assert when(NOW - timedelta(seconds=seconds), NOW) == "at once"
