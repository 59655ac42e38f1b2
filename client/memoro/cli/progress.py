"""Shows a job on its way: bars on a terminal, a line per change elsewhere, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from memoro.cli.output import Output
from memoro.enums import Stage, StageStatus
from memoro.types import Job, JobUpdate, StageProgress

_MARKS = {
    StageStatus.RUNNING: "[yellow]…[/]",
    StageStatus.SUCCEEDED: "[green]✓[/]",
    StageStatus.PARTIAL: "[yellow]~[/]",
    StageStatus.SKIPPED: "[dim]-[/]",
    StageStatus.FAILED: "[red]✗[/]",
}


def show_updates(output: Output, updates: Iterable[JobUpdate]) -> None:
    """Shows the updates as they come, to the last."""
    if output.as_json:
        for update in updates:
            output.json_line(update)
    elif output.console.is_terminal:
        _show_bars(output, updates)
    else:
        for update in updates:
            output.say(_line(update))


def ending(job: Job) -> str:
    """How a job has ended, in one line."""
    parts = [f"job {job.id} {job.state}"]
    if job.partial:
        parts.append("in part")
    if job.result is not None:
        result = job.result
        parts.append(f"({result.memories} memories, {result.entities} entities, {result.relationships} relationships)")
    if job.error is not None and not job.result:
        parts.append(f"{job.error.message} ({job.error.reason})")
    return " ".join(parts)


def _show_bars(output: Output, updates: Iterable[JobUpdate]) -> None:
    columns = (
        TextColumn("{task.fields[mark]} {task.description:<8}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=output.console) as bars:
        rows: dict[Stage, TaskID] = {}

        def show(stage: StageProgress) -> None:
            if stage.stage not in rows:
                rows[stage.stage] = bars.add_task(stage.stage.lower(), total=None, start=False, mark=" ")
            row = rows[stage.stage]
            if stage.status not in {StageStatus.PENDING, StageStatus.UNKNOWN} and not bars.tasks[row].started:
                bars.start_task(row)
            done = stage.status in _MARKS and stage.status is not StageStatus.RUNNING
            total = max(stage.total, 1)
            bars.update(
                row, completed=total if done else stage.completed, total=total, mark=_MARKS.get(stage.status, " ")
            )
            if done:
                bars.stop_task(row)

        for update in updates:
            for stage in update.snapshot.stages if update.snapshot else ():
                show(stage)
            if update.stage is not None:
                show(update.stage)


def _line(update: JobUpdate) -> str:
    time = (update.event_time or datetime.now(UTC)).astimezone().strftime("%H:%M:%S")
    if update.stage is None:
        text = str(update.state)
        if update.error is not None and not update.state.ended:
            text += f" after attempt {update.attempt}: {update.error.message}"
    else:
        stage = update.stage
        text = f"{stage.stage.lower():<8} {stage.status.lower()} {stage.completed}/{stage.total}"
    return f"{time}  {text}"
