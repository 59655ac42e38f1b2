"""What must be true of every job, whatever happened while it ran."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from asyncpg import Record
from pydantic_core import from_json

from benchmarks.outcome import MONEY, ledger_stands
from memoro_core.ids import TenantId
from memoro_core.jobs.model import JobEvent, Stage, StageStatus
from memoro_core.jobs.model import JobState as State
from memoro_core.jobs.states import can_move
from memoro_core.postgres.job_rows import event_of
from tests.support.chaos import Deployment, Owner
from tests.support.chaos_load import Load, Seen

REPEATED = 10
"""How many calls are made once more at the end."""
_STAGES = list(Stage)

# Each finds nothing in the rows of a tenant ($1) that are as they should be.
_ROWS = {
    "a memory without its one set of results": """
        SELECT job_id, m.status, result
        FROM jobs JOIN memories m USING (tenant_id, job_id)
        WHERE tenant_id = $1 AND jobs.state = 'SUCCEEDED'
          AND (m.status <> 'READY'
            OR m.memory_id <> ALL (memory_ids)
            OR (result ->> 'entities')::integer = 0
            OR (SELECT count(*) FROM memory_embeddings e WHERE e.tenant_id = $1 AND e.memory_id = m.memory_id) <> 1
            OR (SELECT count(*) FROM mentions e WHERE e.tenant_id = $1 AND e.memory_id = m.memory_id)
               <> (result ->> 'entities')::integer
            OR (SELECT count(*) FROM relationship_sources s WHERE s.tenant_id = $1 AND s.memory_id = m.memory_id)
               <> (result ->> 'relationships')::integer)
        """,
    "a job that failed and whose memory does not say so": """
        SELECT job_id, memories.status FROM jobs JOIN memories USING (tenant_id, job_id)
        WHERE tenant_id = $1 AND jobs.state <> 'SUCCEEDED' AND memories.status <> 'FAILED'
        """,
    "a job with a gap in its events": """
        SELECT job_id, last_seq FROM jobs LEFT JOIN job_events USING (tenant_id, job_id)
        WHERE tenant_id = $1
        GROUP BY tenant_id, job_id, last_seq
        HAVING count(seq) <> last_seq OR min(seq) <> 1 OR max(seq) <> last_seq
        """,
    "an entity that is there twice": """
        SELECT user_id, type, normalized_name FROM entities WHERE tenant_id = $1
        GROUP BY user_id, type, normalized_name HAVING count(*) > 1
        """,
    "a fact that stands twice": """
        SELECT source_entity_id, predicate, target_entity_id FROM relationships
        WHERE tenant_id = $1 AND superseded_by IS NULL AND valid_to IS NULL
        GROUP BY source_entity_id, predicate, target_entity_id HAVING count(*) > 1
        """,
    "a fact that nobody stated": """
        SELECT relationship_id FROM relationships LEFT JOIN relationship_sources USING (tenant_id, relationship_id)
        WHERE tenant_id = $1 AND memory_id IS NULL
        """,
    "a job that costs nothing, so that no money can go astray": """
        SELECT job_id FROM jobs WHERE tenant_id = $1 AND cost_bound = 0
        """,
    **MONEY,
}


async def violations(
    deployment: Deployment, load: Load, *, failed: Sequence[str] = (), crashed: bool = False
) -> Sequence[str]:
    """What is not as it should be with the tenant's jobs, all of which must have ended; those in `failed` not well.

    `crashed`: PostgreSQL has, and watchers may have been told of progress that it has forgotten.
    """
    owner, tenant = deployment.owner, load.tenant_id
    found = [f"a call was answered with {error}" for error in load.unexplained]
    jobs = {str(row["job_id"]): row for row in await owner.fetch("SELECT * FROM jobs WHERE tenant_id = $1", tenant)}
    for job_id, job in jobs.items():
        wanted = "FAILED" if job_id in failed else "SUCCEEDED"
        if job["state"] != wanted:
            found.append(f"a job is not {wanted}: {_told(job)}")
    memories = {str(row[0]) for row in await owner.fetch("SELECT memory_id FROM memories WHERE tenant_id = $1", tenant)}
    made = {answer.job_id for answer in load.accepted.values()}
    # What is left to a later job is named by the one that leaves it.
    made |= {from_json(job["result"]).get("relate_job_id") for job in jobs.values() if job["result"]} - {None}
    for kind, accepted, stored in (
        ("job", made, set(jobs)),
        ("memory", {answer.memory_id for answer in load.accepted.values()}, memories),
    ):
        found += [f"a {kind} was accepted and is lost: {one}" for one in accepted - stored]
        found += [f"a {kind} that no call was answered with: {one}" for one in stored - accepted]
    found += await violations_of_jobs(owner, tenant)
    for job_id, seen in (await load.watched()).items():
        if isinstance(seen, BaseException):
            found.append(f"a watch ended with {seen!r}: job {job_id}")
        elif job_id in jobs:
            last = jobs[job_id]["last_seq"]
            found += [f"{wrong}: job {job_id}: {seen}" for wrong in _wrong_in_watch(seen, last, gaps=crashed)]
    if not await ledger_stands(deployment.settings, tenant):
        found.append("a ledger is not whole")
    for ask in load.random.sample(list(load.accepted), min(REPEATED, len(load.accepted))):
        if (again := await load.ask(ask)) != load.accepted[ask]:
            found.append(f"a repeated call has another answer: {load.accepted[ask]}, then {again}")
    return found


async def violations_of_jobs(owner: Owner, tenant: TenantId) -> Sequence[str]:
    """What is not as it should be with the rows of a tenant's jobs, all of which must have ended."""
    found: list[str] = []
    for what, query in _ROWS.items():
        found += [f"{what}: {_told(row)}" for row in await owner.fetch(query, tenant)]
    events = await owner.fetch("SELECT job_id, event FROM job_events WHERE tenant_id = $1 ORDER BY job_id, seq", tenant)
    for job_id, rows in itertools.groupby(events, key=lambda row: str(row["job_id"])):
        told = [event_of(from_json(row["event"])) for row in rows]
        found += [f"{wrong}: job {job_id}: {_life(told)}" for wrong in _wrong_in(told)]
    return found


