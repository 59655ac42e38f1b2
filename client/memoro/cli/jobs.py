"""`memoro jobs`."""

from __future__ import annotations

from typing import Annotated

import typer

from memoro.cli.options import choices
from memoro.cli.output import fail
from memoro.cli.progress import ending, follow_frames, show_frames
from memoro.cli.session import Session, connected
from memoro.enums import JobState
from memoro.errors import JobCancelled, JobFailed
from memoro.sync_client import JobHandle

app = typer.Typer(no_args_is_help=True, help="Follows the work that calls have set going.")

JobId = Annotated[str, typer.Argument(help="The job's id.")]

COLUMNS = {
    "id": "id",
    "state": "state",
    "attempt": "attempt",
    "user_id": "user",
    "create_time": "accepted",
    "end_time": "ended",
}


def follow(session: Session, job: JobHandle, *, quiet: bool = False) -> None:
    """Shows a job to its end; exits with 1 when that is not success."""
    if job.latest is None or not job.latest.state.ended:
        if quiet:
            for _ in job.watch():
                pass
        else:
            show_frames(session.output, follow_frames(job))
    try:
        job.result()
    except (JobFailed, JobCancelled) as error:
        raise fail(str(error)) from error
    if job.latest is not None:
        session.output.say(ending(job.latest))


@app.command("watch")
@connected
def watch(session: Session, job_id: JobId) -> None:
    """Follows a job to its end; exits with 1 unless it succeeds."""
    # A job that is not there is told at once, and not after the patience of a watch.
    session.client.jobs.get(job_id)
    follow(session, session.client.jobs.handle(job_id))


@app.command("list")
@connected
def list_jobs(
    session: Session,
    *,
    state: Annotated[list[JobState] | None, choices(JobState, help="May be given again.")] = None,
    user: Annotated[str, typer.Option("--user", "-u", help="Only of this user.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
) -> None:
    """Lists jobs, newest first."""
    session.output.records(
        session.client.jobs.list(states=state or (), user_id=user, limit=limit),
        COLUMNS,
        empty="no jobs",
    )


@app.command("get")
@connected
def get(session: Session, job_id: JobId) -> None:
    """Shows a job with its stages."""
    job = session.client.jobs.get(job_id)
    if session.output.as_json:
        session.output.json_line(job)
        return
    session.output.record(job, ending(job))
    session.output.records(job.stages, {"stage": "stage", "status": "status", "completed": "done", "total": "of"})


@app.command("cancel")
@connected
def cancel(session: Session, job_id: JobId) -> None:
    """Cancels a job: a queued one at once, a running one at its next safe point."""
    job = session.client.jobs.cancel(job_id)
    told = "will end at its next safe point" if job.state is JobState.RUNNING else f"is {job.state}"
    session.output.record(job, f"job {job.id} {told}")
