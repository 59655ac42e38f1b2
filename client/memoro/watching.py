"""Follows a job to its end over streams that may break."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from memoro import convert
from memoro.enums import JobState, StageStatus
from memoro.errors import Code, DeadlineExceeded, MemoroError
from memoro.methods import WATCH_JOB
from memoro.transport import Transport
from memoro.types import Job, JobUpdate, StageProgress
from memoro.v1.jobs_service_pb2 import WatchJobRequest

PATIENCE = 120.0
"""For how many seconds a watch goes on trying without any message before it gives up."""

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0

_CURED_BY_A_NEW_STREAM = {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED}
_BROKEN_STREAM = {Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED}


async def watch_job(
    transport: Transport,
    job_id: str,
    *,
    resume_token: str = "",
    timeout: float | None = None,
    patience: float = PATIENCE,
) -> AsyncGenerator[JobUpdate, None]:
    """The job's updates in order, each once, until the job has ended.

    Begins with a snapshot, or after `resume_token`. When the server drains, dies or falls silent, it takes the watch up
    again with the last token. When the events after that token are gone, it begins anew with a snapshot, which is left
    out if nothing has changed. Raises DeadlineExceeded after `timeout` seconds, the last error after `patience` seconds
    without any message, and at once any error that a new stream would not cure.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    sequence = -1
    failures = 0
    failing_since = 0.0
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded(f"job {job_id} has not ended within {timeout:g} s")
        request = WatchJobRequest(job_id=job_id, resume_token=resume_token)
        stream = transport.stream(WATCH_JOB, request, left if left is None else min(left, WATCH_JOB.deadline))
        try:
            async with aclosing(stream):
                async for message in stream:
                    failures = 0
                    resume_token = message.resume_token or resume_token
                    if message.WhichOneof("event") not in {"snapshot", "update"} or message.sequence <= sequence:
                        continue
                    sequence = message.sequence
                    update = convert.job_update(job_id, message)
                    yield update
                    if update.state.ended:
                        return
        except MemoroError as error:
            if resume_token and error.reason == "RESUME_TOKEN_EXPIRED":
                resume_token = ""
                continue
            now = time.monotonic()
            failing_since = failing_since if failures else now
            if not _curable(error) or now - failing_since >= patience:
                raise
            delay = _delay(failures, error.retry_after)
            failures += 1
        else:
            # The server ends a stream with OK only when all has been told.
            return
        await transport.sleep(delay if left is None else min(delay, left))


def apply_update(job: Job, update: JobUpdate) -> Job:
    """The job after the update; an update that it has seen changes nothing."""
    if update.snapshot is not None:
        return update.snapshot
    if update.sequence <= job.sequence:
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


def _curable(error: MemoroError) -> bool:
    # gRPC tells of a connection that broke in the middle in several ways, none of which bears a reason of ours.
    return error.code in _CURED_BY_A_NEW_STREAM or (not error.reason and error.code in _BROKEN_STREAM)


def _delay(failures: int, retry_after: float | None) -> float:
    spread: float = random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
    backoff: float = min(_FIRST_DELAY * 2**failures, _LONGEST_DELAY) * spread
    return max(backoff, min(retry_after or 0.0, _LONGEST_DELAY))
