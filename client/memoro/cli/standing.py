"""How a job stands, in words: what it did, what it failed of, and when it goes on."""

from __future__ import annotations

from datetime import UTC, datetime

from memoro.cli.output import shown
from memoro.enums import JobState
from memoro.money import format_credits
from memoro.types import Job, JobError, JobUpdate

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def standing(job: Job) -> str:
    """The job in one line."""
    return f"job {job.id} {state_of(job)}"


def state_of(job: Job) -> str:
    """The state with what belongs to it: the result, the error, what it costs, or when the job goes on."""
    parts = [str(job.state)]
    if job.partial:
        parts.append("in part")
    if job.result is not None:
        result = job.result
        parts.append(f"({result.memories} memories, {result.entities} entities, {result.relationships} relationships)")
        if result.relate_job_id:
            parts.append(f"entities and facts follow with job {result.relate_job_id}")
    elif job.waiting_for_retry:
        parts.append(f"after attempt {job.attempt} of {job.max_attempts}" + (": " if job.error else ""))
    if job.error is not None and job.result is None:
        parts.append(_words(job.error))
    text = " ".join(parts).replace("  ", " ")
    if costs := cost_of(job):
        text += f"; {costs} credits"
    goes_on = next_run(job)
    return f"{text}; runs {goes_on}" if goes_on else text


def change_of(update: JobUpdate) -> str:
    """What an update tells."""
    if update.snapshot is not None:
        return state_of(update.snapshot)
    # The last stage ends with the job, in one change.
    if update.stage is not None and not update.state.ended:
        stage = update.stage
        return f"{update.state} {stage.stage.lower()} {stage.status.lower()} {stage.completed}/{stage.total}"
    text = str(update.state)
    if update.partial:
        text += " in part"
    if update.error is not None:
        text += f" after attempt {update.attempt}: {_words(update.error)}"
    if update.state.ended and update.usage is not None and update.usage.charged:
        text += f"; {format_credits(update.usage.charged)} credits"
    if update.state in {JobState.QUEUED, JobState.DEFERRED} and update.run_time is not None:
        text += f"; runs {when(update.run_time)}"
    return text


def next_run(job: Job) -> str:
    """When a job that is put off or between two attempts goes on; empty for any other."""
    if job.state is JobState.DEFERRED:
        return when(job.run_time) if job.run_time is not None else "when it is triggered"
    return when(job.run_time) if job.waiting_for_retry and job.run_time is not None else ""


def last_error(job: Job) -> str:
    """What the last attempt failed of; empty: it did not."""
    return _words(job.error) if job.error is not None else ""


def cost_of(job: Job) -> str:
    """What the job has cost in credits, or the most that it may; empty for one that is free."""
    if job.state.ended:
        return format_credits(job.usage.charged) if job.usage.charged else ""
    return f"up to {format_credits(job.cost_bound)}" if job.cost_bound else ""


def when(time: datetime, now: datetime | None = None) -> str:
    """A time to come, and how far it is: `at 2025-03-04 12:00:05 (in 5 s)`."""
    left = round((time - (now or datetime.now(UTC))).total_seconds())
    if left <= 0:
        return "at once"
    unit, seconds = next((unit, seconds) for unit, seconds in _UNITS if left >= seconds)
    return f"at {shown(time)} (in {round(left / seconds)} {unit})"


def _words(error: JobError) -> str:
    return f"{error.message} ({error.reason})"
