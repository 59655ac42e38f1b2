"""Rows of `jobs` and `job_events`, as the domain has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asyncpg import Record
from pydantic import TypeAdapter

from memoro_core.billing.model import DeferralReason
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import (
    Claim,
    Job,
    JobError,
    JobEvent,
    JobKind,
    JobRef,
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
    """A job from a row with the fragment `job_columns`."""
    error, result, deferral_reason = row["error"], row["result"], row["deferral_reason"]
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
        usage=JobUsage(row["input_tokens"], row["output_tokens"], row["charged"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        retry_of=row["retry_of"],
        trace_parent=row["trace_parent"],
        cost_bound=row["cost_bound"],
        deferral_reason=None if deferral_reason is None else DeferralReason(deferral_reason),
    )


def ref_of(row: Record) -> JobRef:
    """Which job a row is of."""
    return JobRef(row["tenant_id"], row["job_id"])


def claim_of(row: Record) -> Claim:
    """A claim from a row with the columns of `claim`."""
    return Claim(ref_of(row), row["run_lease"], job_of(row))


def ref_columns(refs: Sequence[JobRef]) -> tuple[list[TenantId], list[JobId]]:
    """Jobs as the parallel arrays that statements over many of them take."""
    return [ref.tenant_id for ref in refs], [ref.job_id for ref in refs]


def claim_columns(claims: Sequence[Claim]) -> tuple[list[TenantId], list[JobId], list[int]]:
    """Runs as the parallel arrays that statements over many of them take."""
    return *ref_columns([claim.ref for claim in claims]), [claim.lease for claim in claims]


def event_of(event: object) -> JobEvent:
    """An event from its JSON, as the column `event` and the live tail carry it. Raises ValueError for anything else."""
    return _EVENT.validate_python(event)
