"""Follows a job to its end over streams that may break."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from memoro import convert
from memoro.enums import JobState, StageStatus
from memoro.methods import WATCH_JOB
from memoro.resuming import PATIENCE, resumed
from memoro.transport import Transport
from memoro.types import Job, JobUpdate, StageProgress
from memoro.v1.jobs_service_pb2 import WatchJobRequest


async def watch_job(
    transport: Transport,
    job_id: str,
    *,
    resume_token: str = "",
    timeout: float | None = None,
    patience: float = PATIENCE,
) -> AsyncGenerator[JobUpdate, None]:
    """The job's updates in order, each once, until the job has ended.

    Begins with a snapshot, or after `resume_token`. A stream that breaks is taken up again with the last token. When
    the events after that token are gone, the watch begins anew with a snapshot, which is left out if nothing has
    changed. Raises as `resumed` does.
    """
    token = resume_token
    sequence = -1
    messages = resumed(
        transport,
        WATCH_JOB,
        lambda: WatchJobRequest(job_id=job_id, resume_token=token),
        late=f"job {job_id} has not ended within {timeout:g} s" if timeout is not None else "",
        timeout=timeout,
        patience=patience,
    )
    async with aclosing(messages):
        async for message in messages:
            if message is None:
                token = ""
                continue
            token = message.resume_token or token
            if message.WhichOneof("event") not in {"snapshot", "update"}:
                continue
            update = convert.job_update(message)
            # A crash of the database may take progress back that was told: then the end has a lower number.
            if update.sequence <= sequence and not update.state.ended:
                continue
            sequence = update.sequence
            yield update
            if update.state.ended:
                return


def apply_update(job: Job, update: JobUpdate) -> Job:
    """The job after the update; an update that it has seen changes nothing."""
    if update.snapshot is not None:
        return update.snapshot
    if update.sequence <= job.sequence and (job.state.ended or not update.state.ended):
        return job
    stages = job.stages if update.stage is None else _with_stage(job.stages, update.stage)
    if update.state is JobState.SUCCEEDED:
        # The last stage ends with the job, in one change.
        stages = tuple(_ended(stage) if stage.status is StageStatus.RUNNING else stage for stage in stages)
    return replace(
        job,
        sequence=update.sequence,
        state=update.state,
        attempt=update.attempt,
        stages=stages,
        error=update.error or job.error,
        result=update.result or job.result,
        partial=update.partial or job.partial,
        usage=update.usage or job.usage,
        run_time=update.run_time or job.run_time,
        start_time=update.event_time if update.attempt > job.attempt else job.start_time,
        end_time=update.event_time if update.state.ended else job.end_time,
    )


def _with_stage(stages: tuple[StageProgress, ...], moved: StageProgress) -> tuple[StageProgress, ...]:
    if any(stage.stage == moved.stage for stage in stages):
        return tuple(moved if stage.stage == moved.stage else stage for stage in stages)
    return (*stages, moved)


def _ended(stage: StageProgress) -> StageProgress:
    return replace(stage, status=StageStatus.SUCCEEDED, completed=stage.total)