async def check(deployment: Deployment, load: Load, *, failed: Sequence[str] = (), crashed: bool = False) -> None:
    """Fails with what is not as it should be."""
    found = await violations(deployment, load, failed=failed, crashed=crashed)
    assert not found, "\n".join([*found[:20], f"{len(found)} in all", await deployment.report()])


def _wrong_in(events: Sequence[JobEvent]) -> Iterator[str]:
    """What one job's events should not say.

    A run's progress goes one way; where it goes back within one attempt, somebody else has written, too: a worker that
    no longer held the job.
    """
    if sum(event.state.terminal for event in events) != 1 or not events[-1].state.terminal:
        yield "not one terminal event, the last"
    reached = (-1, 0, 0)
    for before, after in itertools.pairwise(events):
        stage = after.stage
        if after.state is before.state is State.RUNNING and stage is not None:
            place = (_STAGES.index(stage.stage), int(stage.status is not StageStatus.RUNNING), stage.completed)
            if place <= reached or after.attempt != before.attempt:
                yield "progress that another run reported"
            reached = place
        elif not can_move(before.state, after.state):
            yield f"a move from {before.state} to {after.state}"
        elif after.state is State.RUNNING:
            reached = (-1, 0, 0)
            if after.attempt != before.attempt + 1:
                yield "an attempt that was not counted, or counted twice"
        elif after.state is State.SUCCEEDED and reached[0] != _STAGES.index(Stage.COMMIT):
            yield "a success that another run reported"


def _wrong_in_watch(seen: Seen, last: int, *, gaps: bool) -> Iterator[str]:
    numbers = [number for number, _ in seen]
    if not gaps and any(after > before + 1 for before, after in itertools.pairwise(numbers)):
        yield "a watcher was not told everything"
    if any(before >= after for before, after in itertools.pairwise(numbers)):
        yield "a watcher was told things out of order, or twice"
    if [number for number, state in seen if state.ended] != [last]:
        yield f"a watcher was not told the end ({last}) once"


def _life(events: Sequence[JobEvent]) -> str:
    return ", ".join(
        f"{event.seq} {event.state}/{event.attempt}"
        + (f" {event.stage.stage} {event.stage.status} {event.stage.completed}" if event.stage else "")
        + (f" ({event.error.reason})" if event.error else "")
        for event in events
    )


def _told(row: Record) -> dict[str, Any]:
    return {name: str(value)[:200] for name, value in row.items() if value is not None}
