"""What the money says of new jobs, and how texts are stored with theirs, in a transaction of their tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from memoro_core.billing.errors import insufficient_credits
from memoro_core.billing.model import Deferred, HoldRequest, HoldVerdict, Refused
from memoro_core.errors import MemoroError
from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Job, JobEvent, JobState
from memoro_core.memory.ports import Draft, Replay, Stored
from memoro_core.memory.service import content_hash
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.replays import find_all_in, forget_all_in, record_all_in

_SQL: Final = load_queries("memories")


async def accept_in(
    connection: Connection, holds: CreditHolds, tenant_id: TenantId, drafts: Sequence[Draft]
) -> Sequence[Stored | Replay | MemoroError | None]:
    """Stores drafts of one text each; a verdict per draft.

    None for one that has to be tried again: its request id came twice, and what came first with it was refused.
    """
    if any(draft.job.cost_bound for draft in drafts):
        return await _accept_paid(connection, holds, tenant_id, drafts)
    stored = await _store(connection, tenant_id, drafts, [draft.idempotency for draft in drafts])
    return await _with_replays(connection, tenant_id, drafts, stored)


async def _accept_paid(
    connection: Connection, holds: CreditHolds, tenant_id: TenantId, drafts: Sequence[Draft]
) -> Sequence[Stored | Replay | MemoroError | None]:
    # Requests first: what is known holds nothing, and is not refused either.
    new = await record_all_in(connection, tenant_id, drafts)
    verdicts: dict[JobId, Stored | MemoroError] = {}
    accepted: list[Draft] = []
    refused: list[Draft] = []
    first = [draft for draft in drafts if draft.job.id in new]
    for draft, job in zip(first, await hold_in(connection, holds, tenant_id, first), strict=True):
        if isinstance(job, MemoroError):
            verdicts[draft.job.id] = job
            refused.append(draft)
        else:
            accepted.append(draft if job is draft.job else replace(draft, job=job))
    await forget_all_in(connection, tenant_id, refused)
    verdicts.update(await _store(connection, tenant_id, accepted, [None] * len(accepted)))
    return await _with_replays(connection, tenant_id, drafts, verdicts)


async def hold_in(
    connection: Connection, holds: CreditHolds, tenant_id: TenantId, drafts: Sequence[Draft]
) -> Sequence[Job | MemoroError]:
    """Sets aside what the jobs of the drafts may cost: each job as it is to be stored, or INSUFFICIENT_CREDITS."""
    if not drafts:
        return []
    requests = [
        HoldRequest(
            draft.job.id,
            draft.job.user_id,
            draft.job.cost_bound,
            draft.idempotency.request_id if draft.idempotency else "",
        )
        for draft in drafts
    ]
    verdicts = await holds.hold_in(connection, tenant_id, requests, now=drafts[-1].job.created_at)
    return [_judged(tenant_id, draft.job, verdict) for draft, verdict in zip(drafts, verdicts, strict=True)]


def first_event(job: Job) -> JobEvent:
    """What is told of a job when it is stored."""
    return JobEvent(seq=1, state=job.state, attempt=0, at=job.created_at, run_at=job.run_at)


def _judged(tenant_id: TenantId, job: Job, verdict: HoldVerdict) -> Job | MemoroError:
    if isinstance(verdict, Refused):
        return insufficient_credits(tenant_id, verdict.need, verdict.have)
    if isinstance(verdict, Deferred):
        return replace(job, state=JobState.DEFERRED, run_at=verdict.until, deferral_reason=verdict.reason)
    return job


async def _store(
    connection: Connection, tenant_id: TenantId, drafts: Sequence[Draft], requests: Sequence[Idempotency | None]
) -> dict[JobId, Stored]:
    """Stores the drafts, those that are known by their requests left out."""
    if not drafts:
        return {}
    first = drafts[0].job
    rows = await connection.fetch(
        _SQL["accept"],
        tenant_id,
        [draft.job.created_at for draft in drafts],
        [draft.memories[0].id for draft in drafts],
        [draft.job.id for draft in drafts],
        [draft.job.user_id for draft in drafts],
        [draft.memories[0].text for draft in drafts],
        [content_hash(draft.memories[0].text) for draft in drafts],
        [draft.memories[0].metadata for draft in drafts],
        [draft.memories[0].occurred_at for draft in drafts],
        [draft.job.priority for draft in drafts],
        [request.request_id if request else None for request in requests],
        [request.fingerprint if request else None for request in requests],
        first.stages,
        first.max_attempts,
        [first_event(draft.job) for draft in drafts],
        [draft.run_by_caller for draft in drafts],
        [draft.job.trace_parent for draft in drafts],
        [draft.job.cost_bound for draft in drafts],
        [draft.job.deferral_reason for draft in drafts],
        [draft.job.run_at if draft.job.deferral_reason else None for draft in drafts],
    )
    in_flight = {row["job_id"]: row["hinted"] for row in rows}
    return {
        draft.job.id: Stored(draft.memories, draft.job, in_flight[draft.job.id])
        for draft in drafts
        if draft.job.id in in_flight
    }


async def _with_replays(
    connection: Connection,
    tenant_id: TenantId,
    drafts: Sequence[Draft],
    verdicts: Mapping[JobId, Stored | MemoroError],
) -> Sequence[Stored | Replay | MemoroError | None]:
    """A verdict per draft: those that there are, and for the others what their requests did before."""
    if len(verdicts) == len(drafts):
        return [verdicts[draft.job.id] for draft in drafts]
    repeated = [draft.idempotency for draft in drafts if draft.idempotency and draft.job.id not in verdicts]
    known = await find_all_in(connection, tenant_id, repeated)
    return [
        verdicts.get(draft.job.id) or (known.get(draft.idempotency) if draft.idempotency else None) for draft in drafts
    ]
