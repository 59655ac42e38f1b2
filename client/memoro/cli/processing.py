"""`memoro admin`: workers and queues."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro.cli.options import choices, moment
from memoro.cli.session import Session, connected
from memoro.enums import JobState
from memoro.types import QueueStatus

Queue = Annotated[str, typer.Argument(help="The tier whose jobs it holds. Default: all queues.")]
OfTenant = Annotated[str, typer.Option("--tenant", help="Only jobs of the tenant of this id.")]
AtMost = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many at most.")]

_WORKER = {
    "id": "id",
    "host": "host",
    "process_id": "process",
    "version": "version",
    "running": "running",
    "concurrency": "of",
    "start_time": "started",
    "seen_time": "seen",
    "stopping": "stopping",
}
_RUNNING = {"job_id": "job", "tenant_id": "tenant", "kind": "kind", "attempt": "attempt", "start_time": "since"}
_QUEUE = {
    "name": "queue",
    "waiting": "waiting",
    "active": "active",
    "deferred": "deferred",
    "succeeded_today": "succeeded today",
    "failed_today": "failed today",
    "rate": "jobs/s",
    "oldest_due_time": "oldest due",
    "pause_time": "paused",
}


def _show_queues(session: Session, queues: tuple[QueueStatus, ...]) -> None:
    session.output.records(queues, _QUEUE, empty="no queues")


@connected
def workers(session: Session) -> None:
    """Shows which workers run, since when and on what, and how the queues stand."""
    status = session.client.admin.workers()
    if session.output.as_json:
        session.output.json_line(status)
        return
    session.output.records(status.workers, _WORKER, empty="no workers")
    running = [job for worker in status.workers for job in worker.jobs]
    if running:
        session.output.say()
        session.output.records(running, _RUNNING)
    session.output.say()
    _show_queues(session, status.queues)


@connected
def pause(session: Session, queue: Queue = "") -> None:
    """Begins no more jobs of a queue; what runs goes on, and calls are accepted as ever."""
    _show_queues(session, session.client.admin.pause_queue(queue))


@connected
def resume(session: Session, queue: Queue = "") -> None:
    """Lets a paused queue run again."""
    _show_queues(session, session.client.admin.resume_queue(queue))


@connected
def requeue(
    session: Session,
    *,
    state: Annotated[
        list[JobState] | None, choices(JobState, help="failed or cancelled; may be given again. Default: failed.")
    ] = None,
    tenant: OfTenant = "",
    reason: Annotated[str, typer.Option(help="Only jobs that failed for this reason, e.g. PROVIDER_FAILED.")] = "",
    since: Annotated[str | None, typer.Option(help="Only jobs that ended from this time on, in ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Only jobs that ended before this time, in ISO 8601.")] = None,
    limit: AtMost = 1000,
) -> None:
    """Does the work of ended jobs again, each as a new job, oldest first."""
    result = session.client.admin.requeue_jobs(
        tenant_id=tenant,
        states=state or (),
        reason=reason,
        ended_from=moment(since) if since else None,
        ended_until=moment(until) if until else None,
        limit=limit,
    )
    told = f"requeued {result.requeued} jobs"
    if result.skipped:
        told += f"; {result.skipped} have nothing left to do, or too few credits"
    session.output.record(result, told + _more(result.more))


@connected
def clear(
    session: Session,
    queue: Queue = "",
    *,
    tenant: OfTenant = "",
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="When neither a queue nor a tenant is named.")
    ] = False,
    deferred: Annotated[bool, typer.Option("--deferred", help="Jobs that are put off, too.")] = False,
    limit: AtMost = 1000,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Does not ask.")] = False,
) -> None:
    """Cancels jobs that wait, oldest first; what runs goes on."""
    if not (queue or tenant or all_tenants):
        raise ValueError("name a queue, or give --tenant or --all-tenants")
    if not yes:
        of = " of ".join(
            part for part in (f"queue {queue}" if queue else "", f"tenant {tenant}" if tenant else "") if part
        )
        typer.confirm(f"Cancel the waiting jobs of {of or 'all tenants'}?", abort=True, err=True)
    result = session.client.admin.clear_queue(
        queue, tenant_id=tenant, all_tenants=all_tenants, deferred=deferred, limit=limit
    )
    session.output.record(result, f"cancelled {result.cancelled} jobs{_more(result.more)}")


@connected
def trigger(session: Session, *, tenant: OfTenant = "") -> None:
    """Lets jobs that are put off, or between two attempts, run now."""
    result = session.client.admin.trigger_processing(tenant)
    session.output.record(
        result, f"{result.released} jobs are no longer put off; {result.due} wait no longer for their next attempt"
    )


def _more(more: bool) -> str:
    return "; more jobs fit: call again" if more else ""
