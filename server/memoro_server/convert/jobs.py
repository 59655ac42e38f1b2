"""Jobs and their events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from memoro.v1 import jobs_pb2, jobs_service_pb2, memory_pb2
from memoro_core.ids import JobId, UserId
from memoro_core.jobs.feed_ports import FeedFilter
from memoro_core.jobs.model import (
    PLANNED_STAGES,
    Job,
    JobError,
    JobEvent,
    JobFilter,
    JobKind,
    JobResult,
    JobState,
    JobUsage,
    Priority,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_server.convert.scalars import enum_members, enum_numbers, from_time, from_time_or_none, to_time

KINDS: Final = enum_numbers(JobKind, jobs_pb2.JobKind, "JOB_KIND_")
STATES: Final = enum_numbers(JobState, jobs_pb2.JobState, "JOB_STATE_")
STAGES: Final = enum_numbers(Stage, jobs_pb2.Stage, "STAGE_")
STAGE_STATUSES: Final = enum_numbers(StageStatus, jobs_pb2.StageStatus, "STAGE_STATUS_")
PRIORITIES: Final = enum_numbers(Priority, memory_pb2.Priority, "PRIORITY_")
_KIND_OF: Final = enum_members(KINDS)
_STATE_OF: Final = enum_members(STATES)
_PRIORITY_OF: Final = enum_members(PRIORITIES)


def to_priority(number: int) -> Priority | None:
    """The priority, or None when the caller leaves it to the service."""
    return _PRIORITY_OF.get(number)


def to_states(numbers: Sequence[int]) -> Sequence[JobState]:
    """The states that a filter names. UNSPECIFIED among them asks for every one, as none does."""
    return () if 0 in numbers else tuple(_STATE_OF[number] for number in numbers)


def to_kinds(numbers: Sequence[int]) -> Sequence[JobKind]:
    """The kinds that a filter names. UNSPECIFIED among them asks for every one, as none does."""
    return () if 0 in numbers else tuple(_KIND_OF[number] for number in numbers)


def to_job_filter(request: jobs_service_pb2.ListJobsRequest) -> JobFilter:
    """Which jobs a list asks for."""
    return JobFilter(
        states=to_states(request.states),
        kinds=to_kinds(request.kinds),
        user_id=UserId(request.user_id) if request.user_id else None,
        created_from=to_time(request, "created_from"),
        created_until=to_time(request, "created_until"),
    )


def to_feed_filter(request: jobs_service_pb2.WatchJobsRequest) -> FeedFilter:
    """Which jobs a watch of a tenant's is to tell of."""
    return FeedFilter(
        states=frozenset() if 0 in request.states else frozenset(_STATE_OF[number] for number in request.states),
        kinds=frozenset() if 0 in request.kinds else frozenset(_KIND_OF[number] for number in request.kinds),
        user_id=UserId(request.user_id) if request.user_id else None,
    )


def from_job(job: Job) -> jobs_pb2.Job:
    """A job as callers see it."""
    return jobs_pb2.Job(
        id=str(job.id),
        kind=KINDS[job.kind],
        state=STATES[job.state],
        priority=PRIORITIES[job.priority],
        user_id=job.user_id,
        memory_ids=[str(memory_id) for memory_id in job.memory_ids],
        stages=_from_stages(job.stages),
        partial=job.partial,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        error=_from_error(job.error),
        result=_from_result(job.result),
        usage=_from_usage(job.usage),
        cancel_requested=job.cancel_requested,
        sequence=job.sequence,
        create_time=from_time(job.created_at),
        run_time=from_time(job.run_at),
        start_time=from_time_or_none(job.started_at),
        end_time=from_time_or_none(job.ended_at),
        retry_of=str(job.retry_of) if job.retry_of else "",
        cost_bound=job.cost_bound,
    )


def from_job_event(job_id: JobId, event: JobEvent) -> jobs_pb2.JobUpdate:
    """A change of a job as watchers see it."""
    return jobs_pb2.JobUpdate(
        job_id=str(job_id),
        state=STATES[event.state],
        attempt=event.attempt,
        stage=None if event.stage is None else _from_stage(event.stage),
        error=_from_error(event.error),
        run_time=from_time_or_none(event.run_at),
        result=_from_result(event.result),
        partial=event.partial,
        usage=_from_usage(event.usage),
        event_time=from_time(event.at),
    )


def heartbeat(now: Timestamp, interval: float) -> jobs_pb2.Heartbeat:
    """A sign of life; `interval` is in seconds."""
    duration = Duration()
    duration.FromMilliseconds(round(interval * 1000))
    return jobs_pb2.Heartbeat(server_time=now, interval=duration)


def _from_stages(stages: Sequence[StageProgress]) -> Sequence[jobs_pb2.StageProgress]:
    # Every job just accepted has these, and that call is the one that must be quick.
    return _PLANNED if stages == PLANNED_STAGES else [_from_stage(stage) for stage in stages]


def _from_stage(stage: StageProgress) -> jobs_pb2.StageProgress:
    return jobs_pb2.StageProgress(
        stage=STAGES[stage.stage], status=STAGE_STATUSES[stage.status], completed=stage.completed, total=stage.total
    )


def _from_error(error: JobError | None) -> jobs_pb2.JobError | None:
    if error is None:
        return None
    return jobs_pb2.JobError(reason=error.reason, message=error.message, retryable=error.retryable)


def _from_result(result: JobResult | None) -> jobs_pb2.JobResult | None:
    if result is None:
        return None
    return jobs_pb2.JobResult(
        memories=result.memories,
        entities=result.entities,
        relationships=result.relationships,
        superseded=result.superseded,
        relate_job_id="" if result.relate_job_id is None else str(result.relate_job_id),
    )


def _from_usage(usage: JobUsage | None) -> jobs_pb2.JobUsage | None:
    if usage is None:
        return None
    return jobs_pb2.JobUsage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, charged=usage.charged)


_PLANNED: Final = tuple(_from_stage(stage) for stage in PLANNED_STAGES)
