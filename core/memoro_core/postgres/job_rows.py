"""Rows of `jobs` and `job_events`, as the domain has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from asyncpg import Record
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from memoro_core.jobs.model import (
    Job,
    JobError,
    JobEvent,
    JobKind,
    JobResult,
    JobState,
    JobUsage,
    Priority,
    StageProgress,
)

_STAGES: Final = TypeAdapter(tuple[StageProgress, ...])
_ERROR: Final = TypeAdapter(JobError)
_RESULT: Final = TypeAdapter(JobResult)
_EVENT: Final = TypeAdapter(JobEvent)


def job_of(row: Record) -> Job:
    """A job from a row with the columns of `get_job`."""
    error, result = row["error"], row["result"]
    return Job(
        id=row["job_id"],
        kind=JobKind(row["kind"]),
        state=JobState(row["state"]),
        priority=Priority(row["priority"]),
        user_id=row["user_id"],
        memory_ids=tuple(row["memory_ids"]),
        stages=_STAGES.validate_python(row["stages"]),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        run_at=row["run_at"],
        sequence=row["last_seq"],
        created_at=row["created_at"],
        partial=row["partial"],
        cancel_requested=row["cancel_requested"],
        error=None if error is None else _ERROR.validate_python(error),
        result=None if result is None else _RESULT.validate_python(result),
        usage=JobUsage(row["input_tokens"], row["output_tokens"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        trace_parent=row.get("trace_parent"),
    )


def event_of(event: object) -> JobEvent:
    """An event from its JSON, as the column `event` and the live tail carry it. Raises ValueError for anything else."""
    return _EVENT.validate_python(event)


def event_json(event: JobEvent) -> dict[str, Any]:
    """An event as JSON, without what is not set."""
    return dict(to_jsonable_python(event, exclude_none=True))


def change_json(event: JobEvent) -> dict[str, Any]:
    """An event as JSON without its number and attempt, which the statement that changes the row adds."""
    json = event_json(event)
    del json["seq"], json["attempt"]
    return json


def stages_json(stages: Sequence[StageProgress]) -> list[Any]:
    """Stages as the column `stages` holds them."""
    return list(to_jsonable_python(stages))
