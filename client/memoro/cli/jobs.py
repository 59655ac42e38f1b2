"""`memoro jobs`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from memoro.cli.options import choices
from memoro.cli.output import Column, fail
from memoro.cli.progress import follow_frames, show_frames, show_updates
from memoro.cli.session import Session, connected
from memoro.cli.standing import cost_of, last_error, next_run, standing
from memoro.enums import JobState
from memoro.errors import JobCancelled, JobFailed
from memoro.sync_client import JobHandle

app = typer.Typer(no_args_is_help=True, help="Follows the work that calls have set going.")

JobId = Annotated[str, typer.Argument(help="The job's id.")]
States = Annotated[list[JobState] | None, choices(JobState, help="May be given again.")]
User = Annotated[str, typer.Option("--user", "-u", help="Only of this user.")]

COLUMNS: dict[Column, str] = {
    "id": "id",
    "state": "state",
    "attempt": "attempt",
    "user_id": "user",
    "create_time": "accepted",
    "end_time": "ended",
    cost_of: "credits",
    next_run: "runs",
    last_error: "error",
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
        session.output.say(standing(job.latest))


@app.command("watch")
@connected
def watch(
    session: Session,
    job_id: Annotated[str, typer.Argument(help="The job's id. Default: all jobs.", metavar="[JOB_ID]")] = "",
    *,
    state: States = None,
    user: User = "",
    resume_token: Annotated[str, typer.Option(help="Of an update of all jobs: goes on after it.")] = "",
) -> None:
    """Follows a job to its end, and exits with 1 unless it succeeds; or follows all jobs, until Ctrl-C."""
    if job_id:
        if state or user or resume_token:
            raise ValueError("--state, --user and --resume-token are for all jobs: leave out the id")
        # A job that is not there is told at once, and not after the patience of a watch.
        session.client.jobs.get(job_id)
        follow(session, session.client.jobs.handle(job_id))
        return
    # So are a server that is not there, and a key that is not valid.
    next(session.client.jobs.list(limit=1), None)
    with session.client.jobs.watch_all(states=state or (), user_id=user, resume_token=resume_token) as updates:
        show_updates(session.output, updates)


@app.command("list")
@connected
def list_jobs(
    session: Session,
    *,
    state: States = None,
    user: User = "",
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
    session.output.record(job, standing(job))
    session.output.records(job.stages, {"stage": "stage", "status": "status", "completed": "done", "total": "of"})


@app.command("cancel")
@connected
def cancel(session: Session, job_id: JobId) -> None:
    """Cancels a job: a waiting one at once, a running one within a second."""
    job = session.client.jobs.cancel(job_id)
    told = "will end within a second" if job.state is JobState.RUNNING else f"is {job.state}"
    session.output.record(job, f"job {job.id} {told}")


@app.command("retry")
@connected
def retry(
    session: Session,
    job_id: JobId,
    *,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follows the new job to its end.")] = False,
) -> None:
    """Does the work of a failed or cancelled job again, as a new job."""
    job = session.client.jobs.retry(job_id)
    session.output.say(escape(f"job {job.id} takes up the work of job {job_id}"))
    if wait:
        follow(session, job, quiet=session.output.as_json)
    session.output.json_line(job.latest)
