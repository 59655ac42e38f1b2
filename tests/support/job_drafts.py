"""Drafts as the service hands them to its store, so that a test can say what comes together."""

from __future__ import annotations

from datetime import UTC, datetime

from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, UserId, new_id
from memoro_core.jobs.model import Priority
from memoro_core.memory.drafting import draft_job, draft_text
from memoro_core.memory.model import NewMemory
from memoro_core.memory.ports import Draft


def draft(
    user: UserId, *, run_by_caller: bool = False, cost_bound: int = 0, idempotency: Idempotency | None = None
) -> Draft:
    """A text of a user, with a job that may cost so much."""
    now, job_id = datetime.now(UTC), JobId(new_id())
    memory = draft_text(NewMemory(user, "a fact"), job_id, now)
    job = draft_job(job_id, [memory], Priority.NORMAL, now, max_attempts=3, cost_bound=cost_bound)
    return Draft([memory], job, idempotency, run_by_caller)
