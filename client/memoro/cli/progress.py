"""Shows a job on its way: bars on a terminal, a line per change elsewhere, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from memoro.cli.output import Output
from memoro.cli.standing import change_of, state_of
from memoro.enums import JobState, Stage, StageStatus
from memoro.sync_client import JobHandle
from memoro.types import Job, JobUpdate, StageProgress

_MARKS = {
    StageStatus.RUNNING: "[yellow]…[/]",
    StageStatus.SUCCEEDED: "[green]✓[/]",
    StageStatus.PARTIAL: "[yellow]~[/]",
    StageStatus.SKIPPED: "[dim]-[/]",
    StageStatus.FAILED: "[red]✗[/]",
}


Frame = tuple[JobUpdate, Job]
"""An update, and the job after it."""


def follow_frames(job: JobHandle) -> Iterator[Frame]:
    """The job's frames, to its end."""
    for update in job.watch():
        assert job.latest is not None, "a watch begins with a snapshot"
        yield update, job.latest


def show_frames(output: Output, frames: Iterable[Frame]) -> None:
    """Shows the frames as they come, to the last."""
    if output.as_json:
        for update, _ in frames:
            output.json_line(update)
    elif output.console.is_terminal:
        _show_bars(output, frames)
    else:
        _show_lines(output, frames)


def show_updates(output: Output, updates: Iterable[JobUpdate]) -> None:
    """Shows updates of many jobs as they come, a line each."""
    for update in updates:
        if output.as_json:
            output.json_line(update)
            continue
        if update.after_gap:
            output.say("[yellow]what happened before this is no longer known; the jobs that are open follow[/]")
        output.say(f"{_clock(update)}  {update.job_id}  {escape(change_of(update))}")


def _show_bars(output: Output, frames: Iterable[Frame]) -> None:
    columns = (
        TextColumn("{task.fields[mark]} {task.description:<8}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=output.console) as bars:
        rows: dict[Stage, TaskID] = {}
        state: JobState | None = None
        for update, job in frames:
            if job.state is not state and (job.waiting_for_retry or job.state is JobState.DEFERRED):
                bars.console.print(escape(f"{_clock(update)}  {state_of(job)}"))
            state = job.state
            for stage in job.stages:
                if stage.stage not in rows:
                    rows[stage.stage] = bars.add_task(stage.stage.lower(), total=None, start=False, mark=" ")
                _move(bars, rows[stage.stage], stage)


def _move(bars: Progress, row: TaskID, stage: StageProgress) -> None:
    mark = _MARKS.get(stage.status)
    if mark is None:
        return
    over = stage.status is not StageStatus.RUNNING
    total = max(stage.total, 1)
    bars.start_task(row)
    bars.update(row, completed=total if over else stage.completed, total=total, mark=mark)
    if over:
        bars.stop_task(row)


def _show_lines(output: Output, frames: Iterable[Frame]) -> None:
    state: JobState | None = None
    shown: set[StageProgress] = set()
    for update, job in frames:
        time = _clock(update)
        told = [
            f"{stage.stage.lower():<8} {stage.status.lower()} {stage.completed}/{stage.total}"
            for stage in job.stages
            if stage.status in _MARKS and stage not in shown
        ]
        shown.update(job.stages)
        if job.state is not state:
            # The job ends after its stages, and begins before them.
            told.insert(len(told) if job.state.ended else 0, _new_state(job))
            state = job.state
        for text in told:
            output.say(f"{time}  {escape(text)}")


def _new_state(job: Job) -> str:
    # What comes of it is told at the end, by the command.
    return str(job.state) if job.state.ended else state_of(job)


def _clock(update: JobUpdate) -> str:
    return (update.event_time or datetime.now(UTC)).astimezone().strftime("%H:%M:%S")
