"""What the money says of new jobs, and how texts are stored with theirs, in a transaction of their tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeVar

from memoro_core.billing.errors import insufficient_credits
from memoro_core.billing.model import Deferred, HoldRequest, HoldVerdict, Refused
from memoro_core.errors import MemoroError
from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Job, JobEvent, JobState
from memoro_core.limits.model import Quota
from memoro_core.memory.ports import Draft, Replay, Stored
from memoro_core.memory.service import content_hash
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.quotas import beyond_quota_in
from memoro_core.postgres.replays import find_all_in

_SQL: Final = load_queries("memories")
T = TypeVar("T")
_NOTHING: Final[Mapping[JobId, MemoroError]] = MappingProxyType({})


class Overtaken(Exception):
    """A request that something was held for has been done by another transaction: nothing of this one may stay."""


async def accept_in(
    connection: Connection, holds: CreditHolds, tenant_id: TenantId, drafts: Sequence[Draft], *, ask_first: bool
) -> Sequence[Stored | Replay | MemoroError | None]:
    """Stores drafts of one text each; a verdict per draft.

    Hardly a request is known before, so that with `ask_first` false nobody asks: what turns out to be known, after
    something was held for it, raises Overtaken, and the transaction is to be made again. None for a draft that is to be
    tried again: its request id came twice, and what came first with it was refused.
    """
    new, beyond = drafts, _NOTHING
    if quota := drafts[-1].quota:
        new, beyond = await _within(connection, tenant_id, drafts, quota)
    if not any(draft.job.cost_bound for draft in drafts):
        stored = await _store(connection, tenant_id, new)
        return await _with_replays(connection, tenant_id, drafts, {**stored, **beyond})
    if ask_first:
        # What is known holds nothing, and is not refused either.
        known = await find_all_in(connection, tenant_id, _requests(new))
        new = [draft for draft in new if draft.idempotency not in known]
    new = _first_of_each(new)
    accepted: list[Draft] = []
    refused: list[tuple[Draft, MemoroError]] = []
    for draft, job in zip(new, await hold_in(connection, holds, tenant_id, new), strict=True):
        if isinstance(job, MemoroError):
            refused.append((draft, job))
        else:
            accepted.append(draft if job is draft.job else replace(draft, job=job))
    stored = await _store(connection, tenant_id, accepted)
    if len(stored) < len(accepted):
        raise Overtaken
    # Another transaction may have done them, while this one waited for the account.
    known = await find_all_in(connection, tenant_id, _requests([draft for draft, _ in refused]))
    errors = {draft.job.id: error for draft, error in refused if draft.idempotency not in known}
    return await _with_replays(connection, tenant_id, drafts, {**stored, **errors, **beyond})


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


async def _within(
    connection: Connection, tenant_id: TenantId, drafts: Sequence[Draft], quota: Quota
) -> tuple[Sequence[Draft], Mapping[JobId, MemoroError]]:
    """The drafts that a quota has room for, and what to say of others; not of those whose request came before them."""
    first = _first_of_each(drafts)
    beyond = await beyond_quota_in(connection, tenant_id, first, quota)
    if not beyond:
        return drafts, beyond
    refused = {request.request_id for request in _requests([draft for draft in first if draft.job.id in beyond])}
    within = [
        draft
        for draft in drafts
        if draft.job.id not in beyond and not (draft.idempotency and draft.idempotency.request_id in refused)
    ]
    return within, beyond


async def _store(connection: Connection, tenant_id: TenantId, drafts: Sequence[Draft]) -> dict[JobId, Stored]:
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
        [draft.idempotency.request_id if draft.idempotency else None for draft in drafts],
        [draft.idempotency.fingerprint if draft.idempotency else None for draft in drafts],
        first.stages,
        first.max_attempts,
        [first_event(draft.job) for draft in drafts],
        [draft.run_by_caller for draft in drafts],
        _sparse([draft.job.trace_parent for draft in drafts]),
        _sparse([draft.job.cost_bound for draft in drafts]),
        _sparse([draft.job.deferral_reason for draft in drafts]),
        _sparse([draft.job.run_at if draft.job.deferral_reason else None for draft in drafts]),
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
    repeated = [draft for draft in drafts if draft.job.id not in verdicts]
    known = await find_all_in(connection, tenant_id, _requests(repeated))
    return [
        verdicts.get(draft.job.id) or (known.get(draft.idempotency) if draft.idempotency else None) for draft in drafts
    ]


def _first_of_each(drafts: Sequence[Draft]) -> Sequence[Draft]:
    """The drafts without those whose request id came before among them."""
    seen: set[str] = set()
    first = []
    for draft in drafts:
        if draft.idempotency is None:
            first.append(draft)
        elif draft.idempotency.request_id not in seen:
            seen.add(draft.idempotency.request_id)
            first.append(draft)
    return first


def _requests(drafts: Sequence[Draft]) -> Sequence[Idempotency]:
    return [draft.idempotency for draft in drafts if draft.idempotency]


def _sparse(values: Sequence[T]) -> Sequence[T]:
    """The values, or none of them where all are nothing: the statement takes what is missing for nothing."""
    return values if any(values) else ()
